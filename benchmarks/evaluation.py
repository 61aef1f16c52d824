"""How long do COCO's twelve numbers take at the size of val2017? pycocotools, ours, and libraries that happen to be installed.

    python benchmarks/evaluation.py --output benchmarks/results/evaluation

5,000 images, 36,000 objects, 80 classes, 100 detections an image, made (``made_coco.py``). Measured is from detections in memory to the twelve
numbers, on one thread: reading JSON is left out, and so is what is done once for many evaluations, the ground truth (``COCO(...)``, ``load_truth``),
which has a column of its own. ``dicts`` starts from COCO's result list, ``arrays`` from columns, which is what training has. Seconds are the least of
the repeats. Compared are CPU seconds, those that this process had a core: wall seconds say little where others work too. All numbers of every way
must equal pycocotools' to 1e-12 of 1, or the benchmark fails.

The small table is a short trial's evaluation, 16 images, in a fresh interpreter: the first call pays for imports and would pay for compiling.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from made_coco import Made, make
from saving import check_machine, save

from salt_lab.evaluate import Detections, coco_numbers, load_truth, match, numbers

FULL = dict(images=5000, objects=36_000, classes=80, per_image=100)
SMALL = dict(images=16, objects=64, classes=4, per_image=20)


class Way(NamedTuple):
    """One way to the numbers: ``run(truth(), given())`` gives all twelve, 0 to 1. Only ``run`` is what the benchmark is about."""

    truth: Callable[[], Any]
    given: Callable[[], Any]
    run: Callable[[Any, Any], Any]


def ways(made: Made) -> dict[str, Way]:
    """pycocotools, ours, and the others where they are installed."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def dicts() -> Any:
        return [dict(row) for row in made.rows]  # pycocotools writes into them

    def ours(truth: Any, given: Any) -> Any:
        return np.array(coco_numbers(truth, given)) / 100

    found = {
        "pycocotools": Way(lambda: _indexed(COCO, made.truth), dicts, lambda coco, rows: _run(COCOeval, coco, coco.loadRes(rows))),
        "ours, dicts": Way(lambda: load_truth(made.truth), lambda: made.rows, ours),
        "ours, arrays": Way(lambda: load_truth(made.truth), lambda: Detections.from_rows(made.rows), ours),
    }
    if util.find_spec("faster_coco_eval"):
        import faster_coco_eval as faster

        run = partial(_run, faster.COCOeval_faster)
        found["faster-coco-eval"] = Way(
            lambda: faster.COCO(copy.deepcopy(made.truth)), dicts, lambda coco, rows: run(coco, coco.loadRes(rows))
        )
    if util.find_spec("hotcoco"):
        import hotcoco

        run_hot = partial(_run, hotcoco.COCOeval)
        found["hotcoco"] = Way(lambda: hotcoco.COCO(made.truth), dicts, lambda coco, rows: run_hot(coco, coco.load_res(rows)))
    return found


def _indexed(kind: Any, content: dict[str, Any]) -> Any:
    coco = kind()
    coco.dataset = copy.deepcopy(content)
    coco.createIndex()
    return coco


def _run(evaluator: Any, coco: Any, results: Any) -> Any:
    evaluation = evaluator(coco, results, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return np.array(evaluation.stats)[:12]


def timed(way: Way) -> dict[str, Any]:
    """Seconds of one evaluation, and its numbers (NaN where there is nothing to measure)."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        started = time.perf_counter()
        truth = way.truth()
        truth_seconds, given = time.perf_counter() - started, way.given()
        started, cpu = time.perf_counter(), time.process_time()
        values = way.run(truth, given)
        seconds = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu, "truth_seconds": truth_seconds}
    return {**seconds, "numbers": np.where(values < 0, np.nan, values)}


def measure(made: Made, repeats: int, pycocotools_repeats: int) -> list[dict[str, Any]]:
    """Every way ``repeats`` times, in turns, so that a busy minute meets all; checked, and the least of each kind of seconds.

    Raises:
        SystemExit: a way's numbers are not those of pycocotools.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for turn in range(repeats):
        for name, way in ways(made).items():
            if name != "pycocotools" or turn < pycocotools_repeats:
                runs.setdefault(name, []).append(timed(way))
    theirs, rows = runs["pycocotools"][0]["numbers"], []
    for name, results in runs.items():
        off = float(np.nanmax(np.abs([each["numbers"] - theirs for each in results])))
        if off > 1e-12 or any((np.isnan(each["numbers"]) != np.isnan(theirs)).any() for each in results):
            raise SystemExit(f"{name}: not the numbers of pycocotools: {results[0]['numbers']} instead of {theirs}")
        least = {key: min(each[key] for each in results) for key in ("seconds", "cpu_seconds", "truth_seconds")}
        rows.append({"way": name, **least, "largest_difference": off, "repeats": len(results)})
    for row in rows:
        row["times_faster_by_cpu"] = rows[0]["cpu_seconds"] / row["cpu_seconds"]
    return rows


def parts(made: Made) -> dict[str, float]:
    """CPU seconds of the steps of ours."""
    truth, arrays = load_truth(made.truth), Detections.from_rows(made.rows)
    matches = match(truth, arrays)
    steps: dict[str, Callable[[], Any]] = {
        "dicts to arrays": lambda: Detections.from_rows(made.rows),
        "match": lambda: match(truth, arrays),
        "numbers": lambda: numbers(matches),
    }
    return {name: min(_cpu(step) for _ in range(3)) for name, step in steps.items()}


def _cpu(function: Callable[[], Any]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


#: Run in a fresh interpreter: seconds of the import beside NumPy's, of the first evaluation and of the second.
FRESH = """
import json, sys, time, numpy
made, seconds = json.load(sys.stdin), [time.perf_counter()]
{imports}
seconds.append(time.perf_counter())
for _ in range(2):
    {call}
    seconds.append(time.perf_counter())
print("SECONDS", json.dumps(numpy.diff(seconds).tolist()))
"""
SHORT = {
    "ours": ("from salt_lab.evaluate import coco_numbers", "coco_numbers(made[0], made[1])"),
    "pycocotools": (
        "from pycocotools.coco import COCO; from pycocotools.cocoeval import COCOeval",
        "c = COCO(); c.dataset = made[0]; c.createIndex(); e = COCOeval(c, c.loadRes([dict(r) for r in made[1]]), 'bbox'); "
        "e.evaluate(); e.accumulate(); e.summarize()",
    ),
}


def fresh() -> list[dict[str, Any]]:
    """A short trial's evaluation, ground truth included: least of five interpreters."""
    given, rows = json.dumps(make(**SMALL)), []
    for name, (imports, call) in SHORT.items():
        command = [sys.executable, "-c", FRESH.format(imports=imports, call=call)]
        said = [subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout for _ in range(5)]
        seconds = np.min([json.loads(text.split("SECONDS ")[1]) for text in said], axis=0)
        rows.append({"way": name, **dict(zip(("import", "first", "second"), seconds.tolist(), strict=True))})
    return rows


def table(rows: list[dict[str, Any]], short: list[dict[str, Any]], sizes: dict[str, int]) -> str:
    """Both tables."""
    from salt_lab.report.table import markdown

    head = ["way", "CPU seconds", "times less", "wall seconds", "ground truth (wall s)", "largest difference"]
    forms = {"cpu_seconds": ".2f", "times_faster_by_cpu": ".0f", "seconds": ".2f", "truth_seconds": ".2f", "largest_difference": ".0e"}
    body = [[row["way"], *(f"{row[key]:{form}}" for key, form in forms.items())] for row in rows]
    small = [[row["way"], *(f"{1000 * row[key]:.0f}" for key in ("import", "first", "second"))] for row in short]
    said = f"{sizes['images']} images, {sizes['objects']} objects, {sizes['classes']} classes, {sizes['per_image']} detections an image"
    return (
        f"# COCO's twelve numbers: {said}\n\nMade by `python benchmarks/evaluation.py`; machine, load and versions are in "
        "`evaluation.json`. Wall seconds hold for an idle machine only; hotcoco uses all cores, the others one.\n\n"
        f"{markdown(head, body, 1)}\n\n{SMALL['images']} images in a fresh interpreter, milliseconds:\n\n"
        f"{markdown(['way', 'import', 'first evaluation', 'second'], small, 1)}\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Seconds to COCO's twelve numbers at the size of val2017.")
    parser.add_argument("--output", type=Path, required=True, help="folder for evaluation.json and evaluation.md")
    parser.add_argument("--repeats", type=int, default=5, help="of every way but pycocotools")
    parser.add_argument("--pycocotools-repeats", type=int, default=2)
    parser.add_argument("--images", type=int, default=FULL["images"], help="objects in proportion")
    wanted = parser.parse_args()
    check_machine(wanted.output / "evaluation.json")
    sizes = {**FULL, "images": wanted.images, "objects": FULL["objects"] * wanted.images // FULL["images"]}
    made = make(**sizes)
    rows, short = measure(made, wanted.repeats, wanted.pycocotools_repeats), fresh()
    installed = {name: metadata.version(name) for name in ("faster-coco-eval", "hotcoco") if util.find_spec(name.replace("-", "_"))}
    content = {"command": "python benchmarks/evaluation.py", "sizes": sizes, "rows": rows, "parts_cpu_seconds": parts(made), "short": short}
    text = table(rows, short, sizes)
    print(text)
    save(wanted.output, "evaluation", {**content, "other_libraries": installed}, text)


if __name__ == "__main__":
    main()
