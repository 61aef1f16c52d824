"""The short table of a two-armed study: ``host | AP | AP + SALT | delta``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salt_lab.report.rows import Row, Table, study_table
from salt_lab.report.words import NO_DELTA, UNFINISHED, delta_text, header, label_text, metric_text, stopped_text

if TYPE_CHECKING:
    from salt_lab.report.results import StudyResults


@dataclass(frozen=True)
class PivotRow:
    """Baseline and variant that differ in the arm key only; either is None where the study has no such cell."""

    label: Mapping[str, Any]
    baseline: Row | None
    variant: Row | None


@dataclass(frozen=True)
class Pivot:
    """Both arms side by side. ``arm`` is the dotted key in which they differ, ``values`` its value in the baseline and in the variant."""

    arm: str
    values: tuple[Any, Any]
    label_keys: tuple[str, ...]
    rows: tuple[PivotRow, ...]
    notes: tuple[str, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """Column titles."""
        arms = [f"AP, {header(self.arm)}={label_text(value)}" for value in self.values]
        if self.arm == "salt.enabled" and self.values == (False, True):
            arms = ["AP", "AP + SALT"]
        return (*(header(key) for key in self.label_keys), *arms, "delta")

    @property
    def body(self) -> tuple[tuple[str, ...], ...]:
        """The cells as text, a tuple per row."""
        return tuple(self._texts(row) for row in self.rows)

    def _texts(self, row: PivotRow) -> tuple[str, ...]:
        labels = (label_text(row.label[key]) for key in self.label_keys)
        arms = (metric_text(cell, "AP") if cell else NO_DELTA for cell in (row.baseline, row.variant))
        return (*labels, *arms, delta_text(row.variant) if row.variant and row.baseline else UNFINISHED)


def pivot_table(results: StudyResults) -> Pivot | None:
    """Baselines against variants side by side; None unless every cell is one or the other and all pairs differ in the same key, from one
    value to one other."""
    table = study_table(results)
    rows = {row.key: row for row in table.rows}
    pairs = [(rows[row.baseline], row) for row in table.rows if row.baseline in rows]
    arms = {(key, *map(label_text, (old.label.get(key), new.label.get(key)))) for old, new in pairs for key in _differences(old, new)}
    if len(arms) != 1 or len({old.key for old, _ in pairs}) != len(pairs):
        return None
    arm = next(iter(arms))[0]
    variant_of = {old.key: new for old, new in pairs}
    paired = {new.key for _, new in pairs}
    keys = tuple(key for key in table.label_keys if key != arm)
    if any(key not in row.label for row in table.rows for key in keys):
        return None  # a toggle that only one arm has
    lines = tuple(_pivot_row(row, variant_of) for row in table.rows if row.key not in paired)
    notes = (*_short_notes(table), *(f"**{text}**" for text in table.evidence.warnings), *table.evidence.missing)
    return Pivot(arm, (pairs[0][0].label[arm], pairs[0][1].label[arm]), keys, lines, notes)


def _pivot_row(row: Row, variant_of: Mapping[str, Row]) -> PivotRow:
    """A row of its own for a variant whose baseline is not in the study."""
    alone = row.baseline is not None
    return PivotRow(row.label, None if alone else row, row if alone else variant_of.get(row.key))


def _differences(old: Row, new: Row) -> list[str]:
    return [key for key in {**old.label, **new.label} if old.label.get(key) != new.label.get(key)]


def _short_notes(table: Table) -> tuple[str, ...]:
    seeds = len(table.seeds)
    if seeds == 1:
        return (f"AP in percent, one seed: the spread over seeds is unknown.{stopped_text(table)}",)
    return (f"AP in percent: mean ± sample standard deviation over {seeds} seeds; delta paired by seed.{stopped_text(table)}",)
