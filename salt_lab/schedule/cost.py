"""What a study will cost, estimated from what is known of trials like its own: pure arithmetic, nothing is read or measured here.

A number has a basis or there is none: an earlier record of the same kind of trial on the same kind of machine, of an alike one, or a
calibration. "Kind" is :func:`salt_lab.record.calibration.cost_parts`: seeds, learning rates and numbers of epochs do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from salt_lab.record.calibration import alike_key, cost_key, cost_parts
from salt_lab.schedule.dispatch import Need
from salt_lab.schedule.simulation import Place, finish_seconds
from salt_lab.spec.trial import EmbeddedData, Schedule, Trial

#: What a trial is given of memory, over what was measured: long runs fragment it, and a worker holds what a bare process does not **(ours)**.
SAFETY = 1.3
RECORD, ALIKE, CALIBRATION = "record", "similar record", "calibration"


@dataclass(frozen=True)
class Known:
    """One trial that was run, or one measurement. Seconds are those of its data and its number of workers.

    Attributes:
        parts: what was run, see :func:`salt_lab.record.calibration.cost_parts`.
        machine: on which kind of machine.
        basis: :data:`RECORD` or :data:`CALIBRATION`.
        epoch_s, eval_s: seconds of one pass over the training images, and of one evaluation; None where only the memory is known.
        fixed_s: seconds of everything else: building, measuring the inference time, writing.
        memory_gb: GiB of one worker, as measured; None where unknown.
        disk_mb: MiB that stay on the disk: one checkpoint, and the detections where they could be looked at.
        threads: CPU threads of a worker; None where nobody wrote it down.
        workers: processes that shared the batch.
        train_images, val_images: of the embedded data, to scale by; None for files, which are always the same.
        alone: was nothing else of the lab's running on the machine? Records: unknown, taken as no.
        time: when, unix seconds.
    """

    parts: Mapping[str, Any]
    machine: str
    basis: str
    epoch_s: float | None = None
    eval_s: float | None = None
    fixed_s: float = 0.0
    memory_gb: float | None = None
    disk_mb: float | None = None
    threads: int | None = None
    workers: int = 1
    train_images: int | None = None
    val_images: int | None = None
    alone: bool = False
    time: float = 0.0


@dataclass(frozen=True)
class Rates:
    """What one kind of trial takes, and how that is known. ``samples`` is how many earlier trials or measurements it is the median of."""

    epoch_s: float
    eval_s: float
    fixed_s: float
    memory_gb: float | None
    disk_mb: float | None
    basis: str
    samples: int
    alone: bool


@dataclass(frozen=True)
class Item:
    """A trial of the study as the estimate needs it. ``epochs_done`` counts those of its last checkpoint."""

    trial: Trial
    trial_id: str
    cell: str
    data_fingerprint: str
    done: bool = False
    epochs_done: int = 0


@dataclass(frozen=True)
class TrialCost:
    """A trial's estimate. ``seconds`` is the whole trial, ``left`` what is still to do; both None, and ``basis`` None, without a basis."""

    item: Item
    seconds: float | None
    left: float | None
    memory_gb: float | None
    disk_mb: float | None
    basis: str | None
    samples: int = 0
    alone: bool = False


@dataclass(frozen=True)
class StudyCost:
    """A study's estimate: its trials in order, and where they run."""

    trials: tuple[TrialCost, ...]
    place: Place

    @property
    def unknown(self) -> tuple[TrialCost, ...]:
        """Trials that are to be run and of which nothing is known."""
        return tuple(one for one in self.trials if one.left is None)

    @property
    def work_s(self) -> float:
        """Seconds of all trials that are to be run, one after the other; those without a basis are not in it."""
        return sum(one.left or 0.0 for one in self.trials)

    @property
    def device_hours(self) -> float:
        """GPU-hours where trials have GPUs, else core-hours."""
        return self.work_s / 3600 * (self.place.gpus or self.place.workers * self.place.cpus)

    @property
    def finish_s(self) -> float | None:
        """Seconds to the end of the last trial; None while a trial that is to be run has no basis."""
        if self.unknown:
            return None
        return finish_seconds({one.item.trial_id: Need(one.memory_gb, one.left) for one in self.trials if one.left}, self.place)


def estimate_study(items: Sequence[Item], known: Iterable[Known], place: Place) -> StudyCost:
    """Estimate every trial from what is known of its kind on ``place``'s kind of machine."""
    here = [one for one in known if one.machine == place.machine]
    return StudyCost(tuple(_trial_cost(item, here, place) for item in items), place)


def _trial_cost(item: Item, known: Sequence[Known], place: Place) -> TrialCost:
    rates = rates_for(item.trial, item.data_fingerprint, known, place)
    if rates is None:
        return TrialCost(item, None, 0.0 if item.done else None, None, None, None)
    left = 0.0 if item.done else trial_seconds(item.trial.schedule, rates, item.epochs_done)
    whole = trial_seconds(item.trial.schedule, rates)
    memory = None if rates.memory_gb is None else rates.memory_gb * SAFETY
    return TrialCost(item, whole, left, memory, rates.disk_mb, rates.basis, rates.samples, rates.alone)


def trial_seconds(schedule: Schedule, rates: Rates, epochs_done: int = 0) -> float:
    """Seconds from the end of epoch ``epochs_done`` to the end of the trial."""
    evals = evaluations(schedule) - evaluations(schedule, epochs_done)
    return rates.fixed_s + (schedule.epochs - epochs_done) * rates.epoch_s + evals * rates.eval_s


def evaluations(schedule: Schedule, until: int | None = None) -> int:
    """How often a trial is evaluated, to the end or up to epoch ``until``: each ``eval_every`` epochs and after the last."""
    every, epochs = schedule.eval_every or schedule.epochs, schedule.epochs
    reached = epochs if until is None else min(until, epochs)
    return reached // every + int(reached == epochs and epochs % every > 0)


def rates_for(trial: Trial, data_fingerprint: str, known: Sequence[Known], place: Place) -> Rates | None:
    """The best basis for a trial among ``known`` (of one kind of machine): records of its kind, else of an alike kind, else calibrations.

    What was measured with another number of threads is no basis. Memory is the most that any of its own kind took, however it is known.
    """
    parts = cost_parts(trial, data_fingerprint, place.workers)
    key, alike = cost_key(parts), alike_key(parts)
    usable = [one for one in known if one.threads in (None, place.cpus) and one.epoch_s is not None]
    own = [one for one in usable if cost_key(one.parts) == key]
    near = [one for one in usable if alike_key(one.parts) == alike]
    choices = {
        RECORD: [one for one in own if one.basis == RECORD],
        ALIKE: [one for one in near if one.basis == RECORD],
        CALIBRATION: _as_full_as(place.slots, [one for one in own if one.basis == CALIBRATION]),
    }
    basis, chosen = next(((name, found) for name, found in choices.items() if found), ("", []))
    if not chosen:
        return None
    scaled = [scale(one, trial, place.workers) for one in chosen]
    return Rates(
        epoch_s=median(one.epoch_s or 0.0 for one in scaled),
        eval_s=median(one.eval_s or 0.0 for one in scaled),
        fixed_s=median(one.fixed_s for one in scaled),
        memory_gb=most_memory(own) or most_memory(chosen),
        disk_mb=median(sizes) if (sizes := [one.disk_mb for one in scaled if one.disk_mb is not None]) else None,
        basis=basis,
        samples=len(scaled),
        alone=all(one.alone for one in scaled),
    )


def _as_full_as(slots: int, measured: Sequence[Known]) -> list[Known]:
    """The latest measurement: on a full machine where more than one trial will run there and one was made so, else alone."""
    fitting = [one for one in measured if one.alone == (slots == 1)] or list(measured)
    return [max(fitting, key=lambda one: one.time)] if fitting else []


def scale(known: Known, trial: Trial, workers: int) -> Known:
    """``known`` for the trial's amount of data and number of workers; the key says that one worker's batch is the same."""
    epoch, evaluation = 1.0, 1.0
    if isinstance(trial.data, EmbeddedData):
        epoch = trial.data.train_images / (known.train_images or trial.data.train_images)
        evaluation = trial.data.val_images / (known.val_images or trial.data.val_images)
    share = known.workers / workers
    return replace(known, epoch_s=(known.epoch_s or 0.0) * epoch * share, eval_s=(known.eval_s or 0.0) * evaluation * share)


def most_memory(known: Iterable[Known]) -> float | None:
    """The most that one worker of these took, GiB; None where nobody measured."""
    return max((one.memory_gb for one in known if one.memory_gb is not None), default=None)


@dataclass(frozen=True)
class PastErrors:
    """How far earlier estimates were off, as took / estimated: 1 is right, 2 is twice as long as was said."""

    trials: int
    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        if self.trials == 1:
            return f"1 trial took {self.median:.2f} times what was estimated before it started"
        return (
            f"{self.trials} trials took {self.median:.2f} times (median; {self.lowest:.2f} to {self.highest:.2f}) what was estimated before "
            "they started"
        )


def past_errors(estimated: Mapping[str, float], took: Mapping[str, float]) -> PastErrors | None:
    """Compare estimates with what happened, trial by trial; None where no trial has both.

    Args:
        estimated: trial id -> seconds, as kept before it started.
        took: trial id -> seconds that it really took.
    """
    ratios = sorted(took[name] / seconds for name, seconds in estimated.items() if name in took and seconds > 0)
    return PastErrors(len(ratios), median(ratios), ratios[0], ratios[-1]) if ratios else None
