"""Write the measures of a study down as Markdown or CSV. No number is computed here."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection
from typing import Any

from salt_lab.errors import UserError, did_you_mean
from salt_lab.report.table import markdown
from salt_lab.report.why import Why, WhyRow
from salt_lab.report.why_classes import fewest, left_out
from salt_lab.report.why_measures import Part
from salt_lab.report.why_sections import Measure, Section
from salt_lab.report.why_words import change, delta_mark, legend, sentences, value_mark
from salt_lab.report.words import NO_DELTA, header, label_text

FORMATS = ("csv", "md")
BY = ("all", "size", "class")
#: With more classes than this a Markdown table shows them only when asked.
FEW_CLASSES = 10
_NOTE = (
    "Mean ± sample standard deviation over seeds; the mean over classes, as AP is one (coarse against refined boxes and points: over locations; "
    "class mark: over objects). delta: against the row's baseline, paired by seed, over the classes that both runs of the seed have; *: its 95 % "
    "paired t interval leaves out zero, not corrected for so many measures. Definitions: docs/why.md."
)


def render(why: Why, style: str = "md", by: Collection[str] = ()) -> str:
    """The measures as text that ends with a newline.

    Args:
        style: ``md``: what changed in words, then a table for each kind of measure. ``csv``: a line for each cell, part and measure, full
            precision, empty where undefined; IoUs and shares 0 to 1. ``classes``, ``delta_classes``: the fewest classes behind a seed, of
            ``classes_known`` that any run has; empty where it is no mean over classes.
        by: any of "all", "size", "class"; empty = all of them, in ``md`` without classes where there are more than ten.

    Raises UserError for another format or part.
    """
    if style not in FORMATS:
        raise UserError(f"--format: {did_you_mean('format', style, FORMATS)}")
    for kind in by:
        if kind not in BY:
            raise UserError(f"--by: {did_you_mean('part', kind, BY)}")
    few = sum(part.kind == "class" for part in why.parts) <= FEW_CLASSES
    wanted = by or (BY if few or style == "csv" else BY[:2])
    parts = tuple(part for part in why.parts if part.kind in wanted)
    return _csv(why, parts) if style == "csv" else _markdown(why, parts)


def _markdown(why: Why, parts: tuple[Part, ...]) -> str:
    blocks = [f"# Why: study {why.study}", why.question.strip()]
    said = sentences(why)
    blocks += ["\n".join(f"- {line}" for line in said)] if said else []
    blocks += [_table(why, section, parts) for section in why.sections()]
    marks = dict.fromkeys(line for section in why.sections() for line in legend(why, section, parts))
    blocks.append(
        " ".join([_NOTE, *marks])
        if why.sections()
        else "Nothing to measure: no trial of the study is finished with its detections or its probe here."
    )
    blocks += ["\n".join(["Not measured:", "", *(f"- {line}" for line in why.missing)])] if why.missing else []
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table(why: Why, section: Section, parts: tuple[Part, ...]) -> str:
    shown = [part for part in parts if why.has(section, part)]
    if not shown:
        return ""
    measures = [measure for measure in section.measures if any(row.value(part, measure.key).n for row in why.rows for part in shown)]
    head = ["of", *(header(key) for key in why.label_keys), *(measure.title for measure in measures)]
    body = [line for part in shown for row in why.rows for line in _lines(why, row, part, measures)]
    gone = left_out(why, section, shown)
    missing = "".join(["\n\nMissing:\n", *(f"\n- {line}" for line in gone)]) if gone else ""
    return f"## {section.title}\n\n{markdown(head, body, 1 + len(why.label_keys))}\n\n{section.meaning}{missing}"


def _lines(why: Why, row: WhyRow, part: Part, measures: list[Measure]) -> list[list[str]]:
    """The cell, and under it its difference to the baseline."""
    if not any(row.value(part, measure.key).n for measure in measures):
        return []
    labels = [label_text(row.label.get(key)) for key in why.label_keys]
    lines = [[part.text, *labels, *(_number(why, row, part, measure) for measure in measures)]]
    if any(not math.isnan(row.delta(part, measure.key).delta) for measure in measures):
        blank = ["delta", *[""] * (len(labels) - 1)] if labels else []
        lines.append([part.text, *blank, *(_change(why, row, part, measure) for measure in measures)])
    return lines


def _number(why: Why, row: WhyRow, part: Part, measure: Measure) -> str:
    values = row.value(part, measure.key)
    if not values.n:
        return NO_DELTA
    spread = "" if math.isnan(values.sd) else f" ± {values.sd * measure.scale:.{measure.digits}f}"
    return f"{values.mean * measure.scale:.{measure.digits}f}{spread}{value_mark(why, row, part, measure.key)}"


def _change(why: Why, row: WhyRow, part: Part, measure: Measure) -> str:
    return change(measure, row.delta(part, measure.key)) + delta_mark(why, row, part, measure.key)


def _csv(why: Why, parts: tuple[Part, ...]) -> str:
    rows = [
        _csv_row(why, row, part, section, measure)
        for section in why.sections()
        for part in parts
        for row in why.rows
        for measure in section.measures
        if row.value(part, measure.key).n
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=[*why.label_keys, *_CSV_COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


_CSV_COLUMNS = (
    *("cell", "cell_key", "part", "of", "section", "measure", "better", "mean", "sd", "seeds"),
    *("delta", "delta_sd", "delta_low", "delta_high", "delta_pairs"),
    *("classes", "delta_classes", "classes_known"),
)


def _csv_row(why: Why, row: WhyRow, part: Part, section: Section, measure: Measure) -> dict[str, Any]:
    values, delta = row.value(part, measure.key), row.delta(part, measure.key)
    better = {1: "higher", -1: "lower", 0: ""}[measure.better]
    numbers = (values.mean, values.sd, values.n, delta.delta, delta.sd, delta.low, delta.high, delta.n if row.baseline else math.nan)
    known = len(why.known(part, measure.key))
    behind = (fewest(row.classes.get(part, {}).get(measure.key, {})), row.delta_classes.get(part, {}).get(measure.key, 0))
    counts = [behind[0], math.nan if math.isnan(delta.delta) else behind[1], known] if known else [math.nan] * 3
    texts = ["" if math.isnan(number) else number for number in (*numbers, *counts)]
    named = (row.name, row.key, part.kind, part.text, section.key, measure.key, better)
    labels = {key: label_text(row.label[key]) if key in row.label else "" for key in why.label_keys}
    return {**labels, **dict(zip(_CSV_COLUMNS, (*named, *texts), strict=True))}
