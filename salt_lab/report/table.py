"""Write a computed table down as Markdown, LaTeX, HTML or CSV. No number is computed here."""

from __future__ import annotations

from collections.abc import Sequence

from salt_lab.errors import UserError, did_you_mean
from salt_lab.report.csv_table import csv_table
from salt_lab.report.grid import Entry, Grid, View, make_grid
from salt_lab.report.html_table import html_page
from salt_lab.report.latex import latex_table
from salt_lab.report.pivot import Pivot, pivot_table
from salt_lab.report.published import Beside
from salt_lab.report.rows import TABLE_METRICS, Table, study_table
from salt_lab.report.words import runs_list

__all__ = ["FORMATS", "Pivot", "Table", "markdown", "pivot_table", "render", "study_table"]

FORMATS = ("csv", "html", "latex", "md")


def render(
    table: Table | Pivot,
    format: str = "md",
    *,
    cost: bool = False,
    metrics: Sequence[str] = TABLE_METRICS,
    published: Beside | None = None,
) -> str:
    """The table as text that ends with a newline.

    Args:
        table: what was computed; a :class:`Pivot` renders as ``md`` only.
        format: ``md``: aligned for the terminal, caption, warnings and run ids under it. ``latex``: a booktabs ``table`` environment.
            ``html``: a page of its own. ``csv``: a row per cell, full precision, empty where undefined.
        cost: also training and inference speed, and what the cost columns mean.
        metrics: columns among COCO's twelve; AP is always the first.
        published: what others have reported (:func:`salt_lab.report.published.beside`), as a column and, where it has them, as rows below.

    Raises UserError for any other format.
    """
    if format not in FORMATS:
        raise UserError(f"--format: {did_you_mean('format', format, FORMATS)}")
    if isinstance(table, Pivot):
        if format != "md":
            raise UserError(f"--format {format}: the short two-armed table is Markdown only; use the study's table.")
        return markdown(table.header, table.body, len(table.label_keys)) + "\n" + "".join(f"\n{note}\n" for note in table.notes)
    view = View(cost, tuple(dict.fromkeys(("AP", *metrics))), published)
    if format == "csv":
        return csv_table(table, view)
    grid = make_grid(table, view)
    return {"md": _study_markdown, "latex": latex_table, "html": html_page}[format](table, grid)


def markdown(head: Sequence[str], body: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table, columns padded to one width; the first ``left`` columns are text, the others numbers (right-aligned)."""
    cells = [[text.replace("|", "\\|").replace("\n", " ") for text in line] for line in (head, *body)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(head))]
    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]

    def line(texts: Sequence[str]) -> str:
        padded = (text.ljust(w) if i < left else text.rjust(w) for i, (text, w) in enumerate(zip(texts, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def _study_markdown(table: Table, grid: Grid) -> str:
    text = markdown(grid.head, [[_bold(entry) for entry in line] for line in (*grid.body, *grid.below)], grid.left)
    notes = [grid.caption, *grid.notes, *(f"**{warning}**" for warning in grid.warnings)]
    runs = _list("Runs (MLflow run id, or trial id):", runs_list(table))
    return "\n\n".join(part for part in [text, *notes, _list("In no number:", table.evidence.missing), runs] if part) + "\n"


def _bold(entry: Entry) -> str:
    return f"**{entry.best}**{entry.rest}" if entry.best else entry.rest


def _list(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", *(f"- {line}" for line in lines)]) if lines else ""
