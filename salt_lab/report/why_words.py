"""What the measures say, in sentences: what changed against the baseline, which errors carry it, where, and what the operator does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from salt_lab.evaluate.errors_by_type import ErrorsByType
from salt_lab.report.why_classes import fewest, seeds_left_out
from salt_lab.report.why_measures import ALL, Part
from salt_lab.report.why_sections import SECTIONS, Measure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from salt_lab.evaluate.seeds import SeedDifference
    from salt_lab.report.why import Why, WhyRow
    from salt_lab.report.why_sections import Section

MEASURES = {measure.key: measure for section in SECTIONS for measure in section.measures}
#: Kinds of error that are compared with each other; FP and FN are sums over kinds.
_KINDS = tuple(f"error_{kind}" for kind in ErrorsByType._fields[1:-2])
#: What the marks mean, where any stands in a table.
MARKS = (
    "(2): over only so many seeds, as the others have no number. [2/3]: in one of the seeds, or more, the mean is over only 2 of the 3 classes for "
    "which any run has a number; there a cell and its baseline's may be over different classes, their delta is not."
)
#: AP50 points below which a change is not told.
_WORTH = 0.1
#: From here on it is said that the coarse box is stuck **(ours)**: sides at zero, and how much it varies beside the objects. Untaught by SDR
#: it varies 0.9 times as much on blood cells.
_STUCK_SIDES, _STUCK_SPREAD = 0.5, 0.6


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


def value_mark(why: Why, row: WhyRow, part: Part, measure: str) -> str:
    """What is missing behind a cell's number: ``" (2)"`` seeds only, ``" [2/3]"`` classes only in one of them; "" where nothing is."""
    runs = row.classes.get(part, {}).get(measure, {})
    return _mark(row.value(part, measure).n, why.seeds, fewest(runs), len(why.known(part, measure)))


def delta_mark(why: Why, row: WhyRow, part: Part, measure: str) -> str:
    """The same of a difference; ``" (unpaired)"`` where the arms have no two seeds in common."""
    found = row.delta(part, measure)
    if math.isnan(found.delta):
        return ""
    return f"{' (unpaired)' if found.method == 'welch' else ''}{_mark(*_behind_delta(why, row, part, measure))}"


def _behind_delta(why: Why, row: WhyRow, part: Part, measure: str) -> tuple[int, int, int, int]:
    """Seeds of how many, classes of how many; an unpaired difference lacks no seed."""
    seeds = row.delta(part, measure).n or why.seeds
    return seeds, why.seeds, row.delta_classes.get(part, {}).get(measure, 0), len(why.known(part, measure))


def _in_words(seeds: int, of_seeds: int, classes: int, of_classes: int) -> str:
    few = [f"{seeds} of {of_seeds} seeds"] if 0 < seeds < of_seeds else []
    few += [f"a seed with {classes} of {of_classes} classes"] if 0 < classes < of_classes else []
    return f" [{', '.join(few)}]" if few else ""


def legend(why: Why, section: Section, parts: Iterable[Part]) -> tuple[str, ...]:
    """What the marks in a section's table mean and which seeds are missing, a line each; nothing where there is no mark."""
    marked = any(
        mark(why, row, part, one.key) for part in parts for row in why.rows for one in section.measures for mark in (value_mark, delta_mark)
    )
    return (MARKS, *(f"{line}." for line in seeds_left_out(why))) if marked else ()


def _mark(seeds: int, of_seeds: int, classes: int, of_classes: int) -> str:
    return f"{f' ({seeds})' if 0 < seeds < of_seeds else ''}{f' [{classes}/{of_classes}]' if 0 < classes < of_classes else ''}"


def sentences(why: Why) -> tuple[str, ...]:
    """One line for each cell that has a baseline and measures in common with it."""
    names = {row.key: row.name for row in why.rows}
    compared = [row for row in why.rows if row.baseline in names and not math.isnan(row.delta(ALL, "ap50").delta)]
    return tuple(f"{row.name} against {names[str(row.baseline)]}: {_changes(why, row)}" for row in compared)


def _changes(why: Why, row: WhyRow) -> str:
    of_olrp = ", ".join(f"{MEASURES[key].title} {_of(why, row, key)}" for key in ("olrp_loc", "olrp_fp", "olrp_fn"))
    parts = [f"AP50 {_of(why, row, 'ap50')}, oLRP {_of(why, row, 'olrp')} ({of_olrp})"]
    worse = sorted((key for key in _KINDS if row.delta(ALL, key).delta >= _WORTH), key=lambda key: -row.delta(ALL, key).delta)
    less = sorted((key for key in _KINDS if row.delta(ALL, key).delta <= -_WORTH), key=lambda key: row.delta(ALL, key).delta)
    parts += [f"errors that cost more: {_listed(why, row, worse)}"] if worse else []
    parts += [f"that cost less: {_listed(why, row, less)}"] if less else []
    parts.append(
        f"rank correlation of score and IoU {_of(why, row, 'detections_spearman')}, IoU of the best-located detection "
        f"{_of(why, row, 'detections_best_iou')}, IoU lost by trusting the score {_of(why, row, 'detections_gap')}"
    )
    return "; ".join([*parts, *_where(why, row), *_operator(why, row)]) + "."


def _listed(why: Why, row: WhyRow, keys: list[str]) -> str:
    return ", ".join(f"{MEASURES[key].title} {_of(why, row, key)}" for key in keys)


def _of(why: Why, row: WhyRow, key: str, part: Part = ALL) -> str:
    return change(MEASURES[key], row.delta(part, key)) + _in_words(*_behind_delta(why, row, part, key))


def _where(why: Why, row: WhyRow) -> list[str]:
    """The size and the class whose AP50 moved most."""
    told = []
    for kind in ("size", "class"):
        moved = [part for part in why.parts if part.kind == kind and not math.isnan(row.delta(part, "ap50").delta)]
        if len(moved) > 1:
            most = max(moved, key=lambda part: abs(row.delta(part, "ap50").delta))
            told.append(f"AP50 of {most.name} {_of(why, row, 'ap50', most)}")
    return [f"most where: {', '.join(told)}"] if told else []


def _operator(why: Why, row: WhyRow) -> list[str]:
    better = row.value(ALL, "refined_better")
    if not better.n:
        return []
    coarse, refined = row.value(ALL, "coarse_iou").mean, row.value(ALL, "refined_iou").mean
    spread, at_zero = row.value(ALL, "coarse_spread").mean, row.value(ALL, "coarse_at_zero").mean
    stuck = f", {at_zero:.1f} of whose four sides are at zero and learn nothing," if at_zero >= _STUCK_SIDES else ""
    if stuck or spread < _STUCK_SPREAD:
        stuck = f"; the coarse box{stuck} varies {spread:.2f} times as much as the objects do"
    return [
        f"refined boxes are better than coarse ones at {100 * better.mean:.0f} % of all positive locations, where the mean IoU goes from "
        f"{coarse:.3f} to {refined:.3f}{value_mark(why, row, ALL, 'refined_better')}{stuck}"
    ]
