"""How pictures name and draw the cells of a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from salt_lab.report.style import Look, look
from salt_lab.report.words import SELECTED, series_name
from salt_lab.spec.naming import names

if TYPE_CHECKING:
    from salt_lab.report.rows import Row, Table
    from salt_lab.spec.study import Cell


def baselines(table: Table) -> dict[str, Row]:
    """Key of each cell that has a baseline -> the baseline's row, where the table has it."""
    rows = {row.key: row for row in table.rows}
    return {row.key: rows[row.baseline] for row in table.rows if row.baseline in rows}


def adds_salt(row: Row, baseline: Row | None) -> bool:
    """Is SALT all that the row has over its baseline, and off there?"""
    different = {key for key in row.label if baseline and baseline.label.get(key) != row.label[key]}
    return different == {"salt.enabled"} and bool(row.label["salt.enabled"])


def cell_names(cells: Sequence[Cell | Row]) -> dict[str, str]:
    """Key -> how a picture calls the cell: the name that the study gives it, else ``atss``, ``atss + SALT``, ``atss: points=9``; shorter than a
    table's, in which each toggle has a column."""
    automatic = names([cell.label for cell in cells])
    return {cell.key: cell.name if cell.name != name else _short(cell) for cell, name in zip(cells, automatic, strict=True)}


def _short(cell: Cell | Row) -> str:
    name = series_name(cell.label, cell.name)
    if name != cell.name or "host" not in cell.label:
        return name
    implied = {f"host={cell.label['host']}"}
    if any(key.startswith("salt.") and key != "salt.enabled" for key in cell.label):
        implied.add("salt=on")  # without SALT none of its toggles would be there
    rest = " ".join(word for word in name.split(" ") if word not in implied)
    return f"{cell.label['host']}: {rest}" if rest else str(cell.label["host"])


def arm_names(table: Table) -> dict[str, str]:
    """Key of each compared cell -> its name: where SALT is all that it adds, the name need not say so. It says where early stopping has left only
    some seeds."""
    against, short = baselines(table), cell_names(table.rows)
    return {row.key: _arm_name(row, against.get(row.key), short[row.key]) for row in table.rows}


def _arm_name(row: Row, baseline: Row | None, name: str) -> str:
    if adds_salt(row, baseline) and len(row.label) > 1:
        label = {key: value for key, value in row.label.items() if key != "salt.enabled"}
        name = row.title or series_name(label, names([label])[0])
    return name + (left_over(row.done, row.asked) if row.selected else "")


def left_over(done: int, asked: int) -> str:
    """Behind the name of a cell of which early stopping took some seeds."""
    return f" ({done} of {asked} seeds{SELECTED})"


def looks(cells: Sequence[Cell | Row]) -> list[Look]:
    """A baseline is dashed with open markers; a cell that is alone in being compared with it has its colour and marker, solid and filled."""
    variants = Counter(cell.baseline for cell in cells if cell.baseline is not None)
    number: dict[str, int] = {}
    looks = []
    for cell in cells:
        pair = cell.baseline if cell.baseline is not None and variants[cell.baseline] == 1 else None
        style = look(number.setdefault(pair or cell.key, len(number)))
        if cell.key in variants:
            style = style._replace(dash=(0, (3.2, 1.4)), fill="white")
        looks.append(style._replace(dash="-") if pair else style)
    return looks
