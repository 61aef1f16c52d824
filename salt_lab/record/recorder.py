"""Keeping a trial's record: what any recorder does, one that keeps it in the results folder, one that keeps it in memory.

A new recorder is done when it passes :class:`salt_lab.testing.recorder_contract.RecorderContract`.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from salt_lab.errors import StoreError
from salt_lab.record.fold import Line, Record, fold
from salt_lab.record.journal import plain
from salt_lab.record.store import Store


@runtime_checkable
class Recorder(Protocol):
    """What happened to one trial, told as it happens. When a method returns, the event is kept."""

    trial_id: str

    def start(
        self,
        *,
        trial: Mapping[str, Any],
        study: str,
        launch_id: str,
        data_fingerprint: str,
        provenance: Mapping[str, Any],
        resumed_epoch: int = 0,
        resources: Mapping[str, Any] | None = None,
        resumed_step: int = 0,
        note: str | None = None,
    ) -> int:
        """An attempt begins; ``resumed_epoch`` is the epoch of the checkpoint it goes on from, 0 = from scratch. Returns its number, from 1.

        ``resources``: on what it runs, ``{workers, cpus, gpus}``; cpus are those of each worker, gpus those of the trial.
        ``resumed_step``: steps of the epoch after ``resumed_epoch`` that the checkpoint has done. ``note``: what was wrong with later ones.

        Raises:
            StoreError: the trial is done: its record is final.
        """

    def built(self, *, effective: Mapping[str, Any], parameters: int, gflops: float | None, input_size: tuple[int, int]) -> None:
        """The model stands: the toggles as read back from it (flat), its parameters, and its GFLOPs at ``input_size`` (height, width)."""

    def epoch(
        self, epoch: int, *, losses: Mapping[str, float], lr: float, seconds: float, images_per_second: float, memory_mb: float
    ) -> None:
        """Epoch ``epoch`` (from 1) is trained: mean losses, learning rate at its end, wall seconds, images/s, peak memory in MiB."""

    def eval(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """An evaluation after ``epoch``: the 12 COCO numbers in percent; None or NaN where undefined."""

    def done(
        self,
        *,
        metrics: Mapping[str, float | None],
        train_seconds: float,
        eval_seconds: float,
        peak_memory_mb: float,
        epochs: int,
        inference: Mapping[str, float] | None = None,
    ) -> None:
        """The trial is finished; these are its numbers, for good. ``inference``: milliseconds of one image at the built ``input_size`` (median
        ``ms``, ``p10_ms``, ``p90_ms``) and how they were measured; kept as ``inference_ms`` and so on; None or empty where not measured."""

    def failed(self, reason: str, traceback_tail: str = "") -> None:
        """The attempt ended with an error: one line, and the end of its traceback."""

    def interrupted(self, reason: str) -> None:
        """The attempt was stopped from outside; it can go on."""

    def rung(self, epoch: int, *, ap: float, threshold: float | None, places: int, peers: Mapping[str, float]) -> None:
        """The trial goes on after the comparison at ``epoch``: its AP, the AP that was needed (None: too few others to ask for any), how many
        go on, and the other trials' APs at that epoch, trial id -> percent."""

    def stopped(self, epoch: int, *, reason: str, ap: float, threshold: float, places: int, peers: Mapping[str, float]) -> None:
        """The trial was stopped early by the comparison at ``epoch`` (see :meth:`rung`). It can go on from its checkpoint."""

    def record(self) -> Record:
        """Everything kept so far."""


class _LineRecorder(ABC):
    """A recorder that keeps journal lines; where, its children say."""

    trial_id: str

    @abstractmethod
    def _write(self, event: str, **fields: Any) -> None: ...

    @abstractmethod
    def record(self) -> Record: ...

    def start(
        self,
        *,
        trial: Mapping[str, Any],
        study: str,
        launch_id: str,
        data_fingerprint: str,
        provenance: Mapping[str, Any],
        resumed_epoch: int = 0,
        resources: Mapping[str, Any] | None = None,
        resumed_step: int = 0,
        note: str | None = None,
    ) -> int:
        before = self.record()
        if before.state == "done":
            raise StoreError(
                f"trial {self.trial_id} is done and its record is final. To run it once more: salt-lab run STUDY --force, or another --store"
            )
        fields: dict[str, Any] = {
            "trial": trial,
            "study": study,
            "launch_id": launch_id,
            "data_fingerprint": data_fingerprint,
            "provenance": provenance,
        }
        fields |= {"resources": resources} if resources else {}
        fields |= {"resumed_step": resumed_step} if resumed_step else {}
        fields |= {"note": _one_line(note)} if note else {}
        self._write("start", trial_id=self.trial_id, attempt=before.attempt + 1, resumed_epoch=resumed_epoch, **fields)
        return before.attempt + 1

    def built(self, *, effective: Mapping[str, Any], parameters: int, gflops: float | None, input_size: tuple[int, int]) -> None:
        self._write("built", effective=effective, parameters=parameters, gflops=gflops, input_size=input_size)

    def epoch(
        self, epoch: int, *, losses: Mapping[str, float], lr: float, seconds: float, images_per_second: float, memory_mb: float
    ) -> None:
        self._write("epoch", epoch=epoch, losses=losses, lr=lr, seconds=seconds, images_per_second=images_per_second, memory_mb=memory_mb)

    def eval(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        self._write("eval", epoch=epoch, metrics=metrics)

    def done(
        self,
        *,
        metrics: Mapping[str, float | None],
        train_seconds: float,
        eval_seconds: float,
        peak_memory_mb: float,
        epochs: int,
        inference: Mapping[str, float] | None = None,
    ) -> None:
        spent = {"train_seconds": train_seconds, "eval_seconds": eval_seconds, "peak_memory_mb": peak_memory_mb, "epochs": epochs}
        self._write("done", metrics=metrics, **spent, **{f"inference_{key}": value for key, value in (inference or {}).items()})

    def failed(self, reason: str, traceback_tail: str = "") -> None:
        self._write("failed", reason=_one_line(reason), traceback_tail=traceback_tail)

    def interrupted(self, reason: str) -> None:
        self._write("interrupted", reason=_one_line(reason))

    def rung(self, epoch: int, *, ap: float, threshold: float | None, places: int, peers: Mapping[str, float]) -> None:
        self._write("rung", epoch=epoch, ap=ap, threshold=threshold, places=places, peers=peers)

    def stopped(self, epoch: int, *, reason: str, ap: float, threshold: float, places: int, peers: Mapping[str, float]) -> None:
        self._write("stopped", epoch=epoch, reason=_one_line(reason), ap=ap, threshold=threshold, places=places, peers=peers)


class FolderRecorder(_LineRecorder):
    """Keeps the record in the results folder, each event on the disk before the call returns. Hold ``store.lock(trial_id)`` while using it."""

    def __init__(self, store: Store, trial_id: str) -> None:
        self.trial_id = trial_id
        self._store = store
        self._journal = store.journal(trial_id)

    def _write(self, event: str, **fields: Any) -> None:
        self._journal.append(event, **fields)

    def record(self) -> Record:
        """Read back from the journal."""
        return self._store.record(self.trial_id)


class MemoryRecorder(_LineRecorder):
    """Keeps the record in this process: for tests, and for trials of which nothing shall remain."""

    def __init__(self, trial_id: str = "0" * 12) -> None:
        self.trial_id = trial_id
        self.lines: list[Line] = []

    def _write(self, event: str, **fields: Any) -> None:
        self.lines.append(json.loads(json.dumps(plain({"event": event, "time": time.time(), **fields}), allow_nan=False)))

    def record(self) -> Record:
        """Folded from the lines so far."""
        return fold(self.trial_id, self.lines, alive=lambda: True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
