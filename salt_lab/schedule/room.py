"""Does a study fit into its disk budget (``retention.disk_gb``)? Asked before anything starts, with what a checkpoint takes **(ours)**.

What must fit is what :func:`salt_lab.train.retention.make_room` never removes: two checkpoints of each trial that runs, and the weights of its
best epoch where those are kept; records, detections, logs; decoded pictures that are there already. Checkpoints of finished trials make way,
the oldest first, so a budget for some of them is no error; how many stay is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salt_lab.data import fingerprint
from salt_lab.errors import UserError
from salt_lab.record.calibration import cost_parts
from salt_lab.record.store import Store
from salt_lab.schedule.cost_known import known_costs
from salt_lab.schedule.executor import Job
from salt_lab.spec.study import Study
from salt_lab.spec.trial import Trial, digest
from salt_lab.train.retention import GIB, Taken, taken
from salt_lab.train.weigh import OPTIMIZER_STATES, Weight, weigh

#: Fields of a trial that decide a checkpoint's size, beside the classes of its data.
MODEL = ("host", "salt", "channels", "head_convs", "quality", "backbone")


@dataclass(frozen=True)
class Sizes:
    """Bytes of the largest trial's files, and how they are known: "measured" or "from the model's parameters"."""

    largest: Weight
    basis: str


def check_room(study: Study, todo: Sequence[Job], store: Store, at_once: int) -> tuple[str, ...]:
    """Refuse a study whose budget cannot hold what it must keep.

    Args:
        study: the study.
        todo: its trials that are to run.
        store: the results folder.
        at_once: how many of them run at a time, at most.

    Returns:
        What the one who launches should know: how many finished trials' checkpoints will stay, where not all do.

    Raises:
        UserError: says what takes how much, and how much would do.
    """
    rules = study.retention
    if rules.disk_gb is None or not todo:
        return ()
    sizes = _sizes([job.trial for job in todo], store)
    if sizes is None:
        return (f"retention.disk_gb = {rules.disk_gb:g}: how large checkpoints will be is not known, so it is checked as the trials start",)
    used, running = taken(store, study.name), min(at_once, len(todo))
    best = sizes.largest.weights if rules.checkpoints == "best_and_last" else 0
    others = sum(size for name, size in used.going.items() if name not in {job.trial_id for job in todo})
    growing = running * (2 * sizes.largest.checkpoint + best)
    rest = int(used.rest + used.rest_of_one * len(todo))
    need = growing + others + rest + used.decoded
    if need > rules.disk_gb * GIB:
        raise UserError(_too_small(study, sizes, running, used, others, need, store))
    kept = {"none": 0, "last": sizes.largest.checkpoint, "best_and_last": sizes.largest.checkpoint + best}[rules.checkpoints]
    return _how_many_stay(study, kept, int(rules.disk_gb * GIB) - rest - used.decoded - others)


def _how_many_stay(study: Study, kept: int, left: int) -> tuple[str, ...]:
    """``kept``: bytes that a finished trial would keep; ``left``: bytes for all of them together."""
    trials = len(study.trials())
    if kept * trials <= left:
        return ()
    return (
        f"retention.disk_gb = {study.retention.disk_gb:g}: the checkpoints of all {trials} trials ({len(study.cells)} cells) would take "
        f"{_gib(kept * trials)}, {_gib(kept)} each; the latest {left // kept} or so stay, the oldest go first",
    )


def _too_small(study: Study, sizes: Sizes, running: int, used: Taken, others: int, need: int, store: Store) -> str:
    also = " and the weights of the best epoch" if study.retention.checkpoints == "best_and_last" else ""
    parts = [
        f"{running} of {len(study.trials())} trials ({len(study.cells)} cells) at a time, each with two checkpoints of up to "
        f"{_gib(sizes.largest.checkpoint)} ({sizes.basis}){also}",
        f"records, detections and logs {_gib(used.rest)} so far and about {_gib(used.rest_of_one)} for each trial",
    ]
    parts += [f"checkpoints of trials that can go on {_gib(others)}"] if others else []
    parts += [f"decoded pictures {_gib(used.decoded)} ({store.data_dir / 'decoded'} may be deleted)"] if used.decoded else []
    enough = -(-need * 100 // GIB) / 100  # rounded up to two decimals
    return (
        f"{study.source}: retention.disk_gb = {study.retention.disk_gb:g}: this study needs at least {enough:g}: {'; '.join(parts)}. "
        f"Set retention.disk_gb to {enough:g} or more, or run fewer trials at a time (--max-concurrent)"
    )


def _sizes(trials: Sequence[Trial], store: Store) -> Sizes | None:
    """From records and calibrations where they know every kind of trial, else from the models themselves; None where they cannot be built."""
    kinds = {_kind(trial): trial for trial in trials}
    known = {}
    for one in known_costs(store):
        if one.disk_mb is not None:
            known[_kind_of(one.parts)] = int(one.disk_mb * 2**20)
    if known.keys() >= kinds.keys():
        found = [Weight(_weights(known[kind], trial), known[kind]) for kind, trial in kinds.items()]
        return Sizes(max(found, key=lambda weight: weight.checkpoint), "by this results folder's records")
    weighed = weigh(list(kinds.values()))
    return Sizes(max(weighed, key=lambda weight: weight.checkpoint), "from the model's parameters") if weighed else None


def _weights(checkpoint: int, trial: Trial) -> int:
    return checkpoint // (1 + OPTIMIZER_STATES[trial.schedule.optimizer] + (trial.schedule.ema is not None))


def _kind(trial: Trial) -> str:
    return _kind_of(cost_parts(trial, fingerprint(trial.data)))


def _kind_of(parts: Mapping[str, Any]) -> str:
    schedule = parts["schedule"]
    return digest({**{key: parts[key] for key in MODEL}, "optimizer": schedule["optimizer"], "ema": schedule["ema"]})


def _gib(size: float) -> str:
    return f"{size / GIB:.2g} GiB"
