"""A study's table as HTML: a fragment for a larger page, or a page of its own that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from salt_lab.report.grid import Entry, Grid
from salt_lab.report.words import MINUS, runs_list

if TYPE_CHECKING:
    from salt_lab.report.rows import Table

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 100rem; padding: 0 1rem; color: #1a1a1a; background: #fff; }
figure { margin: 0; } .wide { overflow-x: auto; } figcaption { padding-top: .8rem; color: #444; font-size: .9em; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; }
thead th { border-bottom: 1px solid; } th[scope=row], thead th.word { text-align: left; font-weight: normal; }
thead th.word { font-weight: bold; } tbody + tbody { border-top: 1px solid; color: #444; }
tbody tr:hover { background: #f3f3f3; } .warning { font-weight: bold; } details, p, ul { font-size: .9em; }
"""


def html_page(table: Table, grid: Grid) -> str:
    """A whole page: the table, notes and warnings, what is in no number, run ids. No script, no network."""
    parts = [
        html_fragment(grid),
        *(f"<p>{escape(note)}</p>" for note in grid.notes),
        *(f'<p class="warning">{escape(warning)}</p>' for warning in grid.warnings),
        _list("In no number", table.evidence.missing, open_=True),
        _list("Runs (MLflow run id, or trial id)", runs_list(table), open_=False),
    ]
    title = escape(f"{table.study}: {table.question}" if table.question else table.study)
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>'
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def html_fragment(grid: Grid) -> str:
    """The table as a ``<figure>`` with its caption, scrolling sideways where the window is narrow; published rows are a second ``<tbody>``."""
    heads = "".join(f'<th scope="col"{_word(column, grid.left)}>{escape(_title(text))}</th>' for column, text in enumerate(grid.head))
    bodies = "\n".join(
        "<tbody>\n" + "\n".join(_line(line, grid.left) for line in lines) + "\n</tbody>" for lines in (grid.body, grid.below) if lines
    )
    table = f"<table>\n<thead><tr>{heads}</tr></thead>\n{bodies}\n</table>"
    return f'<figure>\n<div class="wide" tabindex="0">\n{table}\n</div>\n<figcaption>{escape(grid.caption)}</figcaption>\n</figure>'


def _word(column: int, left: int) -> str:
    return ' class="word"' if column < left else ""


def _title(text: str) -> str:
    return "ΔAP" if text == "delta" else text


def _line(entries: Sequence[Entry], left: int) -> str:
    cells = (
        f'<th scope="row">{_entry(entry)}</th>' if column < left else f"<td>{_entry(entry)}</td>" for column, entry in enumerate(entries)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _entry(entry: Entry) -> str:
    return (f"<b>{_text(entry.best)}</b>" if entry.best else "") + _text(entry.rest)


def _text(text: str) -> str:
    """Escaped, with true minus signs."""
    return escape(MINUS.sub("−", text))


def _list(title: str, lines: Sequence[str], *, open_: bool) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<details{' open' if open_ else ''}><summary>{title}</summary><ul>{items}</ul></details>" if lines else ""
