"""``salt-lab plan --cost``: what a study would take, on what basis, and how far earlier estimates were off."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from salt_lab.cli.shared import show_table

if TYPE_CHECKING:
    from salt_lab.cli.trials import Planned
    from salt_lab.record.store import Store
    from salt_lab.schedule.cost import PastErrors, StudyCost, TrialCost
    from salt_lab.spec.study import Study


def cost_of_plan(study: Study, trials: Sequence[Planned], store: Store, slots: int | None) -> tuple[StudyCost, dict[str, PastErrors]]:
    """The estimate of a study's trials on this machine, and how far its earlier estimates were off. Reads only.

    Args:
        study: the study.
        trials: all of its trials, in order.
        store: whose records and calibrations are the basis.
        slots: trials at a time; None = as many as this machine's cores or GPUs allow.
    """
    from salt_lab.schedule.cost_known import cost_of, errors_of_past_estimates, place_here
    from salt_lab.schedule.executor import Job

    jobs = [Job(item.trial, item.trial_id) for item in trials]
    return cost_of(study, jobs, store, place_here(study, slots)), errors_of_past_estimates(study.name, store)


def cost_as_dict(study: Study, trials: Sequence[Planned], store: Store, slots: int | None) -> dict[str, Any]:
    """The estimate as plain data: ``trials`` (seconds, left, memory_gb, disk_mb, basis; None = no basis), ``place``, ``work_seconds``,
    ``device_hours``, ``finish_seconds`` (None while a trial has no basis), ``unknown`` (trials without one) and ``past``."""
    found, past = cost_of_plan(study, trials, store, slots)
    return {
        "place": vars(found.place),
        "trials": [
            {
                "trial_id": one.item.trial_id,
                "seconds": one.seconds,
                "left": one.left,
                "memory_gb": one.memory_gb,
                "disk_mb": one.disk_mb,
                "basis": one.basis,
                "samples": one.samples,
            }
            for one in found.trials
        ],
        "unknown": len(found.unknown),
        "work_seconds": found.work_s,
        "device_hours": found.device_hours,
        "finish_seconds": found.finish_s,
        "past": {basis: vars(errors) for basis, errors in past.items()},
    }


def show_cost(study: Study, trials: Sequence[Planned], store: Store, slots: int | None) -> None:
    """Print the estimate: a row per cell, the total, when it would be finished, what it leaves out, and past errors."""
    found, past = cost_of_plan(study, trials, store, slots)
    header = ["cell", "to train", "minutes each", "memory GiB", "disk MiB", "basis"]
    show_table(header, [_row(name, found) for name in dict.fromkeys(one.item.cell for one in found.trials)])
    for line in [*_total(study, store, found), *_caveats(study, found), *_past(past)]:
        click.echo(line)


def _row(cell: str, found: StudyCost) -> list[Any]:
    trials = [one for one in found.trials if one.item.cell == cell]
    first = trials[0]
    to_train = [one for one in trials if not one.item.done]
    minutes = None if first.seconds is None else f"{first.seconds / 60:.1f}"
    memory = None if first.memory_gb is None else f"{first.memory_gb:.1f}"
    return [cell, len(to_train), minutes, memory, None if first.disk_mb is None else f"{first.disk_mb:.0f}", _basis(first)]


def _basis(one: TrialCost) -> str:
    if one.basis is None:
        return "none"
    return one.basis if one.samples == 1 else f"{one.samples} {one.basis}s"


def _total(study: Study, store: Store, found: StudyCost) -> list[str]:
    from salt_lab.record.commands import command_for
    from salt_lab.schedule.estimate import duration

    place, to_train = found.place, [one for one in found.trials if not one.item.done]
    if not to_train:
        return ["Nothing is left to train."]
    unknown = found.unknown
    lines = []
    if unknown:
        lines.append(
            f"{len(unknown)} of {len(to_train)} trials to train have no basis: no finished trial of their kind and no calibration on "
            f"{place.machine} in this results folder. To get one, some seconds for each kind: {command_for('calibrate', study, store)}"
        )
    if len(unknown) == len(to_train):
        return lines
    unit = "GPU-hours" if place.gpus else "core-hours"
    disk = sum(one.disk_mb or 0.0 for one in to_train) / 1024
    lines.append(
        f"{'The others' if unknown else 'Total'}: {found.device_hours:.2f} {unit} on {place.machine}; {disk:.2f} GiB of checkpoints stay"
    )
    if (seconds := found.finish_s) is not None:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + seconds))
        lines.append(f"Finished after {duration(seconds)} with {_slots(found)}, if started now at about {at}")
    return lines


def _slots(found: StudyCost) -> str:
    number = found.place.slots
    return "one trial at a time" if number == 1 else f"{number} trials at a time"


def _caveats(study: Study, found: StudyCost) -> list[str]:
    from salt_lab.schedule.cost import CALIBRATION, SAFETY

    if all(one.basis is None or one.item.done for one in found.trials):
        return []
    said = [f"Memory is the most that was measured, times {SAFETY:g}."]
    if found.place.slots > 1 and any(one.alone and not one.item.done for one in found.trials):
        said.append(
            "Calibrated alone: trials that run at the same time share caches and memory and slow each other, so it will take longer "
            f"(salt-lab calibrate --at-once {found.place.slots} measures it)."
        )
    if any(one.basis not in (None, CALIBRATION) and not one.item.done for one in found.trials):
        said.append("Times of records hold whatever else ran on their machine then.")
    if study.early_stop is not None:
        said.append("Early stopping is not counted: it can only make it shorter.")
    return said


def _past(past: dict[str, PastErrors]) -> list[str]:
    return [f"Past estimates of this study from a {basis}: {errors}." for basis, errors in past.items()]
