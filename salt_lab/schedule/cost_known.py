"""What a results folder knows about costs: its records and calibrations as the estimate needs them, and the estimates of earlier launches.

::

    STORE/studies/<name>/estimates.jsonl    what each launch was expected to take, written before it starts
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from pydantic import ValidationError

from salt_lab.data import fingerprint
from salt_lab.errors import SaltLabError
from salt_lab.record.calibration import Calibration, calibrations, cost_key, cost_parts, machine_kind
from salt_lab.record.journal import Journal
from salt_lab.record.provenance import machine as this_machine
from salt_lab.record.store import Record, Store
from salt_lab.schedule.cost import CALIBRATION, RECORD, SAFETY, Item, Known, PastErrors, StudyCost, estimate_study, past_errors
from salt_lab.schedule.dispatch import Need
from salt_lab.schedule.executor import Job
from salt_lab.schedule.preflight import jobs_of
from salt_lab.schedule.simulation import Place
from salt_lab.spec.study import Study
from salt_lab.spec.trial import EmbeddedData, Trial, trial_id
from salt_lab.train.weigh import OPTIMIZER_STATES

#: A GPU's record tells what torch allocated; what a process takes is more: blocks kept in reserve, and the CUDA context (GiB) **(ours)**.
RESERVED, CONTEXT_GB = 1.15, 0.6
#: Seconds that each trial spends at its end on measuring its inference time (:func:`salt_lab.train.speed.inference_cost`).
INFERENCE_SECONDS = 1.0


def known_costs(store: Store) -> list[Known]:
    """Everything that a results folder knows: its finished trials, and its calibrations."""
    records = [known_from_record(store.record(name)) for name in store.trial_ids()]
    measured = [known_from_calibration(one) for one in calibrations(store)]
    return [*(one for one in records if one is not None), *(one for one in measured if one is not None)]


def known_from_record(record: Record) -> Known | None:
    """What a finished trial took; None of any other, and of one that this version of the lab cannot read."""
    cost = record.cost
    if record.state != "done" or not cost.get("epochs") or cost.get("train_seconds") is None:
        return None
    try:
        trial = Trial.model_validate(record.trial)
    except ValidationError:
        return None
    resources = record.resources
    workers = int(resources.get("workers") or 1)
    machine = dict(record.provenance.get("machine") or {})
    on_gpu = bool(machine.get("gpu")) and resources.get("gpus") != 0
    train, evaluated = float(cost["train_seconds"]), float(cost.get("eval_seconds") or 0.0)
    marks = trial.data if isinstance(trial.data, EmbeddedData) else None
    return Known(
        parts=cost_parts(trial, record.data_fingerprint or "", workers),
        machine=machine_kind(machine if on_gpu else {**machine, "gpu": None}),
        basis=RECORD,
        epoch_s=train / cost["epochs"],
        eval_s=evaluated / max(1, len(record.evals)),
        fixed_s=max(0.0, _wall(record) - train - evaluated) if record.attempt == 1 else 0.0,
        memory_gb=_record_memory(cost.get("peak_memory_mb"), on_gpu),
        disk_mb=_checkpoint_mb(record.built.get("parameters"), trial),
        threads=resources.get("cpus") or cost.get("inference_threads"),
        workers=workers,
        train_images=marks.train_images if marks else None,
        val_images=marks.val_images if marks else None,
        time=record.time or 0.0,
    )


def known_from_calibration(found: Calibration) -> Known | None:
    """What a calibration says; of one that ran out of memory only how much it had, of a failed one nothing."""
    base = Known(found.parts, found.machine, CALIBRATION, memory_gb=found.memory_gb, threads=found.threads, time=found.time)
    if not found.ok or found.step_seconds is None:
        return base if found.ended == "out of memory" else None
    return replace(
        base,
        epoch_s=found.steps_per_epoch * found.step_seconds,
        eval_s=found.val_images * (found.eval_image_seconds or 0.0),
        fixed_s=(found.setup_seconds or 0.0) + INFERENCE_SECONDS,
        disk_mb=found.checkpoint_mb,
        train_images=found.train_images,
        val_images=found.val_images,
        alone=found.at_once == 1,
    )


def _wall(record: Record) -> float:
    return (record.time or 0.0) - (record.started or 0.0)


def _record_memory(peak_mb: float | None, on_gpu: bool) -> float | None:
    if peak_mb is None:
        return None
    return peak_mb / 1024 * RESERVED + CONTEXT_GB if on_gpu else peak_mb / 1024


def _checkpoint_mb(parameters: int | None, trial: Trial) -> float | None:
    """One checkpoint: weights, the optimiser's state, and the running mean where there is one; 4 bytes each."""
    if not parameters:
        return None
    return parameters * 4 * (1 + OPTIMIZER_STATES[trial.schedule.optimizer] + (trial.schedule.ema is not None)) / 2**20


def memory_needs(
    trials: Iterable[Trial], store: Store, machine: Mapping[str, Any] | str | None = None, *, workers: int = 1
) -> dict[str, float]:
    """How much memory to set aside for each worker of a trial, GiB: the most that one of its kind took, times :data:`SAFETY`.

    Args:
        trials: the trials.
        store: whose records and calibrations are asked.
        machine: the kind of machine, in words or as :func:`salt_lab.record.provenance.machine` describes it; None = this one.
        workers: processes that share a trial's batch.

    Returns:
        trial id -> GiB; trials of which nothing is known are left out.
    """
    kind = machine if isinstance(machine, str) else machine_kind(this_machine() if machine is None else machine)
    most: dict[str, float] = {}
    for one in known_costs(store):
        if one.machine == kind and one.memory_gb is not None:
            most[cost_key(one.parts)] = max(most.get(cost_key(one.parts), 0.0), one.memory_gb)
    needs = {}
    for trial in trials:
        data = fingerprint(trial.data)
        if (found := most.get(cost_key(cost_parts(trial, data, workers)))) is not None:
            needs[trial_id(trial, data)] = found * SAFETY
    return needs


def needs_of(study: Study, store: Store, place: Place | None = None) -> Callable[[Job], Need]:
    """What the dispatcher should know of each trial beforehand: memory of a worker and seconds that are left, as far as they are known.

    Args:
        study: ``resources.memory_gb`` of it, where given, is the word of one who knows better.
        store: whose records and calibrations are asked, once, when the first trial is asked for.
        place: where it will run; None = this machine.
    """
    given = study.resources.memory_gb

    @cache
    def needs() -> dict[str, Need]:
        found = cost_of(study, jobs_of(study.trials()), store, place or place_here(study))
        most = memory_needs(study.trials(), store, found.place.machine, workers=found.place.workers)
        return {one.item.trial_id: Need(given or most.get(one.item.trial_id) or one.memory_gb, one.left) for one in found.trials}

    return lambda job: needs().get(job.trial_id, Need(given))


def cost_of(study: Study, jobs: Sequence[Job], store: Store, place: Place) -> StudyCost:
    """The estimate of a study's trials, from what its results folder knows. Reads only."""
    spoken = [cell.name for cell in study.cells for _ in cell.seeds]
    prints = {data: fingerprint(data) for data in dict.fromkeys(job.trial.data for job in jobs)}
    items = []
    for job, cell in zip(jobs, spoken, strict=True):
        record = store.record(job.trial_id)
        final = record.is_final(study.name, study.early_stop is not None)
        epochs = min(max(record.epochs, default=0), job.trial.schedule.epochs)
        items.append(Item(job.trial, job.trial_id, cell, prints[job.trial.data], final, epochs))
    return estimate_study(items, known_costs(store), place)


def place_here(study: Study, slots: int | None = None) -> Place:
    """This machine as ``study`` would use it.

    Args:
        study: whose ``resources`` say what a trial takes.
        slots: trials at a time; None = as many as its cores, or its GPUs, allow.
    """
    machine = this_machine()
    gpus_here = _gpu_count(machine)
    chosen = study.resources.settled(gpus_here > 0)
    gpus = float(chosen.gpus or 0.0)
    fits = gpus_here / gpus if gpus else (machine.get("cores") or 1) / (chosen.workers * chosen.cpus)
    kind = machine_kind(machine if gpus else {**machine, "gpu": None})
    memory = None if gpus else machine.get("memory_gb")
    return Place(kind, slots or max(1, int(fits)), chosen.workers, chosen.cpus, gpus, memory)


def _gpu_count(machine: Mapping[str, Any]) -> int:
    """Of provenance's words: "NVIDIA A100", or "8x NVIDIA A100, NVIDIA T4"."""
    counts = [name.partition("x ")[0] for name in str(machine.get("gpu") or "").split(", ") if name]
    return sum(int(count) if count.isdigit() else 1 for count in counts)


def keep_estimate(study: Study, jobs: Sequence[Job], store: Store, launch_id: str, slots: int | None = None) -> StudyCost | None:
    """Write down what a launch is expected to take, before it starts: the only honest way to know later how far estimates are off.

    Never in a launch's way: None, and nothing written, where something stands in its own.
    """
    with contextlib.suppress(SaltLabError, OSError, ValueError, KeyError, TypeError):
        place = place_here(study, slots)
        found = cost_of(study, jobs, store, place)
        to_run = {one.item.trial_id: one for one in found.trials if not one.item.done}
        trials = {name: {"seconds": one.seconds, "memory_gb": one.memory_gb, "basis": one.basis} for name, one in to_run.items()}
        where = {"machine": place.machine, "slots": place.slots, "load": os.getloadavg()[0]}
        _estimates(store, study.name).append("estimate", launch_id=launch_id, trials=trials, finish_seconds=found.finish_s, **where)
        return found
    return None


def errors_of_past_estimates(study_name: str, store: Store) -> dict[str, PastErrors]:
    """How far a study's earlier estimates were off, by their basis; trials that are not done, or were done by another launch, do not count."""
    estimated: dict[str, dict[str, float]] = {}
    took: dict[str, float] = {}
    for line in _estimates(store, study_name).read():
        for name, said in line["trials"].items():
            record = store.record(name)
            if said["seconds"] is None or record.state != "done" or record.launch_id != line["launch_id"]:
                continue
            estimated.setdefault(said["basis"], {})[name] = said["seconds"]
            took[name] = _wall(record) if record.attempt == 1 else record.cost["train_seconds"] + record.cost["eval_seconds"]
    found = {basis: past_errors(seconds, took) for basis, seconds in estimated.items()}
    return {basis: errors for basis, errors in found.items() if errors is not None}


def _estimates(store: Store, study_name: str) -> Journal:
    return Journal(store.study_dir(study_name) / "estimates.jsonl")
