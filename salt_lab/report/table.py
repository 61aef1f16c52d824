"""Write a computed table down as Markdown, LaTeX or CSV. No number is computed here."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from salt_lab.errors import UserError, did_you_mean
from salt_lab.report.pivot import Pivot, pivot_table
from salt_lab.report.rows import TABLE_METRICS, Row, Spread, Table, study_table
from salt_lab.report.words import COST_MEANING, caption, cost_texts, delta_text, header, label_text, metric_text, speed_texts

__all__ = ["FORMATS", "Pivot", "Table", "markdown", "pivot_table", "render", "study_table"]

FORMATS = ("csv", "latex", "md")
_COSTS = ("params (M)", "GFLOPs", "train (min)", "peak (MB)")
_SPEED = ("train (img/s)", "inference (ms)", "input")


def render(table: Table | Pivot, format: str = "md", *, cost: bool = False) -> str:
    """The table as text that ends with a newline; with ``cost`` also training and inference speed, and what the cost columns mean.

    ``md``: aligned for the terminal, caption, warnings and run ids under it. ``latex``: a booktabs ``table`` environment.
    ``csv``: a row per cell, full precision, empty where undefined (a :class:`Pivot` renders as ``md`` only).

    Raises UserError for any other format.
    """
    if format not in FORMATS:
        raise UserError(f"--format: {did_you_mean('format', format, FORMATS)}")
    if isinstance(table, Pivot):
        if format != "md":
            raise UserError(f"--format {format}: the short two-armed table is Markdown only; use the study's table.")
        return markdown(table.header, table.body, len(table.label_keys)) + "\n" + "".join(f"\n{note}\n" for note in table.notes)
    return {"md": _study_markdown, "latex": _study_latex, "csv": _study_csv}[format](table, cost)


def markdown(head: Sequence[str], body: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table, columns padded to one width; the first ``left`` columns are text, the others numbers (right-aligned)."""
    cells = [[text.replace("|", "\\|").replace("\n", " ") for text in line] for line in (head, *body)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(head))]
    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]

    def line(texts: Sequence[str]) -> str:
        padded = (text.ljust(w) if i < left else text.rjust(w) for i, (text, w) in enumerate(zip(texts, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def _head(table: Table, cost: bool) -> list[str]:
    delta = ["delta"] if table.compared else []
    return [*_label_head(table), "AP", *delta, *TABLE_METRICS[1:], *_COSTS, *(_SPEED if cost else ())]


def _label_head(table: Table) -> list[str]:
    return [*(["cell"] if table.titled else []), *(header(key) for key in table.label_keys)]


def _texts(table: Table, row: Row, cost: bool) -> list[str]:
    labels = [*([row.title or row.name] if table.titled else []), *(label_text(row.label.get(key)) for key in table.label_keys)]
    delta = [delta_text(row)] if table.compared else []
    spent = [*cost_texts(row), *(speed_texts(row) if cost else ())]
    return [*labels, metric_text(row, "AP"), *delta, *(metric_text(row, name) for name in TABLE_METRICS[1:]), *spent]


def _caption(table: Table, cost: bool) -> str:
    return f"{caption(table)} {COST_MEANING}" if cost else caption(table)


def _study_markdown(table: Table, cost: bool) -> str:
    grid = markdown(_head(table, cost), [_texts(table, row, cost) for row in table.rows], len(_label_head(table)))
    notes = [_caption(table, cost), *(f"**{warning}**" for warning in table.evidence.warnings)]
    parts = [grid, *notes, _list("In no number:", table.evidence.missing), _list("Runs (MLflow run id, or trial id):", _runs(table))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _list(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", *(f"- {line}" for line in lines)]) if lines else ""


def _runs(table: Table) -> list[str]:
    return [f"{row.name}: {', '.join(row.runs)}" for row in table.rows if row.runs]


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


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(sign, sign) for sign in text)


def _tex_cell(text: str) -> str:
    """Escaped, and numbers with a true minus sign."""
    return "$-$" + escape_latex(text[1:]) if text.startswith("-") else escape_latex(text)


def _study_latex(table: Table, cost: bool) -> str:
    left, head = len(_label_head(table)), [r"$\Delta$AP" if text == "delta" else _tex_cell(text) for text in _head(table, cost)]
    body = [" & ".join(map(_tex_cell, _texts(table, row, cost))) + r" \\" for row in table.rows]
    warnings = [rf" \textbf{{{escape_latex(warning)}}}" for warning in table.evidence.warnings]
    notes = [*_one_line(table.evidence.missing, "in no number: "), *_one_line(_runs(table), "run: ")]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[t]",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"  \caption{{{escape_latex(_caption(table, cost))}{''.join(warnings)}}}",
        rf"  \label{{tab:{''.join(sign if sign.isalnum() else '-' for sign in table.study)}}}",
        rf"  \begin{{tabular}}{{{'l' * left}{'r' * (len(head) - left)}}}",
        r"    \toprule",
        f"    {' & '.join(head)} \\\\",
        r"    \midrule",
        *(f"    {line}" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join([*lines, *(f"% {note}" for note in notes)]) + "\n"


def _one_line(texts: Sequence[str], before: str) -> list[str]:
    """Each text on one line, so that a TeX comment cannot end early."""
    return [before + " ".join(text.split()) for text in texts]


def _study_csv(table: Table, cost: bool) -> str:
    out = io.StringIO()
    rows = [_csv_row(table, row, cost) for row in table.rows]
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _csv_row(table: Table, row: Row, cost: bool) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for name, values in [*row.metrics.items(), *([("delta_AP", row.delta or Spread(math.nan, math.nan, 0))] if table.compared else [])]:
        numbers |= {name: values.mean, f"{name}_sd": values.sd, f"{name}_n": values.n}
    numbers |= {
        "parameters": row.parameters,
        "gflops": row.gflops,
        "train_minutes": row.train_minutes,
        "peak_memory_mb": row.peak_memory_mb,
    }
    if cost:
        numbers |= {
            "train_images_per_second": row.train_images_per_second,
            "inference_ms": row.inference_ms,
            "input_size": row.input_size,
        }
    labels = {key: label_text(row.label[key]) if key in row.label else "" for key in table.label_keys} or {"cell": row.name}
    evidence = {"runs": "; ".join(row.runs), "code": "; ".join(row.codes), "data": "; ".join(row.data)}
    written = {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in numbers.items()}
    seeds = {"seeds_done": row.done, "seeds_asked": row.asked, **({"seeds_stopped": row.stopped} if table.stopped else {})}
    return {**labels, "cell_key": row.key, "state": row.state, **seeds, **written, **evidence}
