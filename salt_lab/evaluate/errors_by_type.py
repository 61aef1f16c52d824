"""Errors by type: what kind of mistake costs how much AP.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, from the paper's definitions, with
t_f = 0.5 and t_b = 0.1. Where the paper leaves a choice it is made as its authors' program tidecv 1.0.1 makes it, so that numbers compare: a wrong
detection is of the first kind that fits in the order Loc, Cls, Dupe, Bkg, Both; an object that is found already keeps its detection, and the
errors on it are removed; of several Cls and Loc errors on one unfound object the best-scored is put right and the others are removed.

Letters: C categories, D detections, G objects, F kinds that are fixed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from salt_lab.evaluate.accumulate import RECALLS
from salt_lab.evaluate.overlaps import FLOOR, Overlaps, assign, best_pairs, nearest, size_index

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

#: IoU from which a detection is on an object (t_f), and up to which it is on background (t_b).
FOREGROUND, BACKGROUND = 0.5, FLOOR
KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Missed")
RIGHT, IGNORED, CLS, LOC, BOTH, DUPE, BKG = -2, -1, 0, 1, 2, 3, 4


class ErrorsByType(NamedTuple):
    """AP points at IoU 0.5 that are gained when all errors of one kind are put right, each kind by itself; NaN for a class without objects.

    The kinds do not add up to 100 - AP50: putting two right together gains more than both alone.
    """

    ap50: float  #: percent, as it is
    Cls: float  #: right place, wrong class: IoU >= 0.5 with an object of another class
    Loc: float  #: right class, wrong place: IoU 0.1 to 0.5 with an object of its class
    Both: float  #: IoU 0.1 to 0.5 with an object of another class only
    Dupe: float  #: IoU >= 0.5 with an object of its class that a better-scored detection has found
    Bkg: float  #: IoU <= 0.1 with every object
    Missed: float  #: objects not found and not the object of a Cls or Loc error
    FP: float  #: all false positives removed
    FN: float  #: all objects not found left out of the count


class ErrorCounts(NamedTuple):
    """How many errors of each kind; detections are counted under the class that they say, missed objects under their own."""

    Cls: int
    Loc: int
    Both: int
    Dupe: int
    Bkg: int
    Missed: int


class Typed(NamedTuple):
    """What each detection is, and what would become of it."""

    kind_D: NDArray[np.int8]  #: RIGHT, IGNORED, or index into KINDS
    target_D: Indices  #: of Cls and Loc errors: the unfound object that this detection finds when put right; -1 = removed then
    missed_G: Bools
    unfound_G: Bools  #: counted objects that no detection found
    counted_G: Bools  #: objects that are to be found


def type_errors(pairs: Overlaps, size: str = "all") -> Typed:
    """Give every detection its kind.

    Args:
        pairs: of :func:`salt_lab.evaluate.overlaps.overlaps`.
        size: "all" as in the paper; "s", "m", "l" **(ours)**: only objects of that size count, and detections that found none and are of another
            size themselves are ignored, as in COCO's AP.
    """
    found = assign(pairs, size, FOREGROUND)
    counted_G = ~pairs.obj_ignored_AG[size_index(size)]
    unfound_G = counted_G.copy()
    unfound_G[found.object_D[found.object_D >= 0]] = False
    same = nearest(pairs)
    same_P = pairs.obj_category_G[pairs.pair_obj_P] == pairs.det_category_D[pairs.pair_det_P]
    other = best_pairs(pairs, ~same_P & ~pairs.obj_crowd_G[pairs.pair_obj_P])
    loc_D = (same.iou_D >= BACKGROUND) & (same.iou_D < FOREGROUND)
    wrong = [(loc_D, LOC), (other.iou_D >= FOREGROUND, CLS), (same.iou_D >= FOREGROUND, DUPE), (other.iou_D <= BACKGROUND, BKG)]
    kind_D = np.select(
        [found.object_D >= 0, found.ignored_D, *(at for at, _ in wrong)], [RIGHT, IGNORED, *(kind for _, kind in wrong)], BOTH
    )
    on_D = np.where(kind_D == LOC, same.object_D, np.where(kind_D == CLS, other.object_D, -1))
    on_D = np.where(np.isin(on_D, np.flatnonzero(unfound_G)), on_D, -1)
    target_D, missed_G = _best_of_each(on_D, pairs.det_score_D), unfound_G.copy()
    missed_G[on_D[on_D >= 0]] = False
    return Typed(kind_D.astype(np.int8), target_D, missed_G, unfound_G, counted_G)


def _best_of_each(on_D: Indices, score_D: Floats) -> Indices:
    """Of the detections on one object only the best-scored keeps it; of equal scores the first."""
    at_E = np.flatnonzero(on_D >= 0)
    at_E = at_E[np.lexsort((-score_D[at_E], on_D[at_E]))]
    first_E = np.diff(on_D[at_E], prepend=-1) != 0
    target_D = np.full(len(on_D), -1, np.int64)
    target_D[at_E[first_E]] = on_D[at_E[first_E]]
    return target_D


def errors_by_type(pairs: Overlaps, size: str = "all") -> dict[int, ErrorsByType]:
    """What each kind of error costs each category (by its id). Arguments as in :func:`type_errors`."""
    typed = type_errors(pairs, size)
    before_C = average_precision(pairs, typed)
    gains = [average_precision(pairs, typed, (kind,)) - before_C for kind in (*KINDS, "FP", "FN")]
    rows = np.stack([before_C, *gains], axis=1).tolist()
    return {number: ErrorsByType(*row) for number, row in zip(pairs.category_ids_C.tolist(), rows, strict=True)}


def error_counts(pairs: Overlaps, size: str = "all") -> dict[int, ErrorCounts]:
    """How many errors of each kind each category (by its id) has. Arguments as in :func:`type_errors`."""
    typed, categories = type_errors(pairs, size), len(pairs.category_ids_C)
    columns = [np.bincount(pairs.det_category_D[typed.kind_D == kind], minlength=categories) for kind in range(len(KINDS) - 1)]
    columns.append(np.bincount(pairs.obj_category_G[typed.missed_G], minlength=categories))
    rows = np.stack(columns, axis=1).tolist()
    return {number: ErrorCounts(*row) for number, row in zip(pairs.category_ids_C.tolist(), rows, strict=True)}


def average_precision(pairs: Overlaps, typed: Typed, fixed: Collection[str] = ()) -> Floats:
    """AP at IoU 0.5 of each category, percent, after errors are put right.

    Args:
        fixed: any of KINDS, "FP" (all wrong detections are removed) and "FN" (objects that were not found do not count).

    Returns:
        (C,). NaN for a class without objects. Where putting right leaves a class nothing to find: 100, or 0 if false alarms are left **(ours)**.
    """
    kept_D, right_D, category_D = typed.kind_D != IGNORED, typed.kind_D == RIGHT, pairs.det_category_D
    for kind in (CLS, LOC, BOTH, DUPE, BKG):
        if KINDS[kind] in fixed:
            at_D = typed.kind_D == kind
            kept_D, right_D = kept_D & ~(at_D & (typed.target_D < 0)), right_D | (at_D & (typed.target_D >= 0))
    if "Cls" in fixed:
        at_E = np.flatnonzero((typed.kind_D == CLS) & (typed.target_D >= 0))
        category_D = category_D.copy()
        category_D[at_E] = pairs.obj_category_G[typed.target_D[at_E]]
    kept_D = kept_D & right_D if "FP" in fixed else kept_D
    left_G = typed.counted_G & ~(typed.unfound_G if "FN" in fixed else typed.missed_G if "Missed" in fixed else np.False_)
    at_K = np.flatnonzero(kept_D)
    if "Cls" in fixed:
        at_K = at_K[np.lexsort((-pairs.det_score_D[at_K], category_D[at_K]))]
    categories = len(pairs.category_ids_C)
    before_C, left_C = (np.bincount(pairs.obj_category_G[at_G], minlength=categories) for at_G in (typed.counted_G, left_G))
    bounds_C = np.searchsorted(category_D[at_K], np.arange(categories + 1))
    curves = [right_D[at_K[bounds_C[c] : bounds_C[c + 1]]] for c in range(categories)]
    ap_C = [_area(right_K, int(left)) if before else np.nan for right_K, left, before in zip(curves, left_C, before_C, strict=True)]
    return 100 * np.array(ap_C, np.float64)


def _area(right_K: Bools, objects: int) -> float:
    """COCO's AP, 0 to 1: mean over 101 recalls of the largest precision at that recall or beyond. ``right_K``: best-scored first."""
    if objects == 0:
        return float(right_K.all())
    tp_K = np.cumsum(right_K)
    precision_K = np.maximum.accumulate((tp_K / np.arange(1, len(tp_K) + 1))[::-1])[::-1]
    at_R = np.searchsorted(tp_K / objects, RECALLS)
    reached_R = at_R < len(tp_K)
    return float(precision_K[at_R[reached_R]].sum() / len(RECALLS))
