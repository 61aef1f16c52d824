"""A tiny real study and real journals: what the report reads, without any training."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salt_lab.data import fingerprint
from salt_lab.record import FolderRecorder, Store
from salt_lab.spec.study import Study, load_study
from salt_lab.spec.trial import Trial, canonical, trial_id

TWO_HOSTS = """
    question: Does SALT help two_hosts by 100 %?
    base:
      data: marks
      schedule: {epochs: 2}
    axes:
      host: [atss, gfl]
      salt: [false, true]
    seeds: [0, 1, 2]
    compare:
      baseline: {salt: false}
"""
PROVENANCE = {
    "git_commit": "1a2b3c4d5e6f70819203",
    "git_dirty": True,
    "diff_sha256": "ab" * 32,
    "code_version": "c0de00000001",
    "packages": {},
    "machine": {"host_kind": "linux-x86_64", "cpu": "Test CPU", "cores": 2, "gpu": None, "memory_gb": 8.0},
    "python": "3.11.0",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    def make(text: str = TWO_HOSTS, name: str = "two_hosts") -> Study:
        path = tmp_path / f"{name}.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return load_study(path)

    return make


class Bench:
    """Writes journals as training would."""

    def __init__(self, store: Store, study: Study) -> None:
        self.store, self.study = store, study

    def trial(self, seed: int = 0, **label: Any) -> Trial:
        """The study's trial whose label has these values: ``trial(0, host="atss", salt=True)``."""
        wanted = {{"salt": "salt.enabled", "points": "salt.points"}.get(key, key): value for key, value in label.items()}
        cells = [cell for cell in self.study.cells if all(cell.label.get(key) == value for key, value in wanted.items())]
        assert len(cells) == 1, [cell.label for cell in self.study.cells]
        return next(trial for trial in cells[0].trials() if trial.seed == seed)

    def start(self, trial: Trial, **provenance: Any) -> FolderRecorder:
        data = fingerprint(trial.data)
        recorder = FolderRecorder(self.store, trial_id(trial, data))
        recorder.start(
            trial=canonical(trial),
            study=self.study.name,
            launch_id="launch-1",
            data_fingerprint=data,
            provenance={**PROVENANCE, **provenance},
        )
        recorder.built(effective={}, parameters=1_234_567, gflops=2.5, input_size=(112, 112))
        return recorder

    def done(
        self, trial: Trial, ap: float | None, *, curve: tuple[float, ...] = (), inference: dict[str, float] | None = None, **provenance: Any
    ) -> str:
        """A finished trial; AP50 is AP + 25, other metrics follow, APl is undefined. ``curve``: AP of the epochs before the last;
        ``inference``: its measured times, None as in a record from before they were."""
        recorder = self.start(trial, **provenance)
        for epoch, value in enumerate((*curve, ap), start=1):
            recorder.epoch(epoch, losses={"loss": 1.0 / epoch}, lr=0.01, seconds=1.0, images_per_second=10.0, memory_mb=100.0)
            recorder.eval(epoch, numbers(value))
        spent = {"train_seconds": 90.0, "eval_seconds": 3.0, "peak_memory_mb": 800.0 + trial.seed}
        recorder.done(metrics=numbers(ap), epochs=len(curve) + 1, inference=inference, **spent)
        return recorder.trial_id

    def stopped(self, trial: Trial, ap: float, needed: float = 30.0) -> str:
        """A trial that early stopping ended after its first epoch, with this AP."""
        recorder = self.start(trial)
        recorder.epoch(1, losses={"loss": 1.0}, lr=0.01, seconds=1.0, images_per_second=10.0, memory_mb=100.0)
        recorder.eval(1, numbers(ap))
        reason = f"early stopping at epoch 1: AP {ap:.1f}, needed {needed:.1f} to be among the best 1 of 4"
        recorder.stopped(1, reason=reason, ap=ap, threshold=needed, places=1, peers={"a" * 12: needed})
        return recorder.trial_id

    def failed(self, trial: Trial, last_ap: float = 99.0, reason: str = "RuntimeError: out of memory") -> str:
        recorder = self.start(trial)
        recorder.eval(1, numbers(last_ap))
        recorder.failed(reason, "Traceback ...")
        return recorder.trial_id


def numbers(ap: float | None) -> dict[str, float | None]:
    offsets = {"AP": 0, "AP50": 25, "AP75": -3, "APs": -10, "APm": 5, "AR1": 10, "AR10": 20, "AR100": 21, "ARs": 2, "ARm": 30}
    return {**{name: None if ap is None else ap + offset for name, offset in offsets.items()}, "APl": None, "ARl": None}


@pytest.fixture
def make_bench(store: Store) -> Callable[[Study], Bench]:
    return lambda study: Bench(store, study)


@pytest.fixture
def bench(make_bench: Callable[[Study], Bench], make_study: Callable[..., Study]) -> Bench:
    return make_bench(make_study())


@pytest.fixture
def full(bench: Bench) -> Bench:
    """Three seeds of both hosts and arms, all done. GFL gets worse with SALT."""
    aps = {
        ("atss", False): (30.0, 31.0, 32.5),
        ("atss", True): (33.0, 33.5, 36.25),
        ("gfl", False): (28.0, 29.0, 30.0),
        ("gfl", True): (27.0, 28.5, 28.0),
    }
    for (host, salt), values in aps.items():
        for seed, ap in enumerate(values):
            bench.done(bench.trial(seed, host=host, salt=salt), ap, curve=(ap - 12,))
    return bench
