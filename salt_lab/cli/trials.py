"""A study's trials beside what the results folder says about each: what ``plan`` and ``status`` show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from salt_lab.record.store import Record, Store
    from salt_lab.spec.study import Cell, Study
    from salt_lab.spec.trial import Trial


class Planned(NamedTuple):
    """One trial of a study and its record.

    Attributes:
        cell: the cell that the trial is a seed of.
        trial: the trial.
        trial_id: 12 hex digits.
        record: what the results folder holds; its state is "new" where there is nothing.
    """

    cell: Cell
    trial: Trial
    trial_id: str
    record: Record


def planned_trials(study: Study, store: Store) -> list[Planned]:
    """All trials of ``study``, cell by cell and seed by seed. Reads files, writes and starts nothing.

    Raises:
        DataError: a data set of the study cannot be read.
        WeightsError: a weights file of the study cannot be read.
    """
    from salt_lab.schedule.preflight import check_all_weights, jobs_of

    check_all_weights(cell.trial for cell in study.cells)
    cells = [cell for cell in study.cells for _ in cell.seeds]
    jobs = jobs_of(study.trials())
    return [Planned(cell, job.trial, job.trial_id, store.record(job.trial_id)) for cell, job in zip(cells, jobs, strict=True)]


def differing_keys(study: Study) -> list[str]:
    """The dotted keys in which the study's cells differ, in order, and ``seed`` where there are several."""
    keys = list(dict.fromkeys(key for cell in study.cells for key in cell.label))
    return [*keys, "seed"] if len(study.seeds) > 1 else keys


def differing_values(planned: Planned, keys: list[str]) -> list[Any]:
    """The trial's values of ``keys`` (see :func:`differing_keys`)."""
    return [planned.trial.seed if key == "seed" else planned.cell.label.get(key) for key in keys]


def count_states(trials: list[Planned]) -> dict[str, int]:
    """State -> number of trials, without the states that do not occur."""
    order = ("done", "running", "interrupted", "failed", "new")
    counts = {state: sum(item.record.state == state for item in trials) for state in order}
    return {state: number for state, number in counts.items() if number}
