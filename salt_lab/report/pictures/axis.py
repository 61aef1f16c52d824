"""The numbers of a study over a numeric axis (:mod:`salt_lab.report.pictures.over_axis` draws them): which cells are a line, and at which values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from salt_lab.errors import UserError, did_you_mean
from salt_lab.report.pictures.cells import adds_salt, baselines, cell_names, looks
from salt_lab.report.pictures.forest import Effect, effects_of
from salt_lab.report.words import SELECTED, signed
from salt_lab.spec.naming import names

if TYPE_CHECKING:
    from salt_lab.report.rows import Row, Table
    from salt_lab.report.style import Look

#: An axis that nobody named has so many values at least; two are a comparison, which the forest plot shows.
FEWEST_VALUES = 3
#: Cells named in one sentence of the note; of the others it gives the number.
_MOST_NAMED = 4


class AxisPoint(NamedTuple):
    """A cell at ``value`` of the axis (NaN: it has none, and is a level line): mean AP (percent) of its ``seeds``, of which ``asked`` were wanted."""

    value: float
    ap: float
    seeds: tuple[float, ...]
    asked: int


class AxisArm(NamedTuple):
    """A line: cells that differ in the axis alone, by value; those without a number left out. ``name`` is "" where the study has one arm."""

    name: str
    look: Look
    points: tuple[AxisPoint, ...]


class AxisChange(NamedTuple):
    """The cell of ``arm`` at ``value`` against its baseline, AP points, as in the forest plot: 95 % interval NaN where there is none."""

    arm: str
    value: float
    delta: float
    low: float
    high: float
    method: str
    mark: str
    seeds: tuple[float, ...]


class OverAxis(NamedTuple):
    """What is drawn over ``key``. ``zeros``: (arm, value) of baselines that are on an arm that they are compared with. ``salt``: is SALT all that
    is added in every change? ``missing``: what is not drawn or has fewer seeds, in sentences."""

    key: str
    arms: list[AxisArm]
    changes: list[AxisChange]
    zeros: list[tuple[str, float]]
    salt: bool
    missing: list[str]


class _Line(NamedTuple):
    """``rest``: what the cells have in common; one cell stands for each value."""

    rest: Mapping[str, Any]
    rows: list[Row]


class _Placed(NamedTuple):
    """A cell on its arm."""

    arm: str
    value: float
    row: Row

    @property
    def place(self) -> str:
        return _at(self.arm, self.value)


def numeric_axes(table: Table, fewest: int = FEWEST_VALUES) -> list[str]:
    """Keys of numbers that change alone, over ``fewest`` values or more, while nothing else that matters does; in the table's order."""
    return [key for key in table.label_keys if max((len(line.rows) for line in _lines(table, key)), default=0) >= fewest]


def choose_axis(table: Table, key: str | None = None) -> str:
    """``key`` if the study has this axis; None: its only one. Raises UserError with the choices."""
    where = f"study {table.study}: key"
    every = numeric_axes(table, 2)
    if key in every:
        return str(key)
    if not every:
        raise UserError(
            f"{where} = {key}: no number changes alone. Add an axis of numbers to the study, e.g. axes: {{salt.points: [4, 9, 16]}}"
        )
    if key is not None:
        raise UserError(f"{where}: {did_you_mean('numeric axis', key, every)}")
    long = numeric_axes(table)
    if len(long) == 1:
        return long[0]
    why = f"{len(long)} numeric axes" if long else f"no numeric axis of {FEWEST_VALUES} values or more"
    raise UserError(f"{where}: {why}. Name the one to draw, e.g. key='{(long or every)[0]}'. Choices: {', '.join(long or every)}")


def over_axis_of(table: Table, key: str | None = None) -> OverAxis:
    """The numbers of :func:`salt_lab.report.pictures.over_axis.over_axis`. Raises UserError where the study has no such axis."""
    key = choose_axis(table, key)
    lines, against = _with_references(table, _lines(table, key)), baselines(table)
    shown = _as_cells(lines)
    called = [_called(cell, name) for cell, name in zip(shown, cell_names(shown).values(), strict=True)]
    cells = [_Placed(name, _value(row, key), row) for name, line in zip(called, lines, strict=True) for row in line.rows]
    arms = [
        AxisArm(name, style, tuple(_point(row, key) for row in line.rows if _drawn(row)))
        for name, style, line in zip(called, looks(shown), lines, strict=True)
    ]
    compared = [(cell, _effect(cell.row, against.get(cell.row.key), table)) for cell in cells if cell.row.baseline is not None]
    changes = [_change(cell, effect) for cell, effect in compared if not effect.unfinished]
    within = {(cell.arm, cell.row.baseline) for cell in cells}
    zeros = [(cell.arm, cell.value) for cell in cells if (cell.arm, cell.row.key) in within and _drawn(cell.row)]
    salt = bool(compared) and all(adds_salt(cell.row, against.get(cell.row.key)) for cell, _ in compared)
    return OverAxis(key, arms, changes, zeros, salt, _missing(table, cells, compared))


def axis_words(found: OverAxis) -> str:
    """The numbers in words, for those who do not see the picture."""
    arms = [f"{arm.name}: AP ".removeprefix(": ") + ", ".join(map(_point_words, arm.points)) for arm in found.arms if arm.points]
    changes = [f"{_at(one.arm, one.value)}: {signed(one.delta)}{_interval_words(one)}{one.mark}" for one in found.changes]
    return "; ".join([*arms, *changes])


def _point_words(point: AxisPoint) -> str:
    return f"{point.ap:.1f}" + ("" if math.isnan(point.value) else f" at {point.value:g}")


def _interval_words(change: AxisChange) -> str:
    return "" if math.isnan(change.low) else f" [{signed(change.low)}, {signed(change.high)}]"


def _at(arm: str, value: float) -> str:
    return arm if math.isnan(value) else f"{arm} at {value:g}".strip()


def _lines(table: Table, key: str) -> list[_Line]:
    """Cells with a number at ``key`` that are alike in all else, where there are two or more. A cell in which the number puts other toggles out
    of effect (no SDR, no kind of SDR) belongs to every line that it does not contradict."""
    lines: list[_Line] = []
    for row in (row for row in table.rows if not math.isnan(_value(row, key))):
        rest = {name: value for name, value in row.label.items() if name != key}
        line = next((line for line in lines if line.rest == rest), None)
        if line is None:
            lines.append(line := _Line(rest, []))
        line.rows.append(row)
    single = [line for line in lines if len(line.rows) == 1]
    long = [line for line in lines if len(line.rows) > 1]
    for line in long:
        line.rows.extend(one.rows[0] for one in single if one.rest.items() < line.rest.items())
        line.rows.sort(key=lambda row: _value(row, key))
    return long


def _with_references(table: Table, lines: list[_Line]) -> list[_Line]:
    """Also the baselines of these cells that are on no line, each by itself; all in the table's order."""
    on_lines = {row.key for line in lines for row in line.rows}
    wanted = {row.baseline for line in lines for row in line.rows} - on_lines
    order = {row.key: at for at, row in enumerate(table.rows)}
    alone = [_Line(row.label, [row]) for row in table.rows if row.key in wanted]
    return sorted([*lines, *alone], key=lambda line: min(order[row.key] for row in line.rows))


def _as_cells(lines: Sequence[_Line]) -> list[Row]:
    """Each line as one row, with the line's baseline as its own, for the names and looks that cells have in other pictures."""
    of_line = {row.key: line.rows[0].key for line in lines for row in line.rows}
    shared = [key for key, value in lines[0].rest.items() if all(key in line.rest and line.rest[key] == value for line in lines)]
    labels = [{key: value for key, value in line.rest.items() if key not in shared} for line in lines]
    cells = []
    for line, label, name in zip(lines, labels, names(labels), strict=True):
        other = next((of_line.get(row.baseline) for row in line.rows if row.baseline is not None), None)
        first = line.rows[0].key
        cells.append(replace(line.rows[0], label=label, name=name, title="", baseline=None if other == first else other))
    return cells


def _called(cell: Row, name: str) -> str:
    if set(cell.label) == {"salt.enabled"}:
        return "with SALT" if cell.label["salt.enabled"] else "without SALT"
    return name


def _value(row: Row, key: str) -> float:
    value = row.label.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _drawn(row: Row) -> bool:
    return not math.isnan(row.metrics["AP"].mean)


def _point(row: Row, key: str) -> AxisPoint:
    return AxisPoint(_value(row, key), row.metrics["AP"].mean, tuple(row.ap_by_seed.values()), row.asked)


def _effect(row: Row, baseline: Row | None, table: Table) -> Effect:
    """The forest plot's numbers of one cell."""
    return effects_of(replace(table, rows=(row,) if baseline is None else (baseline, row)))[0]


def _change(cell: _Placed, effect: Effect) -> AxisChange:
    return AxisChange(cell.arm, cell.value, effect.delta, effect.low, effect.high, effect.method, effect.mark, effect.seeds)


def _missing(table: Table, cells: Sequence[_Placed], compared: Sequence[tuple[_Placed, Effect]]) -> list[str]:
    gone = [f"{cell.place} ({'AP undefined' if cell.row.done else cell.row.state})" for cell in cells if not _drawn(cell.row)]
    short = [cell for cell in cells if _drawn(cell.row) and cell.row.done < cell.row.asked]
    fewer = [f"{cell.place} ({cell.row.done} of {cell.row.asked}{SELECTED if cell.row.selected else ''})" for cell in short]
    apart = [f"{cell.place} ({effect.unfinished})" for cell, effect in compared if effect.unfinished and _drawn(cell.row)]
    other = len(table.rows) - len({cell.row.key for cell in cells})
    elsewhere = [f"{other} of the study's {len(table.rows)} cells {'is' if other == 1 else 'are'} not on this axis."] if other else []
    return [*_listed("Left out", gone), *_listed("Fewer seeds", fewer), *_listed("No difference", apart), *elsewhere]


def _listed(what: str, places: Sequence[str]) -> list[str]:
    every = list(dict.fromkeys(places))
    more = f" and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return [f"{what}: {', '.join(every[:_MOST_NAMED])}{more}."] if every else []
