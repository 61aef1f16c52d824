"""A study's table as CSV: a row per cell, every digit, empty where undefined. For programs and spreadsheets."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from salt_lab.report.rows import Row, Spread, Table
from salt_lab.report.words import label_text

if TYPE_CHECKING:
    from salt_lab.report.grid import View

_NO_DELTA = Spread(math.nan, math.nan, 0)


def csv_table(table: Table, view: View) -> str:
    """The table's numbers with their evidence; columns for intervals and published numbers only where they were asked for.

    Published rows of other data are left out: a program would take them for cells.
    """
    return csv_text([_row(table, row, view) for row in table.rows])


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mappings with the same keys as CSV with a head, NaN and None empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if value is None or (isinstance(value, float) and math.isnan(value)) else value for key, value in row.items()}
        for row in rows
    )
    return out.getvalue()


def _row(table: Table, row: Row, view: View) -> dict[str, Any]:
    labels = {key: label_text(row.label[key]) if key in row.label else "" for key in table.label_keys} or {"cell": row.name}
    seeds = {"seeds_done": row.done, "seeds_asked": row.asked, **({"seeds_stopped": row.stopped} if table.stopped else {})}
    evidence = {"runs": "; ".join(row.runs), "code": "; ".join(row.codes), "data": "; ".join(row.data)}
    numbers = {**_metrics(table, row, view), **_interval(table, row), **_published(row, view), **_cost(row, view)}
    return {**labels, "cell_key": row.key, "state": row.state, **seeds, **numbers, **evidence}


def _metrics(table: Table, row: Row, view: View) -> dict[str, Any]:
    delta = row.delta or _NO_DELTA if row.unpaired is None else Spread(row.unpaired.delta, math.nan, 0)
    spreads = {name: row.metrics[name] for name in view.metrics} | ({"delta_AP": delta} if table.compared else {})
    return {
        f"{name}{suffix}": value
        for name, values in spreads.items()
        for suffix, value in (("", values.mean), ("_sd", values.sd), ("_n", values.n))
    }


def _interval(table: Table, row: Row) -> dict[str, Any]:
    """Empty columns for a baseline; none at all in a table without intervals."""
    if table.intervals is None or not table.compared:
        return {}
    fields = ("low", "high", "method", "pairs", "p", "p_adjusted", "better", "mark")
    return {f"delta_AP_{field}": getattr(row.comparison, field, None) for field in fields}


def _published(row: Row, view: View) -> dict[str, Any]:
    if view.published is None:
        return {}
    found = view.published.rows.get(row.key)
    return {"published_AP": found.metrics["AP"] if found else None, "published_source": found.tags if found else None}


def _cost(row: Row, view: View) -> dict[str, Any]:
    names = ("parameters", "gflops", "train_minutes", "peak_memory_mb")
    return {
        name: getattr(row, name) for name in (*names, *(("train_images_per_second", "inference_ms", "input_size") if view.cost else ()))
    }
