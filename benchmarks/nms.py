"""What does post-processing with the portable NMS cost beside mmcv's compiled CPU op? On CPUs, one thread, both in one process, in turns.

    python benchmarks/nms.py --compiled PATH --output benchmarks/results/nms

PATH is mmcv's compiled extension, a folder with it or a wheel (``compiled_mmcv.py``). Where mmcv itself is compiled, it is not needed; without
either, ours is measured alone.

200, 1,000 and 5,000 candidates over 80 classes, made (``made_candidates.py``), with ties. Steps, each holds the one before it:

- ``nms``: the op alone, each class moved to a place of its own; ``one heap``: the same boxes where they are, as if of one class
- ``batched_nms``: mmcv's function as mmdet's heads call it
- ``post-processing``: the head's ``_bbox_post_process``, from candidates to at most 100 detections
- ``predict_by_feat``: of FCOS at 800 x 1333, from its maps to the detections; most of it is the 1.7 million scores, none of it ours

and ``soft_nms`` and ``nms_match`` through mmcv's functions. Milliseconds are the least of the rounds, in CPU time of this process, since others may
work on the machine. The results of both ops must be the same, here and in a fuzz (``nms_equality.py``), or the benchmark fails.
``start``: the first call in a fresh interpreter, with numba's cache empty (once on a machine) and filled (once a process).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compiled_mmcv import WHERE, load_compiled
from made_candidates import Candidates, config, make
from nms_equality import equality, same, with_stable_order
from saving import check_machine, save

import salt_lab.ops.nms as ours
from salt_lab.ops.portable import install

SIZES = (200, 1000, 5000)
AIM = 1.5
STEPS = ("nms", "nms, one heap", "batched_nms", "post-processing", "predict_by_feat", "soft_nms, linear", "soft_nms, gaussian", "nms_match")
#: A round of one way takes about this long, in seconds.
ROUND = 0.02


def steps(made: Candidates, op: Any) -> dict[str, Callable[[], Any]]:
    """What is timed, with ``op`` as mmcv's extension; each gives what can be compared."""
    from mmcv.ops import batched_nms, nms_match, soft_nms
    from mmengine.structures import InstanceData

    cfg, apart = config(len(made.boxes)), made.apart

    def post_process() -> Any:
        results = InstanceData(bboxes=made.boxes, scores=made.scores, labels=made.labels)
        return made.head._bbox_post_process(results, cfg, rescale=True, img_meta=made.maps["batch_img_metas"][0]).bboxes

    found: dict[str, Callable[[], Any]] = {
        "nms": lambda: op.nms(apart, made.scores, iou_threshold=0.5, offset=0),
        "nms, one heap": lambda: op.nms(made.boxes, made.scores, iou_threshold=0.5, offset=0),
        "batched_nms": lambda: batched_nms(made.boxes, made.scores, made.labels, cfg.nms)[1],
        "post-processing": post_process,
        "predict_by_feat": lambda: made.head.predict_by_feat(**made.maps, rescale=True)[0].bboxes,
        "soft_nms, linear": lambda: soft_nms(apart, made.scores, 0.5, method="linear")[1],
        "soft_nms, gaussian": lambda: soft_nms(apart, made.scores, 0.5, method="gaussian")[1],
        "nms_match": lambda: nms_match(torch.cat((apart, made.scores[:, None]), 1), 0.5),
    }
    return {name: functools.partial(_with, op, run) for name, run in found.items()}


def _with(op: Any, run: Callable[[], Any]) -> Any:
    """``run`` with ``op`` in the place of the extension that mmcv has loaded."""
    vars(sys.modules["mmcv.ops.nms"])["ext_module"] = op
    return run()


def measure(made: Candidates, ops: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """A row a step: least and median milliseconds of each op."""
    rows, ways = [], {name: steps(made, op) for name, op in ops.items()}
    if "compiled" in ops:
        stable = steps(made, with_stable_order(ops["compiled"]))
        for step in STEPS:
            same(f"{step}, {len(made.boxes)} candidates", *(_plain(way[step]()) for way in (ways["ours"], stable)))
    for step in STEPS:
        runs = {name: way[step] for name, way in ways.items()}
        calls = max(1, int(ROUND / max(_cpu(run, 1) for run in runs.values())))
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                taken[name].append(1000 * _cpu(run, calls) / calls)
        row: dict[str, Any] = {"candidates": len(made.boxes), "step": step, "calls_a_round": calls}
        for name, each in taken.items():
            row |= {f"{name}_ms": min(each), f"{name}_median_ms": statistics.median(each)}
        rows.append(row | ({"ratio": row["ours_ms"] / row["compiled_ms"]} if "compiled" in ops else {}))
    return rows


def _plain(found: Any) -> list[Any]:
    return [each.tolist() for each in found]


def _cpu(run: Callable[[], Any], calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        run()
    return time.process_time() - started


def compared_pairs(made: Candidates) -> int:
    """Pairs whose IoU the kernel computes: each kept box with all that come after it."""
    order = torch.sort(made.scores, descending=True, stable=True).indices
    kept = torch.isin(order, ours.nms(made.apart, made.scores, 0.5))
    return int((len(order) - 1 - torch.nonzero(kept)).sum())


FRESH = """
import json, sys, time, torch
from salt_lab.ops.nms import nms
def memory(): return int(open("/proc/self/statm").read().split()[1]) * 4 / 1024 if sys.platform == "linux" else float("nan")
boxes, scores, before, seconds = torch.rand(1000, 4), torch.rand(1000), memory(), []
for _ in range(2):
    started = time.perf_counter(), time.process_time()
    nms(boxes, scores, 0.5)
    seconds.append((time.perf_counter() - started[0], time.process_time() - started[1]))
print(json.dumps({"wall": seconds[0][0], "cpu": seconds[0][1], "second_call": seconds[1][0], "MB": memory() - before}))
"""


def fresh() -> list[dict[str, Any]]:
    """The first call of an interpreter, with numba's cache empty and filled (least of three)."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        run = functools.partial(subprocess.run, [sys.executable, "-c", FRESH], env=environment, capture_output=True, text=True, check=True)
        said = [json.loads(run().stdout) for _ in range(4)]
    return [{"cache": "empty", **said[0]}, {"cache": "filled", **min(said[1:], key=lambda each: each["cpu"])}]


def table(rows: list[dict[str, Any]], start: list[dict[str, Any]], checked: dict[str, int] | None) -> str:
    """The tables and what they say."""
    from salt_lab.report.table import markdown

    head = ["step", "candidates", "ours, ms", "compiled, ms", "ratio"]
    forms = {"ours_ms": ".3f", "compiled_ms": ".3f", "ratio": ".2f"}
    body = [
        [row["step"], str(row["candidates"]), *(f"{row[key]:{form}}" if key in row else "-" for key, form in forms.items())] for row in rows
    ]
    cold_head = ["numba's cache", "wall s", "CPU s", "second call, ms", "MB more"]
    cold = [
        [each["cache"], f"{each['wall']:.2f}", f"{each['cpu']:.2f}", f"{1000 * each['second_call']:.2f}", f"{each['MB']:.0f}"]
        for each in start
    ]
    return (
        f"# NMS and post-processing, 80 classes, one CPU thread\n\n{markdown(head, body, 2)}\n\n{_verdict(rows, checked)}\n\n{_limits(rows)}\n\n"
        f"The first call of a fresh interpreter, with the import of numba:\n\n{markdown(cold_head, cold, 1)}\n"
    )


def _verdict(rows: list[dict[str, Any]], checked: dict[str, int] | None) -> str:
    if checked is None:
        return "No compiled op was given (--compiled) and mmcv's is not installed: ours alone, nothing compared."
    worst = max(row["ratio"] for row in rows if row["candidates"] == 1000)
    return (
        f"Aim: a ratio of at most {AIM} at 1,000 candidates; the largest is {worst:.2f}. Both keep the same in every step, and in a fuzz of "
        f"{checked['nms']} cases of nms, {checked['nms_match']} of nms_match and {checked['softnms']} of softnms, with equal scores in their "
        "order. Left to itself the compiled op takes them in the order of torch's unstable sort, and kept other boxes in "
        f"{checked['nms_other_by_order_of_ties']} cases."
    )


def _limits(rows: list[dict[str, Any]]) -> str:
    pairs = [
        f"{row['pairs']:,} pairs at {row['candidates']:,} ({1e6 * row['ours_ms'] / row['pairs']:.2f} ns each)"
        for row in rows
        if "pairs" in row
    ]
    return (
        f"What limits the op is arithmetic: {', '.join(pairs)}; 13 operations, a division and a comparison a pair, 8 pairs at once "
        "with AVX. Its 24 bytes a box stay in the nearest cache (24 KB at 1,000). At 200 it is the calls around it. The compiled op looks at "
        "fewer pairs, since it skips the dropped, but one at a time."
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Milliseconds by candidates, a panel a step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from salt_lab.report.style import house_style, look

    with house_style():
        figure, panels = plt.subplots(1, 3, figsize=(6.6, 2.2), sharey=True, layout="constrained")
        for panel, step in zip(panels, ("nms", "batched_nms", "post-processing"), strict=True):
            mine = [row for row in rows if row["step"] == step]
            for index, (key, name) in enumerate((("ours_ms", "portable (ours)"), ("compiled_ms", "mmcv, compiled"))):
                if key in mine[0]:
                    style, x, y = look(index), [row["candidates"] for row in mine], [row[key] for row in mine]
                    panel.plot(x, y, color=style.colour, marker=style.marker, linestyle=style.dash, label=name)
            panel.set(
                title=step, xlabel="candidates", xscale="log", yscale="log", xticks=SIZES, xticklabels=[f"{size:,}" for size in SIZES]
            )
            panel.minorticks_off()
        panels[0].set_ylabel("CPU time, ms")
        panels[0].legend()
        figure.savefig(path)
        plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The portable NMS and the whole post-processing beside mmcv's compiled CPU op.")
    parser.add_argument("--output", type=Path, required=True, help="folder for nms.json, nms.md and nms.png")
    parser.add_argument("--compiled", type=Path, help=WHERE)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", type=int, default=3000, help="of the fuzz")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    install()
    compiled = load_compiled(wanted.compiled)
    rivals = ["ours", *(["compiled"] if compiled else [])]
    check_machine(wanted.output / "nms.json", rivals=rivals)
    checked = equality(ours, compiled, wanted.cases) if compiled else None
    rows = []
    with torch.no_grad():
        for size in SIZES:
            made = make(size)
            measured = measure(made, {"ours": ours} | ({"compiled": compiled} if compiled else {}), wanted.rounds)
            measured[0]["pairs"] = compared_pairs(made)
            rows += measured
    start, by = fresh(), "torchvision" if ours.torchvision_nms() else "numba"
    text = table(rows, start, checked)
    print(text)
    content = {
        "command": "python benchmarks/nms.py --compiled PATH",
        "ours_is": by,
        "rivals": rivals,
        "rows": rows,
        "start": start,
        "equal_cases": checked,
    }
    save(wanted.output, "nms", content, text)
    draw(rows, wanted.output / "nms.png")


if __name__ == "__main__":
    main()
