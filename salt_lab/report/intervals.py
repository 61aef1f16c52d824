"""The intervals of a table's deltas, and the words that say what they are."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.compare import Comparison
    from salt_lab.report.results import StudyResults

#: What each method of a :class:`~salt_lab.report.compare.Comparison` is, for a caption.
METHODS = {
    "seeds": "paired t over seeds",
    "seeds, unpaired": "Welch's t over seeds that the arms do not share",
    "seeds and images": "hierarchical bootstrap over seeds and images, at least as wide as the paired t over seeds",
    "images": "paired bootstrap over images of one seed, so without the spread over seeds",
}
_TRIAL = re.compile(r"\b[0-9a-f]{12}\b")
_BOOTSTRAPPED = ("seeds and images", "images")


@dataclass(frozen=True)
class Intervals:
    """``comparisons``: cell key -> the cell against its baseline; from ``resamples`` bootstrap draws that begin with ``seed``."""

    comparisons: Mapping[str, Comparison]
    resamples: int
    seed: int


def find_intervals(results: StudyResults, store: Store | None, *, resamples: int = 1000, seed: int = 0) -> Intervals:
    """Compare every cell with its baseline, AP points, 95 %.

    Args:
        results: the study's records.
        store: where the trials' detections are; None = over seeds alone.
        resamples: bootstrap draws.
        seed: of the draws; the same seed gives the same intervals.
    """
    from salt_lab.report.compare import compare

    return Intervals(compare(results, store, resamples=resamples, seed=seed), resamples, seed)


def intervals_text(found: Intervals | None) -> str:
    """What the interval and the mark behind a delta are, in one or two sentences; "" where a table has none. Begins with a blank."""
    if found is None or not found.comparisons:
        return ""
    counts = Counter(one.method for one in found.comparisons.values())
    used = [name for name in METHODS if counts[name]]
    if not used:
        return f" No delta has an interval: {_why_none(found)}."
    kinds = "; ".join(METHODS[name] + (f" ({counts[name]} of {len(found.comparisons)} deltas)" if len(counts) > 1 else "") for name in used)
    draws = f", {found.resamples} resamples, bootstrap seed {found.seed}" if counts.keys() & set(_BOOTSTRAPPED) else ""
    without = f" {counts['none']} of {len(found.comparisons)} deltas have none." if counts["none"] else ""
    return f" [low, high]: 95 % interval, {kinds}{draws}.{without}{_mark_text(found)}"


def _why_none(found: Intervals) -> str:
    if all(math.isnan(one.delta) for one in found.comparisons.values()):
        return "no seed is finished on both sides yet"
    return "one seed, and nothing was resampled" if not found.resamples else "one seed, and no detections here to resample"


def interval_notes(found: Intervals | None) -> tuple[str, ...]:
    """Why some intervals lack the images or a mark: each reason once, with the number of deltas and the first trial that it is about."""
    if found is None:
        return ()
    reasons: dict[str, list[str]] = {}
    for one in found.comparisons.values():
        if one.note:
            reasons.setdefault(_TRIAL.sub("", one.note), []).append(one.note)
    every = len(found.comparisons)
    return tuple(f"Intervals: {len(notes)} of {every}: {notes[0]}{_and_others(notes)}." for notes in reasons.values())


def _and_others(notes: list[str]) -> str:
    return f"; {len(notes) - 1} more alike" if len(notes) > 1 else ""


def _mark_text(found: Intervals) -> str:
    number = sum(one.method not in ("none", "images") for one in found.comparisons.values())
    if not number:
        return " One seed earns no significance mark."
    family = f", adjusted for {number} comparisons (Holm)" if number > 1 else ""
    return f" * p < 0.05, ** p < 0.01{family}."
