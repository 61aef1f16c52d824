"""How fast are images loaded, and how long does training wait for them: from their files (before) and from the decoded cache (after)?

    python benchmarks/data.py --output benchmarks/results/data

Per data set and size: images per second of the training loader alone (boxes, flip and batching included), and the share of a training loop's
time in which it waits for the next batch, with the quickstart's ATSS + SALT (ResNet-18 of 16 channels). On a GPU the device is waited for
after each step, so the share is the GPU's idle share as well; on a CPU the waiting is the loading itself, done by the same core.
Before and after take turns, ``--rounds`` times; medians are shown. The last row sets a limit that the decoded set exceeds: nothing is cached.

``--clock cpu`` counts processor seconds of this process instead of seconds, so that others on the machine do not count; for CPUs alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from saving import check_machine, save

from salt_lab.compose import compose
from salt_lab.data import fingerprint, prepare
from salt_lab.spec.trial import Trial
from salt_lab.train.libraries import load_libraries
from salt_lab.train.runner import build_runner, warnings_into

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


class Case(NamedTuple):
    """A data set at a size. ``steps`` are training steps of a measurement (0 = the loader alone), ``batch`` images each; ``limit`` in GiB."""

    name: str
    data: dict[str, Any]
    image_size: tuple[int, int]
    batch: int
    steps: int
    limit: float = 2.0


def cases(folder: Path) -> list[Case]:
    """What is measured; photos only where their folder is."""
    found = [Case("marks, 96 x 96", dict(kind="marks", train_images=400, val_images=16, image_size=96), (96, 96), 8, 20)]
    if (folder / "bccd").is_dir():
        found.append(Case("BCCD, 320 x 240", _coco(folder / "bccd"), (320, 240), 8, 6))
    if (folder / "coco_mini").is_dir():
        found.append(Case("COCO mini, 1333 x 800", _coco(folder / "coco_mini"), (1333, 800), 2, 2))
        found.append(Case("COCO mini, 1333 x 800, beyond the limit", _coco(folder / "coco_mini"), (1333, 800), 2, 0, 0.1))
    return found


def _coco(folder: Path) -> dict[str, Any]:
    files = {split: str(folder / "annotations" / f"{split}.json") for split in ("train", "val")}
    return dict(**files, images=str(folder / "images"))


def built(case: Case, store: Path, limit: float, workers: int) -> tuple[Any, str]:
    """A runner whose config reads from the cache as far as ``limit`` allows, and what is said about it."""
    from salt_lab.train.loading import use_decoded  # mmdet: only after load_libraries

    schedule = dict(epochs=1, batch=case.batch, image_size=case.image_size, optimizer="adamw", lr=1e-4)
    backbone = dict(name="resnet18", base_channels=16)
    spec = dict(host="atss", salt=True, backbone=backbone, channels=64, head_convs=2, data=case.data, schedule=schedule)
    trial = Trial.model_validate(spec)
    paths = prepare(trial.data, store)
    config = compose(trial, paths, store / "work", loader_workers=workers)
    with _limited(limit):
        said = use_decoded(config, paths, lambda: fingerprint(trial.data), store)
    name = f"{case.name}-{limit}-{time.time()}"
    return build_runner(config, name.replace(" ", "-"), store / "log"), said


@contextmanager
def _limited(gib: float) -> Iterator[None]:
    os.environ["SALT_LAB_DECODED_GB"] = str(gib)
    try:
        yield
    finally:
        del os.environ["SALT_LAB_DECODED_GB"]


def loader_speed(loader: Any, clock: Clock) -> float:
    """Images per second of one pass."""
    started, images = clock(), 0
    for batch in loader:
        images += len(batch["inputs"])
    return images / (clock() - started)


def waiting_share(runner: Any, loader: Any, optimiser: Any, steps: int, clock: Clock) -> float:
    """Share of the time in which a training loop waits for its next batch, 0 to 1; the first step is left out."""
    batches, waited = iter(loader), 0.0
    _step(runner, next(batches), optimiser)
    began = clock()
    for _ in range(steps):
        asked = clock()
        batch = next(batches)
        waited += clock() - asked
        _step(runner, batch, optimiser)
    return waited / (clock() - began)


def _step(runner: Any, batch: Any, optimiser: Any) -> None:
    runner.model.train_step(batch, optim_wrapper=optimiser)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(case: Case, rounds: int, workers: int, clock: Clock) -> dict[str, Any]:
    """The row of one case."""
    with tempfile.TemporaryDirectory(prefix="salt-data-") as folder:
        store = Path(folder)
        started = time.perf_counter()
        arms = {"before": built(case, store, 0, workers), "after": built(case, store, case.limit, workers)}
        row: dict[str, Any] = {"case": case.name, "batch": case.batch, "said": arms["after"][1].replace(folder, "STORE")}
        row["making_seconds"] = time.perf_counter() - started
        ready = {}
        for arm, (runner, _) in arms.items():
            runner.model.train()
            loader = runner.build_dataloader(runner.cfg.train_dataloader, seed=0)
            loader_speed(loader, clock)  # files and cache into memory
            ready[arm] = (runner, loader, runner.build_optim_wrapper(runner.cfg.optim_wrapper))
            row[arm] = {"images_per_second": [], "waiting_share": []}
        for _ in range(rounds):
            for arm, (runner, loader, optimiser) in ready.items():
                row[arm]["images_per_second"].append(loader_speed(loader, clock))
                if case.steps:
                    row[arm]["waiting_share"].append(waiting_share(runner, loader, optimiser, case.steps, clock))
    return row


def table(rows: list[dict[str, Any]], device: str, clock: str) -> str:
    """The result in Markdown."""
    head = ["data set, size", "files (images/s)", "cache (images/s)", "ratio", f"{device} waits, files", f"{device} waits, cache"]
    second = "a second" if clock == "wall" else "a processor second"
    lines = ["# The loader, from files and from decoded pictures", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join(
        [*lines, *map(_line, rows), "", f"Images {second}. Made by `python benchmarks/data.py`; its first lines say what is measured."]
    )


def _line(row: dict[str, Any]) -> str:
    speed = {arm: statistics.median(row[arm]["images_per_second"]) for arm in ("before", "after")}
    shares = [row[arm]["waiting_share"] for arm in ("before", "after")]
    share = [f"{100 * statistics.median(each):.1f} %" if each else "" for each in shares]
    ratio = f"{speed['after'] / speed['before']:.2f}"
    return "| " + " | ".join([row["case"], f"{speed['before']:.0f}", f"{speed['after']:.0f}", ratio, *share]) + " |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The loader before and after the decoded cache.")
    parser.add_argument("--output", type=Path, help="folder for data.json and data.md; none = print only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--photos", type=Path, default=SHARED, help="folder with bccd and coco_mini")
    wanted = parser.parse_args()
    if wanted.output:
        check_machine(wanted.output / "data.json")
    load_libraries()
    torch.set_num_threads(wanted.threads)
    device = "GPU" if torch.cuda.is_available() else "CPU"
    workers = min(4, os.cpu_count() or 1) if device == "GPU" else 0
    if wanted.clock == "cpu" and (workers or wanted.threads > 1):
        parser.error("--clock cpu counts this process on one core: neither on a GPU nor with --threads above 1")
    rows = []
    with tempfile.TemporaryDirectory() as folder, warnings_into(Path(folder) / "log"):
        for case in cases(wanted.photos):
            if wanted.only in case.name:
                rows.append(measure(case, wanted.rounds, workers, CLOCKS[wanted.clock]))
                print(_line(rows[-1]), flush=True)
    text = table(rows, device, wanted.clock)
    print(text)
    if wanted.output:
        content = {
            "command": f"python benchmarks/data.py --rounds {wanted.rounds} --threads {wanted.threads} --clock {wanted.clock}",
            "loader_workers": workers,
        }
        save(wanted.output, "data", {**content, "rows": rows}, text)


if __name__ == "__main__":
    main()
