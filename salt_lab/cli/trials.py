"""A study's trials beside what the results folder says about each: what ``plan`` and ``status`` show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from salt_lab.record.store import Record, Store
    from salt_lab.spec.study import Cell, Study
    from salt_lab.spec.trial import Trial


class Planned(NamedTuple):
    """One trial of a study and its record.

    Attributes:
        cell: the cell that the trial is a seed of.
        trial: the trial.
        trial_id: 12 hex digits; "" where the data are not here.
        record: what the results folder holds, of epochs and evaluations the latest only; its state is "new" where there is nothing.
        other_code: versions of training code in the record that are not the present one.
    """

    cell: Cell
    trial: Trial
    trial_id: str
    record: Record
    other_code: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """The record's state; "done (other code)" where other training code than the present made it, or began it."""
        return f"{self.record.state} (other code)" if self.other_code else self.record.state


def data_are_elsewhere(study: Study) -> bool:
    """Is nothing of the study's COCO data on this machine, neither annotations nor images? One missing file of several is a mistake instead."""
    from pathlib import Path

    from salt_lab.spec.trial import CocoData

    sets = [cell.trial.data for cell in study.cells if isinstance(cell.trial.data, CocoData)]
    return bool(sets) and not any(Path(path).exists() for data in sets for path in (data.train, data.val, data.images))


def trials_without_data(study: Study) -> list[Planned]:
    """All trials of ``study`` where its data are not on this machine: without ids, which stand for the data's content, so without records."""
    from salt_lab.record.store import Record

    return [Planned(cell, trial, "", Record("")) for cell in study.cells for trial in cell.trials()]


def planned_trials(study: Study, store: Store) -> list[Planned]:
    """All trials of ``study``, cell by cell and seed by seed. Reads files, writes and starts nothing.

    Raises:
        DataError: a data set of the study cannot be read.
        WeightsError: a weights file of the study cannot be read.
    """
    from salt_lab.record.folded import brief_records
    from salt_lab.schedule.preflight import check_all_weights, jobs_of
    from salt_lab.schedule.reuse import other_code

    check_all_weights(cell.trial for cell in study.cells)
    cells = [cell for cell in study.cells for _ in cell.seeds]
    jobs = jobs_of(study.trials())
    records = list(brief_records(store, [job.trial_id for job in jobs]))
    present = _present_code(records)
    return [
        Planned(cell, job.trial, job.trial_id, record, other_code(record, present))
        for cell, job, record in zip(cells, jobs, records, strict=True)
    ]


def show_code_notes(trials: list[Planned]) -> None:
    """Say which trials were made or begun by other training code than the present; nothing where none were."""
    from salt_lab.schedule.reuse import code_notes

    records = [item.record for item in trials]
    for note in code_notes(records, _present_code(records)):
        click.echo(note)


def _present_code(records: Iterable[Record]) -> str:
    """The present version of the training code; "" where no record has one that it could differ from."""
    from salt_lab.record.training_code import training_code_version

    return training_code_version() if any(record.training_codes for record in records) else ""


def differing_keys(study: Study) -> list[str]:
    """The dotted keys in which the study's cells differ, in order, and ``seed`` where there are several."""
    keys = list(dict.fromkeys(key for cell in study.cells for key in cell.label))
    return [*keys, "seed"] if len(study.seeds) > 1 else keys


def differing_values(planned: Planned, keys: list[str]) -> list[Any]:
    """The trial's values of ``keys`` (see :func:`differing_keys`)."""
    return [planned.trial.seed if key == "seed" else planned.cell.label.get(key) for key in keys]


def unfinished(study: Study, trials: list[Planned]) -> list[Planned]:
    """The trials that a run would train: not those that are done, nor those that the study's early stopping ended."""
    return [item for item in trials if not item.record.is_final(study.name, early_stopping=study.early_stop is not None)]


def count_states(trials: list[Planned]) -> dict[str, int]:
    """State -> number of trials, without the states that do not occur."""
    order = ("done", "stopped", "running", "interrupted", "failed", "new")
    counts = {state: sum(item.record.state == state for item in trials) for state in order}
    return {state: number for state, number in counts.items() if number}
