"""Compute first: a study's results -> rows of numbers with their spread, their delta and their evidence.

:func:`salt_lab.report.table.render` only writes down what is computed here. AP is in percent, deltas in AP points.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from salt_lab.report.evidence import Evidence, evidence
from salt_lab.spec.naming import names

if TYPE_CHECKING:
    from salt_lab.report.results import StudyResults
    from salt_lab.spec.study import Cell

#: The table's metric columns, in the field's order.
TABLE_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Spread(NamedTuple):
    """Mean and sample standard deviation (n - 1) of ``n`` numbers; NaN where there are too few (mean: 0, sd: 0 or 1)."""

    mean: float
    sd: float
    n: int


def spread(values: Iterable[float | None]) -> Spread:
    """Mean, sample SD and count of the defined numbers among ``values`` (None and NaN are left out).

    >>> spread([25.0, 27.0, None])
    Spread(mean=26.0, sd=1.4142135623730951, n=2)
    """
    numbers = [float(value) for value in values if value is not None and not math.isnan(value)]
    mean = fmean(numbers) if numbers else math.nan
    return Spread(mean, stdev(numbers) if len(numbers) > 1 else math.nan, len(numbers))


@dataclass(frozen=True)
class Row:
    """One cell. ``done`` of ``asked`` seeds are finished, and only those are in any number; ``stopped`` were ended by early stopping.

    ``selected``: early stopping took seeds out by their AP, so that the numbers are of the lucky ones; ``delta_selected``: here or in the baseline.

    ``delta`` is AP minus the baseline cell's AP, over the ``delta.n`` seeds that both have finished; None without a baseline (``baseline`` None).
    ``title`` is the name that the study gives the cell, "" where its label says it all. ``ap_by_seed`` are the finished seeds' AP.
    ``train_minutes``, ``train_images_per_second`` and ``inference_ms`` are means over the finished seeds, ``peak_memory_mb`` is the largest; NaN
    where the records have none. ``input_size``: "height x width" in pixels, to which ``gflops`` and ``inference_ms`` belong.
    """

    key: str
    name: str
    title: str
    label: Mapping[str, Any]
    baseline: str | None
    state: str
    done: int
    asked: int
    stopped: int
    delta_selected: bool
    metrics: Mapping[str, Spread]
    ap_by_seed: Mapping[int, float]
    delta: Spread | None
    parameters: float
    gflops: float
    train_minutes: float
    peak_memory_mb: float
    train_images_per_second: float
    inference_ms: float
    input_size: str
    runs: tuple[str, ...]
    codes: tuple[str, ...]
    data: tuple[str, ...]

    @property
    def selected(self) -> bool:
        """Are the numbers of those seeds only that early stopping let through?"""
        return self.stopped > 0 and self.done > 0


@dataclass(frozen=True)
class Table:
    """A study's numbers, a row per cell in the study's order, and the evidence behind them."""

    study: str
    question: str
    label_keys: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    evidence: Evidence

    @property
    def compared(self) -> bool:
        """Does any row have a baseline, so that there is a delta column?"""
        return any(row.baseline is not None for row in self.rows)

    @property
    def titled(self) -> bool:
        """Does the study name any of its cells, so that there is a column for the names?"""
        return any(row.title for row in self.rows)

    @property
    def stopped(self) -> int:
        """Trials that early stopping ended; they are in no number."""
        return sum(row.stopped for row in self.rows)


def study_table(results: StudyResults) -> Table:
    """Means over the finished seeds, their spread, and the delta to each cell's baseline, paired by seed."""
    study = results.study
    aps = {cell.key: _ap_by_seed(results.trials_of(cell.key)) for cell in study.cells}
    automatic = names([cell.label for cell in study.cells])
    titles = {cell.key: "" if cell.name == name else cell.name for cell, name in zip(study.cells, automatic, strict=True)}
    stopped = {cell.key: int((results.trials_of(cell.key)["state"] == "stopped").sum()) for cell in study.cells}
    rows = tuple(_row(cell, titles[cell.key], results.trials_of(cell.key), aps, stopped) for cell in study.cells)
    facts = evidence(results.frame, {cell.key: cell.name for cell in study.cells})
    return Table(study.name, study.question, results.label_keys, tuple(study.seeds), rows, facts)


def paired_delta(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Spread:
    """Mean and sample SD of ``variant - baseline`` over the seeds that both have; ``n`` is 0 when they share none."""
    return spread(variant[seed] - baseline[seed] for seed in sorted(variant.keys() & baseline.keys()))


def _row(cell: Cell, title: str, trials: pd.DataFrame, aps: Mapping[str, Mapping[int, float]], stopped: Mapping[str, int]) -> Row:
    done = trials[trials["state"] == "done"]
    against = aps.get(cell.baseline) if cell.baseline is not None else None
    return Row(
        key=cell.key,
        name=cell.name,
        title=title,
        label=dict(cell.label),
        baseline=cell.baseline,
        state=_state(list(trials["state"])),
        done=len(done),
        asked=len(trials),
        stopped=stopped[cell.key],
        delta_selected=cell.baseline is not None and bool(stopped[cell.key] or stopped.get(cell.baseline)),
        metrics={name: spread(done[name]) for name in TABLE_METRICS},
        ap_by_seed=aps[cell.key],
        delta=None if cell.baseline is None else paired_delta(aps[cell.key], against or {}),
        parameters=spread(done["parameters"]).mean,
        gflops=spread(done["gflops"]).mean,
        train_minutes=spread(done["train_seconds"]).mean / 60,
        peak_memory_mb=float(done["peak_memory_mb"].max()),
        train_images_per_second=spread(done["train_images_per_second"]).mean,
        inference_ms=spread(done["inference_ms"]).mean,
        input_size=", ".join(done["input_size"].dropna().unique()),
        runs=tuple(f"seed {trial.seed} {_run(trial)}" for trial in done.itertuples()),
        codes=tuple(done["code"].dropna().unique()),
        data=tuple(done["data_fingerprint"].dropna().unique()),
    )


def _run(trial: Any) -> str:
    """The MLflow run id, or the trial's id where no run was delivered, said as such."""
    return str(trial.run_id) if isinstance(trial.run_id, str) and trial.run_id else f"trial {trial.trial_id}"


def _ap_by_seed(trials: pd.DataFrame) -> dict[int, float]:
    done = trials[(trials["state"] == "done") & trials["AP"].notna()]
    return {int(seed): float(ap) for seed, ap in zip(done["seed"], done["AP"], strict=True)}


def _state(states: list[str]) -> str:
    """``done``, one state for all, or how many seeds are done and what became of the others: ``2/3 seeds, 1 failed``."""
    said = ["not run" if state == "new" else state for state in states]
    if len(set(said)) == 1:
        return said[0]
    others = Counter(state for state in said if state != "done")
    return ", ".join([f"{said.count('done')}/{len(said)} seeds", *(f"{count} {state}" for state, count in others.items())])
