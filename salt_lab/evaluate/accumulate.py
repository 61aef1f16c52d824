"""From matches to COCO's twelve numbers, whole or by class, each image counted as often as one says.

Letters: I images, C categories, D detections, G objects, A areas (all, s, m, l), T IoU thresholds, R recalls 0, 0.01, ... 1, E found objects
(true positives of one area, threshold and category, ordered so, then by score), S runs of E with the same area, threshold and category.

Precision only rises where an object is found, so the largest precision at a recall or beyond it stands at a found object: the curve is walked over
these alone. AP is the mean of that precision over R (pycocotools 2.0, accumulate), recall that of all detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from salt_lab.evaluate.matching import Matches

Floats = NDArray[np.float64]
RECALLS: Floats = np.linspace(0.0, 1.0, 101, dtype=np.float64)


class CocoNumbers(NamedTuple):
    """Average precision and recall in percent, 0 to 100; NaN where there is nothing to measure (no object of that size)."""

    AP: float  #: over IoU 0.50 to 0.95, all sizes, 100 detections an image
    AP50: float  #: at IoU 0.50
    AP75: float  #: at IoU 0.75
    APs: float  #: objects under 32 x 32 pixels
    APm: float  #: 32 x 32 to 96 x 96
    APl: float  #: larger
    AR1: float  #: average recall, 1 detection an image and class
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float


@dataclass(frozen=True)
class Curves:
    """What the twelve numbers are means of, 0 to 1; NaN where a class has no object of that size."""

    precision_ATC: Floats  #: average precision, 100 detections an image and class
    recall_ATC: Floats  #: recall, 100 detections an image and class
    recall_10_TC: Floats  #: recall, all sizes, 10 detections an image and class
    recall_1_TC: Floats
    objects_AC: NDArray[np.int64]  #: counted objects


def numbers(matches: Matches, weights_I: ArrayLike | None = None) -> CocoNumbers:
    """COCO's twelve numbers.

    Args:
        matches: of :func:`~salt_lab.evaluate.matching.match`.
        weights_I: how often each image counts (whole numbers, 0 or more); None = once. Equal to evaluating a data set in which each image stands so
            often, its copies side by side.
    """
    found = curves(matches, weights_I)
    return _summary(found, slice(None))


def per_class(matches: Matches, weights_I: ArrayLike | None = None) -> dict[int, CocoNumbers]:
    """The twelve numbers of each category by its id; NaN throughout for a category without objects."""
    found = curves(matches, weights_I)
    return {int(number): _summary(found, slice(c, c + 1)) for c, number in enumerate(matches.category_ids_C)}


def curves(matches: Matches, weights_I: ArrayLike | None = None) -> Curves:
    """Average precision and recall by area, IoU threshold and category; arguments as in :func:`numbers`."""
    times_I = _times(matches, weights_I)
    order_D = None if times_I is None else _copies(matches, times_I)
    parts = (matches.det_category_D, matches.det_rank_D, matches.det_tp_ATD, matches.det_ignored_ATD)
    category_D, rank_D, tp_ATD, ignored_ATD = parts if order_D is None else (part[..., order_D] for part in parts)
    objects_AC = _count_objects(matches, times_I)
    shape = (len(tp_ATD), len(matches.iou_thresholds_T), len(matches.category_ids_C))
    precision_ATC, found_ATC = np.full(shape, np.nan), np.zeros((3, *shape))
    edge_C = np.searchsorted(category_D, np.arange(shape[2] + 1))
    for c, part in enumerate(slice(*edges) for edges in pairwise(edge_C)):
        for a in np.flatnonzero(objects_AC[:, c]):
            needed_R = _needed(int(objects_AC[a, c]))
            counted_TD = np.cumsum(~ignored_ATD[a, :, part], axis=1, dtype=np.int32)
            for t, tp_D in enumerate(tp_ATD[a, :, part]):
                place_E = np.flatnonzero(tp_D)
                precision_ATC[a, t, c] = _area_under(counted_TD[t, place_E], needed_R)
                found_ATC[:, a, t, c] = [(rank_D[part][place_E] < most).sum() for most in (1, 10, 100)]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall_1_ATC, recall_10_ATC, recall_ATC = found_ATC / objects_AC[:, None]
    return Curves(precision_ATC, recall_ATC, recall_10_ATC[0], recall_1_ATC[0], objects_AC)


def _times(matches: Matches, weights_I: ArrayLike | None) -> NDArray[np.int64] | None:
    if weights_I is None:
        return None
    times_I = np.asarray(weights_I)
    if times_I.shape != matches.image_ids_I.shape or (times_I < 0).any() or (times_I != np.floor(times_I)).any():
        raise ValueError(
            f"weights_I: {len(matches.image_ids_I)} whole numbers of 0 or more wanted, one for each image; got {times_I!r:.80}"
        )
    return times_I.astype(np.int64)


def _copies(matches: Matches, times_I: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each detection as often as its image counts, in pycocotools' order.

    Of equal scores all detections of the first copy of an image come before those of the second.
    """
    times_D = times_I[matches.det_image_D]
    parts = (matches.det_category_D, matches.det_score_D, matches.det_image_D)
    tie_D = np.zeros(len(times_D), np.int64)
    tie_D[1:] = np.cumsum(np.any([part[1:] != part[:-1] for part in parts], axis=0))
    order_D = np.repeat(np.arange(len(times_D)), times_D)
    copy_D = np.arange(len(order_D)) - np.repeat(np.cumsum(times_D) - times_D, times_D)
    return order_D[np.lexsort((copy_D, tie_D[order_D]))]


def _count_objects(matches: Matches, times_I: NDArray[np.int64] | None) -> NDArray[np.int64]:
    counted_AG = ~matches.obj_ignored_AG
    weight_AG = counted_AG.astype(np.int64) if times_I is None else counted_AG * times_I[matches.obj_image_G]
    count = [np.bincount(matches.obj_category_G, weight_G, len(matches.category_ids_C)) for weight_G in weight_AG]
    return np.array(count).astype(np.int64).reshape(len(weight_AG), -1)


def _needed(objects: int) -> NDArray[np.int64]:
    """How many objects must be found before the one that reaches each recall."""
    return np.searchsorted(np.arange(1, objects + 1) / objects, RECALLS, side="left")


def _area_under(counted_E: NDArray[np.int32], needed_R: NDArray[np.int64]) -> float:
    """Mean over the recalls of the largest precision there or beyond.

    Args:
        counted_E: right and wrong detections up to and with each found object.
        needed_R: of :func:`_needed`.
    """
    if not len(counted_E):
        return 0.0
    found_E = np.arange(1, len(counted_E) + 1)
    precision_E = found_E / (counted_E + np.spacing(1))
    envelope_E = np.maximum.accumulate(precision_E[::-1])[::-1]
    reached_R = needed_R[needed_R < len(envelope_E)]
    return float(envelope_E[reached_R].sum() / len(needed_R))


def _summary(found: Curves, classes: slice) -> CocoNumbers:
    precision_ATC, recall_ATC = found.precision_ATC[..., classes], found.recall_ATC[..., classes]
    parts = [precision_ATC[0], precision_ATC[0, 0], precision_ATC[0, 5], *precision_ATC[1:]]
    parts += [found.recall_1_TC[:, classes], found.recall_10_TC[:, classes], *recall_ATC]
    return CocoNumbers(*(_mean(part) for part in parts))


def _mean(values_X: Floats) -> float:
    """In percent, of what can be measured."""
    measured_X = values_X[~np.isnan(values_X)]
    return float(measured_X.mean()) * 100 if measured_X.size else float("nan")
