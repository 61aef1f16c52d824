"""Compute first: a study's results -> rows of numbers with their spread, their delta and their evidence.

:func:`salt_lab.report.table.render` only writes down what is computed here. AP is in percent, deltas in AP points.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from salt_lab.record import COCO_NAMES
from salt_lab.report.evidence import Evidence, evidence
from salt_lab.spec.naming import names

if TYPE_CHECKING:
    from salt_lab.report.compare import Comparison
    from salt_lab.report.intervals import Intervals
    from salt_lab.report.results import StudyResults
    from salt_lab.spec.study import Cell

#: The table's metric columns unless others are asked for, in the field's order.
TABLE_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
#: Rows of the results' frame as mappings (:meth:`StudyResults.rows_of`): 1,000 small frames would take seconds.
Trials = Sequence[Mapping[str, Any]]
_COSTS = ("parameters", "gflops", "train_seconds", "peak_memory_mb", "train_images_per_second", "inference_ms")
_COLUMNS = (*COCO_NAMES, *_COSTS, "input_size", "code", "data_fingerprint")


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
    numbers = _defined(values)
    mean = fmean(numbers) if numbers else math.nan
    return Spread(mean, _sample_sd(numbers) if len(numbers) > 1 else math.nan, len(numbers))


def _sample_sd(numbers: Sequence[float]) -> float:
    """``statistics.stdev`` of Python 3.11 on to the last digit, on any Python and nine times as fast: exact integers, then one rounding."""
    ratios = [number.as_integer_ratio() for number in numbers]
    unit, n = max(denominator for _, denominator in ratios), len(numbers)  # powers of two: the largest is a multiple of all
    values = [numerator * (unit // denominator) for numerator, denominator in ratios]
    squares = n * sum(value * value for value in values) - sum(values) ** 2
    return math.isqrt((squares << 240) // (n * (n - 1) * unit * unit)) / (1 << 120)


@dataclass(frozen=True)
class Row:
    """One cell. ``done`` of ``asked`` seeds are finished, and only those are in any number; ``stopped`` were ended by early stopping.

    ``selected``: early stopping took seeds out by their AP, so that the numbers are of the lucky ones; ``delta_selected``: here or in the baseline.

    ``metrics`` are all twelve of COCO. ``delta`` is AP minus the baseline cell's AP, over the ``delta.n`` seeds that both have finished; None
    without a baseline (``baseline`` None). ``comparison`` is the same difference with its interval and its mark, None where nobody computed it.
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
    comparison: Comparison | None = None

    @property
    def finished(self) -> bool:
        """Is every seed done, so that the row may be the best of its table?"""
        return 0 < self.done == self.asked

    @property
    def unpaired(self) -> Comparison | None:
        """The comparison of two arms that share no seed, which have no paired delta; None where they do, or where nobody computed it."""
        alone = self.comparison is not None and self.comparison.method == "seeds, unpaired"
        return self.comparison if alone else None

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
    intervals: Intervals | None = None

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

    def best(self, metric: str) -> frozenset[str]:
        """Keys of the rows that have the greatest mean of ``metric``, to the one decimal that a table shows, among the rows of which every
        seed is done; none where fewer than two rows are."""
        means = {row.key: round(row.metrics[metric].mean, 1) for row in self.rows if row.finished and row.metrics[metric].n}
        top = max(means.values(), default=math.nan)
        return frozenset(key for key, mean in means.items() if mean == top) if len(means) > 1 else frozenset()


def study_table(results: StudyResults, intervals: Intervals | None = None) -> Table:
    """Means over the finished seeds, their spread, and the delta to each cell's baseline, paired by seed.

    ``intervals`` (:func:`salt_lab.report.intervals.find_intervals`) gives the deltas their 95 % intervals and marks; without them a table takes no
    time, and no detections.
    """
    study = results.study
    comparisons = intervals.comparisons if intervals else {}
    aps = {cell.key: _ap_by_seed(results.rows_of(cell.key)) for cell in study.cells}
    automatic = names([cell.label for cell in study.cells])
    titles = {cell.key: "" if cell.name == name else cell.name for cell, name in zip(study.cells, automatic, strict=True)}
    stopped = {cell.key: sum(row["state"] == "stopped" for row in results.rows_of(cell.key)) for cell in study.cells}
    rows = tuple(
        replace(_row(cell, titles[cell.key], results.rows_of(cell.key), aps, stopped), comparison=comparisons.get(cell.key))
        for cell in study.cells
    )
    facts = evidence(results.frame, {cell.key: cell.name for cell in study.cells})
    return Table(study.name, study.question, results.label_keys, tuple(study.seeds), rows, facts, intervals)


def paired_delta(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Spread:
    """Mean and sample SD of ``variant - baseline`` over the seeds that both have; ``n`` is 0 when they share none."""
    return spread(variant[seed] - baseline[seed] for seed in sorted(variant.keys() & baseline.keys()))


def _row(cell: Cell, title: str, trials: Trials, aps: Mapping[str, Mapping[int, float]], stopped: Mapping[str, int]) -> Row:
    finished = [trial for trial in trials if trial["state"] == "done"]
    done = {name: [trial[name] for trial in finished] for name in _COLUMNS}
    against = aps.get(cell.baseline) if cell.baseline is not None else None
    return Row(
        key=cell.key,
        name=cell.name,
        title=title,
        label=dict(cell.label),
        baseline=cell.baseline,
        state=_state([trial["state"] for trial in trials]),
        done=len(finished),
        asked=len(trials),
        stopped=stopped[cell.key],
        delta_selected=cell.baseline is not None and bool(stopped[cell.key] or stopped.get(cell.baseline)),
        metrics={name: spread(done[name]) for name in COCO_NAMES},
        ap_by_seed=aps[cell.key],
        delta=None if cell.baseline is None else paired_delta(aps[cell.key], against or {}),
        parameters=_mean(done["parameters"]),
        gflops=_mean(done["gflops"]),
        train_minutes=_mean(done["train_seconds"]) / 60,
        peak_memory_mb=max(_defined(done["peak_memory_mb"]), default=math.nan),
        train_images_per_second=_mean(done["train_images_per_second"]),
        inference_ms=_mean(done["inference_ms"]),
        input_size=", ".join(_different(done["input_size"])),
        runs=tuple(f"seed {trial['seed']} {_run(trial)}" for trial in finished),
        codes=_different(done["code"]),
        data=_different(done["data_fingerprint"]),
    )


def _defined(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None and not math.isnan(value)]


def _mean(values: Iterable[float | None]) -> float:
    numbers = _defined(values)
    return fmean(numbers) if numbers else math.nan


def _different(texts: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if isinstance(text, str)))


def _run(trial: Mapping[str, Any]) -> str:
    """The MLflow run id, or the trial's id where no run was delivered, said as such."""
    return str(trial["run_id"]) if isinstance(trial["run_id"], str) and trial["run_id"] else f"trial {trial['trial_id']}"


def _ap_by_seed(trials: Trials) -> dict[int, float]:
    return {int(trial["seed"]): float(trial["AP"]) for trial in trials if trial["state"] == "done" and _defined([trial["AP"]])}


def _state(states: list[str]) -> str:
    """``done``, one state for all, or how many seeds are done and what became of the others: ``2/3 seeds, 1 failed``."""
    said = ["not run" if state == "new" else state for state in states]
    if len(set(said)) == 1:
        return said[0]
    others = Counter(state for state in said if state != "done")
    return ", ".join([f"{said.count('done')}/{len(said)} seeds", *(f"{count} {state}" for state, count in others.items())])
