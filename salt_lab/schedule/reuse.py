"""Which trials of a study a launch runs, which it keeps, and which it runs again: decided from the records and the present training code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from salt_lab.errors import UserError
from salt_lab.record.store import Record, Store, TrialBusy
from salt_lab.record.training_code import made_by_other, other_versions, training_code_version
from salt_lab.schedule.executor import Job
from salt_lab.spec.study import Study

FINISHED = ("done", "stopped")


@dataclass(frozen=True)
class Todo:
    """What a launch does.

    Attributes:
        jobs: the trials to run, in the study's order.
        again: trial id -> number of its record, which is set aside first (``--force``).
        reused: trial id -> versions of other training code that made it: kept as it is.
        notes: what the one who launches should know, a line each.
    """

    jobs: tuple[Job, ...]
    again: dict[str, int] = field(default_factory=dict)
    reused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def decide(study: Study, jobs: Sequence[Job], store: Store, *, reuse: bool = False, force: bool = False) -> Todo:
    """What to do with each trial of ``study``. Reads only.

    Args:
        study: the study.
        jobs: its trials.
        store: the results folder.
        reuse: keep finished trials of other training code beside those that the present code will make.
        force: run finished trials again, whatever made them, and from scratch those that other training code began.

    Raises:
        UserError: there are trials to run, other training code made some that are finished, and neither ``reuse`` nor ``force`` is given.
    """
    present = training_code_version()
    records = {job.trial_id: store.record(job.trial_id) for job in jobs}
    final = {name for name, record in records.items() if record.is_final(study.name, study.early_stop is not None)}
    others = {name: codes for name, record in records.items() if (codes := other_code(record, present))}
    if force:
        again = {name: record.number for name, record in records.items() if name in final or (name in others and record.state != "running")}
        return Todo(tuple(job for job in jobs if job.trial_id not in final or job.trial_id in again), again)
    todo = tuple(job for job in jobs if job.trial_id not in final)
    kept = {name: codes for name, codes in others.items() if name in final}
    if kept and todo and not reuse:
        raise UserError(
            f"{study.source}: {made_by_other(len(kept), len(final), _versions(kept), present)}; {len(todo)} are to be trained by the present code. "
            "Add --reuse to keep the finished ones beside them, or --force to train them again (their records are kept in "
            "trials/<id>/earlier)"
        )
    return Todo(todo, reused=kept, notes=tuple(code_notes(records.values(), present)))


def set_aside(todo: Todo, store: Store) -> dict[str, int]:
    """Set the records of ``todo.again`` aside; trial id -> number of those that were. What another process has or has done is left to it.

    Raises:
        StoreError: a folder cannot be written.
    """
    done = {}
    for trial_id, number in todo.again.items():
        try:
            if store.set_aside(trial_id, number):
                done[trial_id] = number
        except TrialBusy:
            continue
    return done


def other_code(record: Record, present: str) -> tuple[str, ...]:
    """The versions of training code, other than ``present``, in what a record holds; none before its first epoch."""
    return other_versions(record.training_codes, present) if record.epochs or record.state in FINISHED else ()


def code_notes(records: Collection[Record], present: str) -> list[str]:
    """A line on the finished trials of other training code, and one on the unfinished that it began; none where there are none.

    Args:
        records: a study's records.
        present: :func:`~salt_lab.record.training_code.training_code_version` now.
    """
    others = {record.trial_id: (record, codes) for record in records if (codes := other_code(record, present))}
    finished = {name: codes for name, (record, codes) in others.items() if record.state in FINISHED}
    begun = {name: codes for name, (record, codes) in others.items() if record.state not in FINISHED}
    total = sum(record.state in FINISHED for record in records)
    notes = [f"{made_by_other(len(finished), total, _versions(finished), present)}."] if finished else []
    if begun:
        notes.append(
            f"{len(begun)} unfinished {'trial was' if len(begun) == 1 else 'trials were'} begun by other training code "
            f"({', '.join(_versions(begun))}; now {present}): going on mixes both; run with --force starts from scratch."
        )
    return notes


def _versions(codes: Mapping[str, Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(version for versions in codes.values() for version in versions))
