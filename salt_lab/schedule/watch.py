"""What the journals say now, read again only where they have changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from salt_lab.record.fold import VANISHED
from salt_lab.record.store import Record, Store


@dataclass(frozen=True)
class TrialView:
    """A trial as a watcher sees it. Times are unix seconds.

    ``state`` is one of waiting, running, done, stopped (early), failed, interrupted; a trial of which only an earlier launch wrote is waiting.
    """

    trial_id: str
    state: str = "waiting"
    started: float | None = None
    ended: float | None = None
    first_epoch: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    ap: float | None = None
    reason: str | None = None

    @property
    def fraction(self) -> float:
        """How much of this attempt's epochs is done, 0 to 1; what was resumed from a checkpoint does not count."""
        todo = self.epochs - self.first_epoch
        return (self.epoch - self.first_epoch) / todo if todo > 0 else 0.0

    def seconds(self, now: float) -> float:
        """Seconds since the attempt began, to its end or to ``now``."""
        return max(0.0, (self.ended or now) - self.started) if self.started is not None else 0.0

    def seconds_left(self, now: float) -> float | None:
        """Seconds to the end at the pace of this attempt; None before its first epoch."""
        return self.seconds(now) * (1 - self.fraction) / self.fraction if self.fraction > 0 else None


@dataclass
class JournalWatch:
    """Reads the journals of some trials; a journal that has not grown is not opened.

    Args:
        store: The results folder.
        trial_ids: Which trials.
        launch_id: The launch whose work counts; None takes any launch's.
    """

    store: Store
    trial_ids: Sequence[str]
    launch_id: str | None = None
    _sizes: dict[str, int] = field(default_factory=dict)
    _views: dict[str, TrialView] = field(default_factory=dict)

    def changed(self) -> list[str]:
        """Ids of the trials whose journals have changed since the last call; their views are fresh."""
        sizes = {i: self.store.journal(i).size() for i in self.trial_ids}
        fresh = [i for i, size in sizes.items() if size != self._sizes.get(i, 0)]
        for trial_id in fresh:
            self._sizes[trial_id] = sizes[trial_id]
            self._views[trial_id] = view_of(self.store.record(trial_id), self.store.journal(trial_id).read(), self.launch_id)
        return fresh

    def views(self) -> list[TrialView]:
        """One view per trial, in the order of ``trial_ids``, as of the last :meth:`changed`."""
        return [self._views.get(i, TrialView(i)) for i in self.trial_ids]


def view_of(record: Record, events: Sequence[dict[str, Any]], launch_id: str | None) -> TrialView:
    """A trial's view from its record and its journal's lines.

    Args:
        record: The record folded from ``events``.
        events: The journal's lines, oldest first.
        launch_id: The launch whose work counts; None takes any launch's.
    """
    start: dict[str, Any] = next((e for e in reversed(events) if e["event"] == "start"), {})
    last = events[-1] if events else {}
    state = {"new": "waiting"}.get(record.state, record.state)
    if record.reason == VANISHED:
        state = "running"  # its worker has just died: the executor starts it again, or writes down how it ended
    if launch_id is not None and state != "done" and record.launch_id != launch_id:
        state = "waiting"
    ended = last.get("time") if state in ("done", "stopped", "failed", "interrupted") else None
    return TrialView(
        trial_id=record.trial_id,
        state=state,
        started=start.get("time"),
        ended=ended,
        first_epoch=int(start.get("resumed_epoch") or 0),
        epoch=max(record.epochs, default=int(start.get("resumed_epoch") or 0)),
        epochs=int(record.trial.get("schedule", {}).get("epochs", 0)),
        loss=_loss(record),
        ap=_ap(record),
        reason=record.reason,
    )


def _loss(record: Record) -> float | None:
    """The last epoch's total loss: its ``loss`` where it is named so, else the sum of the terms."""
    losses = record.epochs[max(record.epochs)].get("losses") if record.epochs else None
    if not losses:
        return None
    return losses.get("loss", math.fsum(v for v in losses.values() if v is not None))


def _ap(record: Record) -> float | None:
    if record.metrics and record.metrics.get("AP") is not None:
        return record.metrics["AP"]
    return record.evals[max(record.evals)]["metrics"].get("AP") if record.evals else None
