"""Everything up to the data: every cell of the paper's studies at its full size on made images, with the memory and the time that it takes.

    python benchmarks/dry_run.py experiments/paper/*.yaml --output benchmarks/results/dry_run
    python benchmarks/dry_run.py experiments/paper/hosts.yaml --only host=atss             # cells whose name has these words

Each distinct cell is composed, built with 80 classes (no weights are read or downloaded), its toggles are read back from the built model, it
takes a training step and evaluates an image, in a process of its own. The pictures are noise of 1333 x 800 with 7 boxes each, COCO's mean.
Cells that ``--output`` has already, of the same trial and the same training code, are not run again: interrupted, the same command goes on
(``--any-code``: of other training code neither; each row keeps the version that it was made with). A cell that asks for another trial than it
did takes its name with it, and the row that it leaves nameless leaves the table; rows of cells that are in no study any more stay.

**Without a GPU** (:mod:`dry_run_cell`) one image, one step. Measured: what autograd keeps of an image for the backward pass, the model's
weights, the process's memory, GFLOPs. Estimated from that, and from nothing measured on a GPU:

- memory of a GPU = kept of an image x images of the GPU + weights + gradients + momentum + the gradients' buckets; add 0.6 GiB for CUDA's context
  and what the allocator holds in reserve. Where mmdet publishes the memory of a host, it stands beside it.
- hours on 8 V100 = 6.5 h (FCOS, its authors' README) x GFLOPs of the cell / GFLOPs of FCOS. Reading points is bytes and not arithmetic, so a cell
  with SALT takes longer than that by what its operator takes over its share.

**With a GPU** (:func:`salt_lab.train.calibrate.calibrate`) the images that one GPU has in a step; the memory that torch reserves there, and the
time of the whole trial on as many GPUs as the study asks for, without the exchange of gradients, are measured.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from dry_run_table import Row, known_rows, table
from saving import check_machine, save

from salt_lab.record.calibration import Calibration
from salt_lab.record.store import Store
from salt_lab.record.training_code import training_code_version
from salt_lab.spec import load_study
from salt_lab.spec.study import Cell, Study
from salt_lab.spec.trial import CocoData, Trial, canonical, digest
from salt_lab.train.calibrate import calibrate

#: Images of train2017 that have a box (the others are left out of training), and of val2017.
TRAIN_IMAGES, VAL_IMAGES = 117_266, 5_000
CLASSES, BOXES = 80, 7


class Task(NamedTuple):
    """A distinct cell that is to be run, and all the names that it goes by."""

    cell: Cell
    study: Study
    names: tuple[str, ...]
    key: str


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


def gpu_memory(answer: dict[str, Any], images: int, momentum: bool = True) -> float:
    """GiB that torch allocates on a GPU with ``images`` a step, several GPUs sharing the batch: see the head of this file."""
    copies = 2 + momentum  # gradients, the buckets in which they are exchanged, the optimiser's momentum
    return float(answer["kept_gb"] * images + answer["weights_gb"] + copies * answer["trained_gb"])


def tasks_of(studies: Sequence[Study], only: str, images: int | None) -> list[Task]:
    """The studies' distinct cells, in order; a cell that several studies have is named after all of them."""
    found: dict[str, Task] = {}
    for study in studies:
        for cell in study.cells:
            key = digest({"trial": {k: v for k, v in canonical(cell.trial).items() if k != "seed"}, "images": images})
            name = f"{study.name}: {cell.name}"
            before = found.get(key, Task(cell, study, (), key))
            found[key] = before._replace(names=(*before.names, name))
    return [task for task in found.values() if any(only in name for name in task.names)]


def run_task(task: Task, images: int, limit_s: float) -> Row:
    """Measure one cell with ``images`` on the device."""
    width, height = task.cell.trial.schedule.image_size
    row = Row(
        task.key, task.names, len(task.cell.seeds), task.cell.trial.host, "", images, None, None, None, None, {}, training_code_version()
    )
    with tempfile.TemporaryDirectory(prefix="salt-lab-dry-run-") as name:
        folder = Path(name)
        trial = task.cell.trial.model_copy(update={"data": made_coco(folder / "set", images, width, height)})
        return (
            _on_gpu(row, trial, task.study, folder, limit_s)
            if torch.cuda.is_available()
            else _on_cpu(row, trial, task.study, folder, limit_s)
        )


def _on_gpu(row: Row, trial: Trial, study: Study, folder: Path, limit_s: float) -> Row:
    images = row.images
    found = calibrate(trial, Store(folder), workers=trial.schedule.batch // images, threads=None, budget_s=0.1, limit_s=limit_s)
    details = {**found.details, "step_seconds": found.step_seconds, "eval_image_seconds": found.eval_image_seconds}
    row = row._replace(ended=found.ended, memory_gb=found.memory_gb, gpu_gb=found.memory_gb, details=details)
    return row._replace(hours=hours_of(trial, found, study.resources.workers, images)) if found.ok else row


def _on_cpu(row: Row, trial: Trial, study: Study, folder: Path, limit_s: float) -> Row:
    answer = answer_of(trial, row.images, folder, limit_s)
    if answer["ended"] != "ok":
        return row._replace(ended=answer["ended"], details=answer)
    share = max(1, trial.schedule.batch // study.resources.workers)
    estimate = gpu_memory(answer, share, trial.schedule.optimizer == "sgd")
    return row._replace(ended="ok", memory_gb=answer["rss_gb"], gpu_gb=estimate, gflops=answer["gflops"], details=answer)


def answer_of(trial: Trial, images: int, folder: Path, limit_s: float) -> dict[str, Any]:
    """What ``dry_run_cell.py`` says of a trial; ``ended`` is "ok" or why there is nothing else."""
    (folder / "order.json").write_text(json.dumps({"trial": trial.model_dump(mode="json"), "images": images}))
    command = [sys.executable, str(Path(__file__).with_name("dry_run_cell.py")), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"ended": f"not through after {limit_s:.0f} s"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["out of memory" if done.returncode == -9 else "no word"]
        return {"ended": f"its process ended with code {done.returncode}: {last[0][:300]}"}
    return dict(json.loads((folder / "answer.json").read_text()))


def counts(row: Row | None, any_code: bool) -> bool:
    """Need the cell not be run again? It ended well, with the training code that there is now."""
    return row is not None and row.ended == "ok" and (any_code or row.code == training_code_version())


def without_former(rows: Mapping[str, Row], task: Task) -> dict[str, Row]:
    """The rows, without what the task's cells asked for before: with as many images, other trials go by these names no more."""
    images, left = rows[task.key].images, {}
    for key, row in rows.items():
        former = key != task.key and row.images == images
        if names := tuple(name for name in row.names if not (former and name in task.names)):
            left[key] = row._replace(names=names)
    return left


def main() -> int:
    """The command line; 0 when every cell ran."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("words", nargs="+", metavar="STUDY|KEY=VALUE", help="studies; overrides as for salt-lab run")
    parser.add_argument("--only", metavar="WORDS", default="", help="cells whose name contains this")
    parser.add_argument("--output", type=Path, help="folder for dry_run.json and dry_run.md; cells that are there are not run again")
    parser.add_argument("--images", type=int, help="images on the device; default: with a GPU the study's share of the batch, else 1")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for a cell")
    parser.add_argument("--any-code", action="store_true", help="cells that other training code ran are not run again either")
    given = parser.parse_args()
    files, overrides = [word for word in given.words if "=" not in word], [word for word in given.words if "=" in word]
    if not files:
        parser.error("name a study, e.g. experiments/paper/hosts.yaml")
    path = given.output / "dry_run.json" if given.output else None
    if path:
        check_machine(path)
    studies = [load_study(Path(file), overrides) for file in files]
    tasks = tasks_of(studies, given.only, given.images)
    if not tasks:
        parser.error(f"no cell's name contains '{given.only}': {', '.join(cell.name for study in studies for cell in study.cells)}")
    return run_all(tasks, given.images, given.limit, path, given.any_code)


def run_all(tasks: Sequence[Task], images: int | None, limit_s: float, path: Path | None, any_code: bool = False) -> int:
    """Run those that do not count yet; write it anew after each. 0 when every one ran."""
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    rows = known_rows(path) if path else {}
    for task in tasks:
        if not counts(rows.get(task.key), any_code):
            before = rows.pop(task.key, None)
            share = max(1, task.cell.trial.schedule.batch // task.study.resources.workers) if torch.cuda.is_available() else 1
            found = run_task(task, images or share, limit_s)
            rows[task.key] = found._replace(names=before.names) if before else found
            print(f"{task.names[0]}: {rows[task.key].ended}", flush=True)
        names = tuple(dict.fromkeys((*rows[task.key].names, *task.names)))
        rows[task.key] = rows[task.key]._replace(names=names)
        rows = without_former(rows, task)
        if path:
            _save(path, list(rows.values()), device)
    mine = [rows[task.key] for task in tasks]
    print(table(mine, device))
    return 0 if all(row.ended == "ok" for row in mine) else 1


def _save(path: Path, rows: Sequence[Row], device: str) -> None:
    save(path.parent, "dry_run", {"device": device, "rows": [row._asdict() for row in rows]}, table(rows, device))


if __name__ == "__main__":
    raise SystemExit(main())
