"""A study's table as LaTeX: booktabs, no wider than the text, ready to be put into a paper as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from salt_lab.report.grid import Entry, Grid
from salt_lab.report.words import MINUS, runs_list

if TYPE_CHECKING:
    from salt_lab.report.rows import Table

_TEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "–": "--",
    "…": r"\ldots{}",
    "†": r"$^\dagger$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
}
_TEX |= {sign: "\\" + sign for sign in "&%$#_{}"}
#: A significance mark: behind an interval's bracket.
_MARK = re.compile(r"(?<=\])(\*{1,2})")


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(sign, sign) for sign in text)


def latex_table(table: Table, grid: Grid) -> str:
    """A ``table`` environment with booktabs rules: accuracy, and under it the cost of the same rows, each shrunk to the line's width where it is
    wider. Warnings stand in the caption, notes below (a caption has a largest length), trials without a number and run ids in comments."""
    warnings = [rf" \textbf{{{escape_latex(warning)}}}" for warning in grid.warnings]
    notes = r"\par ".join(escape_latex(note) for note in grid.notes)
    comments = [*_one_line(table.evidence.missing, "in no number: "), *_one_line(runs_list(table), "run: ")]
    labels, numbers = list(range(grid.left)), list(range(grid.left, len(grid.head)))
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage{graphicx}",
        r"\begin{table}[t]",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"  \caption[{escape_latex(table.study)}]{{\footnotesize {escape_latex(grid.caption)}{''.join(warnings)}}}",
        rf"  \label{{tab:{''.join(sign if sign.isalnum() else '-' for sign in table.study)}}}",
        *_tabular(grid, [*labels, *numbers[: grid.accuracy]], [*grid.body], [*grid.below]),
        "",
        r"  \medskip",
        *_tabular(grid, [*labels, *numbers[grid.accuracy :]], [*grid.body], []),
        *(["", r"  \medskip", rf"  \parbox{{\linewidth}}{{\scriptsize\raggedright {notes}}}"] if grid.notes else []),
        r"\end{table}",
    ]
    return "\n".join([*lines, *(f"% {comment}" for comment in comments)]) + "\n"


def _tabular(grid: Grid, columns: list[int], body: list[tuple[Entry, ...]], below: list[tuple[Entry, ...]]) -> list[str]:
    """Some columns of the grid, no wider than the line."""
    head = [_head(grid.head[column]) for column in columns]
    return [
        r"  \resizebox{\ifdim\width>\linewidth \linewidth\else\width\fi}{!}{"
        rf"\begin{{tabular}}{{{'l' * grid.left}{'r' * (len(head) - grid.left)}}}",
        r"    \toprule",
        f"    {' & '.join(head)} \\\\",
        r"    \midrule",
        *(_line([line[column] for column in columns]) for line in body),
        *([r"    \midrule"] if below else []),
        *(_line([line[column] for column in columns]) for line in below),
        r"    \bottomrule",
        r"  \end{tabular}}",
    ]


def _head(text: str) -> str:
    return r"$\Delta$AP" if text == "delta" else _cell(text)


def _line(entries: Sequence[Entry]) -> str:
    return "    " + " & ".join((rf"\textbf{{{_cell(one.best)}}}" if one.best else "") + _cell(one.rest) for one in entries) + r" \\"


def _cell(text: str) -> str:
    """Escaped, with true minus signs and raised significance marks."""
    parts = _MARK.split(text)
    pieces = [rf"$^{{{part}}}$" if part in ("*", "**") else "$-$".join(map(escape_latex, MINUS.split(part))) for part in parts]
    return "".join(pieces)


def _one_line(texts: Sequence[str], before: str) -> list[str]:
    """Each text on one line, so that a TeX comment cannot end early."""
    return [before + " ".join(text.split()) for text in texts]
