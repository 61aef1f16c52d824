"""How long does the bootstrap over images take at the size of val2017, and do its intervals hold the truth?

    python benchmarks/bootstrap.py --output benchmarks/results/bootstrap
    python benchmarks/bootstrap.py --output benchmarks/results/bootstrap --coverage

The first: 5,000 images, 36,000 objects, 80 classes, 500,000 detections (the made data of ``evaluation.py``), matched once, then 1,000 resamples of
the images. Beside it what everybody has: evaluate a truly resampled data set from the start. That was done ONCE, timed, and multiplied by 1,000: an
extrapolation, and the table says so. Both must give the same AP on that resample to 1e-9, or the benchmark fails.

The second: coverage of 95 % intervals on data sets from a population whose AP is known (``salt_lab.testing.population``). A coverage from M data sets
has a standard error of its own, 100 sqrt(0.05 0.95 / M): 0.7 points with 1,000.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from evaluation import FULL, Made, make
from saving import check_machine, save

from salt_lab.evaluate.accumulate import numbers
from salt_lab.evaluate.bootstrap import METRICS, bootstrap, paired
from salt_lab.evaluate.ground_truth import load_truth
from salt_lab.evaluate.matching import match
from salt_lab.evaluate.resample import image_counts, usable_cores
from salt_lab.report.table import markdown
from salt_lab.testing.coverage import Coverage, covered, over_images, over_seeds_and_images, true_ap

RESAMPLES = 1000
#: Shares of 30 classes, the k-th as 1 / k: a quarter of the objects is of the first, the last has 1 in 120.
MANY_CLASSES = tuple((1 / np.arange(1, 31) / (1 / np.arange(1, 31)).sum()).tolist())


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``work`` gives, and what it took: seconds by the clock, and of processors, all threads together."""
    clock, processors = time.perf_counter(), time.process_time()
    result = work()
    return result, {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - processors}


def other_run(made: Made) -> list[dict[str, Any]]:
    """Another detector on the same images: the same boxes, differently sure of them."""
    noise = np.random.default_rng(1).normal(0, 0.05, len(made.rows))
    return [{**row, "score": row["score"] + float(delta)} for row, delta in zip(made.rows, noise, strict=True)]


def really_resampled(made: Made, weights_I: Any) -> Made:
    """Images drawn w times become w images of their own with copies of objects and detections, side by side in the order of ids."""
    ids = sorted(image["id"] for image in made.truth["images"])
    copies = {old: [100 * (place + 1) + copy for copy in range(weights_I[place])] for place, old in enumerate(ids)}
    images = [{**image, "id": new} for image in made.truth["images"] for new in copies[image["id"]]]
    objects = [{**row, "image_id": new} for row in made.truth["annotations"] for new in copies[row["image_id"]]]
    objects = [{**row, "id": number} for number, row in enumerate(objects, 1)]
    rows = [{**row, "image_id": new} for row in made.rows for new in copies[row["image_id"]]]
    return Made({**made.truth, "images": images, "annotations": objects}, rows)


def by_pycocotools(made: Made) -> float:
    """AP in percent; from loaded dictionaries on."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = made.truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(made.rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(100 * evaluation.stats[0])


def speed(cores: int) -> list[dict[str, Any]]:
    """All rows of the first table."""
    made = make(**FULL)
    truth = load_truth(made.truth)
    matches, spent = timed(lambda: match(truth, made.rows))
    rows = [{"what": "matching, once per run", **spent}]
    other = match(truth, other_run(made))
    _, spent = timed(lambda: bootstrap(matches, resamples=1, metrics=["AP"]))
    rows.append({"what": "first call: compiles, or reads the compiled loop from the disk", **spent})
    for threads in sorted({1, cores}):
        drawn, spent = timed(lambda n=threads: bootstrap(matches, resamples=RESAMPLES, metrics=["AP"], threads=n))
        rows.append({"what": f"AP, {RESAMPLES:,} resamples", "threads": threads, **spent})
    _, spent = timed(lambda: bootstrap(matches, resamples=RESAMPLES, metrics=tuple(METRICS), threads=cores))
    rows.append({"what": f"AP, AP50, AP75, APs, APm, APl, {RESAMPLES:,} resamples", "threads": cores, **spent})
    gain, spent = timed(lambda: paired(matches, other, resamples=RESAMPLES, metrics=["AP"], threads=cores))
    rows.append({"what": f"difference of two runs, AP, {RESAMPLES:,} resamples", "threads": cores, **spent})
    print(f"AP {drawn.values['AP']:.3f}, interval {drawn.interval()}; difference {gain.values['AP']:.3f}, interval {gain.interval()}")
    return rows + rivals(made, matches, drawn.draws["AP"][0])


def rivals(made: Made, matches: Any, expected: float) -> list[dict[str, Any]]:
    """The same, one resample at a time, extrapolated; every way must find ``expected`` on the first resample."""
    weights_I = next(image_counts(FULL["images"], 1, 0))[0]
    resampled, copied = timed(lambda: really_resampled(made, weights_I))
    found, spent = timed(lambda: by_pycocotools(resampled))
    counted, weighted = timed(lambda: numbers(matches, weights_I).AP)
    for ap in (found, counted):
        if abs(ap - expected) > 1e-9:
            raise SystemExit(f"AP of the first resample: {ap!r}, by reweighting {expected!r}: not the same")
    rows = [
        ("our evaluator with weights (all twelve numbers), one resample at a time", weighted),
        ("pycocotools on truly resampled data", {key: spent[key] + copied[key] for key in spent}),
    ]
    return [
        {"what": what, "threads": 1, "measured_once": took, "extrapolated": True, **{key: value * RESAMPLES for key, value in took.items()}}
        for what, took in rows
    ]


def speed_table(rows: list[dict[str, Any]], cores: int) -> str:
    """The table with what made it."""
    head = ["what", "threads", "seconds", "of processors"]
    texts = [
        [
            row["what"] + (" (EXTRAPOLATED: once, times 1,000)" if row.get("extrapolated") else ""),
            str(row.get("threads", 1)),
            *(f"{row[key]:,.0f}" if row[key] >= 100 else f"{row[key]:.2f}" for key in ("seconds", "cpu_seconds")),
        ]
        for row in rows
    ]
    return f"""# Bootstrap over images at val2017's size

Made by `python benchmarks/bootstrap.py --output benchmarks/results/bootstrap`, machine and versions in `bootstrap.json`; {cores} cores.
{FULL["images"]:,} images, {FULL["objects"]:,} objects, {FULL["classes"]} classes, {FULL["images"] * FULL["per_image"]:,} detections.
The ways agree on the AP of one resample to 1e-9. Where other work shared the cores, the seconds of processors are the fairer number.

{markdown(head, texts, 1)}
"""


def coverage(sets: int) -> list[dict[str, Any]]:
    """All rows of the second table."""
    rows: list[dict[str, Any]] = []
    for shares, sizes in (((0.6, 0.3, 0.1), (50, 100, 200, 500)), (MANY_CLASSES, (60, 200))):
        variant, baseline = true_ap(shares=shares)
        for images in sizes:
            of_difference, of_variant = over_images(images, sets if images < 500 else sets // 2, 200, shares)
            classes = {"classes": len(shares)}
            rows.append(_row("difference of two models", images, covered(of_difference, variant - baseline), **classes))
            rows.append(_row("AP of one model", images, covered(of_variant, variant), **classes))
            print(rows[-2:], flush=True)
    for seeds, spread in ((2, 0.1), (3, 0.0), (3, 0.03), (3, 0.1), (3, 0.3), (5, 0.1)):
        variant, baseline = true_ap(spread, images=20_000, seeds=20 if spread else 1)
        ours, plain = over_seeds_and_images(60, sets // 2, resamples=150, seeds=seeds, spread=spread)
        more = {"seeds": seeds, "spread": spread}
        rows.append(_row("difference over seeds and images, ours", 60, covered(ours, variant - baseline), **more))
        rows.append(_row("the same, plain hierarchical bootstrap", 60, covered(plain, variant - baseline), **more))
        print(rows[-2:], flush=True)
    return rows


def _row(what: str, images: int, found: Coverage, **more: Any) -> dict[str, Any]:
    return {"what": what, "images": images, **more, **vars(found)}


def coverage_table(rows: list[dict[str, Any]]) -> str:
    """The table with what made it."""
    head = [
        "interval",
        "classes",
        "images",
        "seeds",
        "spread over seeds (AP)",
        "sets",
        "covers %",
        "too low %",
        "too high %",
        "mean width (AP)",
    ]
    texts = [
        [
            row["what"],
            str(row.get("classes", 3)),
            str(row["images"]),
            str(row.get("seeds", "")),
            f"about {20 * row['spread']:.1f}" if "spread" in row else "",
            *(str(row["sets"]), f"{row['covered']:.1f}", f"{row['below']:.1f}", f"{row['above']:.1f}", f"{row['width']:.2f}"),
        ]
        for row in rows
    ]
    return f"""# Do 95 % intervals hold the truth?

Made by `python benchmarks/bootstrap.py --output benchmarks/results/bootstrap --coverage`, machine and versions in `coverage.json`.
Data sets from a population whose AP is known (`salt_lab/testing/population.py`): about 4 objects and 3 false alarms an image, 3 classes (60, 30 and
10 % of the objects) or 30 (as 1, 1/2, 1/3, ...), AP about 56 and 52. Resamples: 200 (150 over seeds). Standard error of a coverage from 1,000 sets:
0.7 points, from 400: 1.1, from 200: 1.5. "too low": the whole interval lies below the truth. AP of one model is too high from few objects of a class
(see `salt_lab/evaluate/bootstrap.py`); its interval says how far it scatters and does not repair that.

{markdown(head, texts, 1)}
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Speed and coverage of the bootstrap over images.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the JSON files and tables")
    parser.add_argument("--coverage", action="store_true", help="count coverage instead of seconds (about a quarter of an hour)")
    parser.add_argument("--sets", type=int, default=1000, help="data sets that coverage is counted over")
    wanted = parser.parse_args()
    name = "coverage" if wanted.coverage else "bootstrap"
    check_machine(wanted.output / f"{name}.json")
    load, cores = os.getloadavg()[0], usable_cores()
    rows = coverage(wanted.sets) if wanted.coverage else speed(cores)
    table = coverage_table(rows) if wanted.coverage else speed_table(rows, cores)
    print(table)
    command = f"python benchmarks/bootstrap.py{' --coverage --sets ' + str(wanted.sets) if wanted.coverage else ''}"
    save(wanted.output, name, {"command": command, "load_before": load, "cores": cores, "rows": rows}, table)


if __name__ == "__main__":
    main()
