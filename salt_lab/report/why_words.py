"""What the measures say, in sentences: what changed against the baseline, which errors carry it, where, and what the operator does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from salt_lab.evaluate.errors_by_type import ErrorsByType
from salt_lab.report.why_measures import ALL
from salt_lab.report.why_sections import SECTIONS, Measure

if TYPE_CHECKING:
    from salt_lab.evaluate.seeds import SeedDifference
    from salt_lab.report.why import Why, WhyRow

MEASURES = {measure.key: measure for section in SECTIONS for measure in section.measures}
#: Kinds of error that are compared with each other; FP and FN are sums over kinds.
_KINDS = tuple(f"error_{kind}" for kind in ErrorsByType._fields[1:-2])
#: AP50 points below which a change is not told.
_WORTH = 0.1


def beyond(found: SeedDifference) -> bool:
    """Does the 95 % interval over seeds leave out zero? Never with one seed."""
    return found.low > 0 or found.high < 0


def change(measure: Measure, found: SeedDifference) -> str:
    """``+3.6 ± 0.4*``: mean and SD of the paired differences; a star where the 95 % interval leaves out zero."""
    if math.isnan(found.delta):
        return "…"
    spread = "" if math.isnan(found.sd) else f" ± {found.sd * measure.scale:.{measure.digits}f}"
    text = f"{found.delta * measure.scale:+.{measure.digits}f}"
    return f"{text[1:] if float(text) == 0 else text}{spread}{'*' if beyond(found) else ''}"


def sentences(why: Why) -> tuple[str, ...]:
    """One line for each cell that has a baseline and measures in common with it."""
    names = {row.key: row.name for row in why.rows}
    compared = [row for row in why.rows if row.baseline in names and not math.isnan(row.delta(ALL, "ap50").delta)]
    return tuple(f"{row.name} against {names[str(row.baseline)]}: {_changes(why, row)}" for row in compared)


def _changes(why: Why, row: WhyRow) -> str:
    parts = [
        f"AP50 {_of(row, 'ap50')}, oLRP {_of(row, 'olrp')} (Loc {_of(row, 'olrp_loc')}, FP {_of(row, 'olrp_fp')}, FN {_of(row, 'olrp_fn')})"
    ]
    worse = sorted((key for key in _KINDS if row.delta(ALL, key).delta >= _WORTH), key=lambda key: -row.delta(ALL, key).delta)
    less = sorted((key for key in _KINDS if row.delta(ALL, key).delta <= -_WORTH), key=lambda key: row.delta(ALL, key).delta)
    parts += [f"errors that cost more: {_listed(row, worse)}"] if worse else []
    parts += [f"that cost less: {_listed(row, less)}"] if less else []
    parts.append(
        f"rank correlation of score and IoU {_of(row, 'detections_spearman')}, IoU of the best-located detection "
        f"{_of(row, 'detections_best_iou')}, IoU lost by trusting the score {_of(row, 'detections_gap')}"
    )
    return "; ".join([*parts, *_where(why, row), *_operator(row)]) + "."


def _listed(row: WhyRow, keys: list[str]) -> str:
    return ", ".join(f"{MEASURES[key].title} {_of(row, key)}" for key in keys)


def _of(row: WhyRow, key: str) -> str:
    return change(MEASURES[key], row.delta(ALL, key))


def _where(why: Why, row: WhyRow) -> list[str]:
    """The size and the class whose AP50 moved most."""
    told = []
    for kind in ("size", "class"):
        moved = [part for part in why.parts if part.kind == kind and not math.isnan(row.delta(part, "ap50").delta)]
        if len(moved) > 1:
            most = max(moved, key=lambda part: abs(row.delta(part, "ap50").delta))
            told.append(f"AP50 of {most.name} {change(MEASURES['ap50'], row.delta(most, 'ap50'))}")
    return [f"most where: {', '.join(told)}"] if told else []


def _operator(row: WhyRow) -> list[str]:
    better = row.value(ALL, "refined_better")
    if not better.n:
        return []
    coarse, refined = row.value(ALL, "coarse_iou").mean, row.value(ALL, "refined_iou").mean
    return [
        f"refined boxes are better than coarse ones at {100 * better.mean:.0f} % of the positive locations (IoU {coarse:.3f} to {refined:.3f})"
    ]
