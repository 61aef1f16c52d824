"""Everything up to the data: every cell of a study at its full size on made images, with the memory and the time that it takes here.

    python benchmarks/dry_run.py experiments/paper/gains.yaml --output benchmarks/results/dry_run
    python benchmarks/dry_run.py experiments/paper/gains.yaml --only host=atss             # cells whose name has these words

For each cell the real trial is composed and built (80 classes, no weights are read or downloaded), takes three training steps, two on its
largest batch, and evaluates an image, in a process of its own: :func:`salt_lab.train.calibrate.calibrate` on a made data set in COCO's format.
The pictures are noise of 1333 x 800 with 7 boxes each, COCO's mean. No GPU: one image a step, seconds are this CPU's and say nothing of a GPU,
and memory is the process's resident memory; what is proven there is that every cell can be built, learns and evaluates at this size.
With a GPU: the images that one of the study's GPUs has in a step, the memory that torch reserves on it, and the time of the whole trial on as many
GPUs as the study asks for, without the exchange of gradients.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from saving import check_machine, save

from salt_lab.record.calibration import Calibration
from salt_lab.record.store import Store
from salt_lab.spec import load_study
from salt_lab.spec.study import Cell, Study
from salt_lab.spec.trial import CocoData, Trial
from salt_lab.train.calibrate import calibrate

#: Images of train2017 that have a box (the others are left out of training), and of val2017.
TRAIN_IMAGES, VAL_IMAGES = 117_266, 5_000
CLASSES, BOXES = 80, 7
HEADER = "| cell | ended | images a step | memory GiB | s/step | s/eval image | whole trial, h |\n|---|---|---|---|---|---|---|"


class Row(NamedTuple):
    """One cell; ``hours`` of the whole trial on the study's devices if each were like this GPU, None without one or where it did not run."""

    cell: str
    ended: str
    images: int
    memory_gb: float | None
    step_s: float | None
    eval_image_s: float | None
    hours: float | None
    details: dict[str, Any]


def made_coco(folder: Path, images: int, width: int, height: int) -> CocoData:
    """``images`` pictures of noise with ``BOXES`` boxes each, the same for training and evaluation; 80 categories."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    pictures: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number in range(1, images + 1):
        cv2.imwrite(str(folder / "images" / f"{number}.jpg"), draw.integers(0, 255, (height, width, 3), np.uint8))
        pictures.append({"id": number, "file_name": f"{number}.jpg", "width": width, "height": height})
        for _ in range(BOXES):
            w, h = (float(draw.integers(24, side // 2)) for side in (width, height))
            x, y = float(draw.integers(0, int(width - w))), float(draw.integers(0, int(height - h)))
            kind = int(draw.integers(1, CLASSES + 1))
            entry = {"id": len(boxes) + 1, "image_id": number, "category_id": kind, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            boxes.append(entry)
    kinds = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
    (folder / "all.json").write_text(json.dumps({"images": pictures, "annotations": boxes, "categories": kinds}))
    return CocoData(train=str(folder / "all.json"), val=str(folder / "all.json"), images=str(folder / "images"))


def hours_of(trial: Trial, found: Calibration, gpus: int, images: int) -> float:
    """Training and evaluation of the whole trial on COCO 2017: steps of ``images`` on each of ``gpus`` devices like the one measured."""
    epochs, every = trial.schedule.epochs, trial.schedule.eval_every or trial.schedule.epochs
    steps = epochs * math.ceil(TRAIN_IMAGES / (images * gpus))
    evaluations = math.ceil(epochs / every)
    assert found.step_seconds is not None and found.eval_image_seconds is not None, "asked only of a cell that ran"
    return (steps * found.step_seconds + evaluations * VAL_IMAGES / gpus * found.eval_image_seconds) / 3600


def run_cell(cell: Cell, study: Study, images: int, store: Store, limit_s: float) -> Row:
    """Measure one cell with ``images`` on the device."""
    width, height = cell.trial.schedule.image_size
    with tempfile.TemporaryDirectory(prefix="made-coco-", dir=store.root) as folder:
        data = made_coco(Path(folder) / "set", images, width, height)
        trial = cell.trial.model_copy(update={"data": data})
        found = calibrate(trial, store, workers=trial.schedule.batch // images, threads=None, budget_s=0.1, limit_s=limit_s)
    if not found.ok:
        return Row(cell.name, found.ended, images, found.memory_gb, None, None, None, dict(found.details))
    hours = hours_of(trial, found, study.resources.workers, images) if torch.cuda.is_available() else None
    return Row(cell.name, "ok", images, found.memory_gb, found.step_seconds, found.eval_image_seconds, hours, dict(found.details))


def table(rows: list[Row], device: str) -> str:
    """As markdown."""
    lines = [f"# Dry run at full size\n\nDevice: {device}. What the columns mean: `benchmarks/dry_run.py`.\n", HEADER]
    for row in rows:
        numbers = [f"{value:.2f}" if value is not None else "-" for value in (row.memory_gb, row.step_s, row.eval_image_s, row.hours)]
        lines.append(f"| {' | '.join([row.cell, row.ended, str(row.images), *numbers])} |")
    return "\n".join(lines)


def main() -> int:
    """The command line; 0 when every cell ran."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for salt-lab run, e.g. schedule.image_size=[640,480]")
    parser.add_argument("--only", metavar="WORDS", default="", help="cells whose name contains this")
    parser.add_argument("--output", type=Path, help="folder for dry_run.json and dry_run.md")
    parser.add_argument("--images", type=int, help="images on the device; default: with a GPU the study's share of the batch, else 1")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for a cell")
    given = parser.parse_args()
    if given.output:
        check_machine(given.output / "dry_run.json")
    study = load_study(given.study, given.overrides)
    cells = [cell for cell in study.cells if given.only in cell.name]
    if not cells:
        parser.error(f"no cell's name contains '{given.only}': {', '.join(cell.name for cell in study.cells)}")
    rows = []
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    with tempfile.TemporaryDirectory(prefix="salt-lab-dry-run-") as folder:
        for cell in cells:
            images = given.images or (cell.trial.schedule.batch // study.resources.workers if torch.cuda.is_available() else 1)
            rows.append(run_cell(cell, study, images, Store(Path(folder)), given.limit))
            print(rows[-1], flush=True)
    text = table(rows, device)
    print(text)
    if given.output:
        save(given.output, "dry_run", {"study": study.name, "device": device, "rows": [row._asdict() for row in rows]}, text)
    return 0 if all(row.ended == "ok" for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
