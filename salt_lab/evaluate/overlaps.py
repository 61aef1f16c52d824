"""Which detections overlap which objects, of any class: what misalignment and errors by type are measured on.

Letters: I images, C categories, D detections, G objects, A areas, P pairs of a detection and an object of its image. Detections stand in the order of
:class:`~salt_lab.evaluate.matching.Matches`: by category, then score from high to low, at most 100 of an image and class. Boxes are x, y, width,
height in pixels of the original picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.ground_truth import GroundTruth
from salt_lab.evaluate.matching import AREAS, Matches

Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Least IoU of a pair that is kept: below it a detection has nothing to do with an object (TIDE's t_b).
FLOOR = 0.1
#: Pairs whose IoU is computed at once; bounds memory (about 100 MB).
_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Overlaps:
    """One run on one ground truth. Classes are indices into ``category_ids_C``."""

    category_ids_C: NDArray[np.int64]
    det_category_D: Indices
    det_score_D: Floats
    det_area_D: Floats  #: square pixels
    obj_category_G: Indices
    obj_area_G: Floats  #: square pixels, as annotated
    obj_crowd_G: Bools
    obj_ignored_AG: Bools  #: crowd, or outside the area range
    pair_det_P: Indices  #: ascending
    pair_obj_P: Indices
    pair_iou_P: Floats  #: FLOOR to 1; with a crowd: the share of the detection inside it


class Found(NamedTuple):
    """What the detections found at one IoU threshold, each object at most once."""

    object_D: Indices  #: counted object, -1 = none
    iou_D: Floats  #: IoU with it, 0 = none
    ignored_D: Bools  #: neither right nor wrong


class Nearest(NamedTuple):
    """Of each detection the object of its class with the largest IoU, crowds left out."""

    object_D: Indices  #: -1 = none of IoU >= FLOOR
    iou_D: Floats


def overlaps(matches: Matches, truth: GroundTruth, detections: Detections) -> Overlaps:
    """Pair each detection of ``matches`` with the objects that it overlaps.

    Args:
        matches: of ``truth`` and ``detections``.
    """
    boxes_D4 = np.asarray(detections.boxes_N4, np.float64)[matches.det_index_D]
    found = list(_pairs(boxes_D4, matches.det_image_D, truth))
    det_P, obj_P, iou_P = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Overlaps(
        matches.category_ids_C,
        matches.det_category_D.astype(np.int64),
        matches.det_score_D,
        boxes_D4[:, 2] * boxes_D4[:, 3],
        matches.obj_category_G.astype(np.int64),
        matches.obj_area_G,
        matches.obj_crowd_G,
        matches.obj_ignored_AG,
        det_P,
        obj_P,
        iou_P,
    )


def _pairs(boxes_D4: Floats, image_D: NDArray[np.int32], truth: GroundTruth) -> Iterator[tuple[Indices, Indices, Floats]]:
    """Pairs of IoU >= FLOOR, in portions, ordered by detection."""
    yield np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    by_image_G = np.argsort(truth.obj_image_G, kind="stable")
    first_I = np.searchsorted(truth.obj_image_G[by_image_G], np.arange(len(truth.image_ids_I) + 1))
    count_D = np.diff(first_I)[image_D]
    block_D = np.cumsum(count_D) // _PAIRS_AT_ONCE
    for few_E in np.split(np.arange(len(image_D)), np.flatnonzero(np.diff(block_D)) + 1):
        many_E = count_D[few_E]
        det_P = np.repeat(few_E, many_E)
        place_P = np.arange(len(det_P)) - np.repeat(np.cumsum(many_E) - many_E, many_E)
        obj_P = by_image_G[first_I[image_D[det_P]] + place_P]
        iou_P = _ious(boxes_D4[det_P], truth.boxes_G4[obj_P], truth.crowd_G[obj_P])
        near_P = iou_P >= FLOOR
        yield det_P[near_P], obj_P[near_P], iou_P[near_P]


def _ious(boxes_P4: Floats, objects_P4: Floats, crowd_P: Bools) -> Floats:
    """Intersection over union; over the detection's area alone with a crowd. 0 where an area is 0."""
    low_P2 = np.maximum(boxes_P4[:, :2], objects_P4[:, :2])
    high_P2 = np.minimum(boxes_P4[:, 2:] + boxes_P4[:, :2], objects_P4[:, 2:] + objects_P4[:, :2])
    width_P, height_P = (high_P2 - low_P2).T
    both_P = width_P * height_P
    area_P = boxes_P4[:, 2] * boxes_P4[:, 3]
    union_P = np.where(crowd_P, area_P, area_P + objects_P4[:, 2] * objects_P4[:, 3] - both_P)
    overlap_P = (width_P > 0) & (height_P > 0) & (union_P > 0)
    return np.divide(both_P, union_P, out=np.zeros(len(both_P)), where=overlap_P)


def size_index(size: str) -> int:
    """Row of a size ("all", "s", "m", "l") in arrays over A. Raises KeyError for any other."""
    return {name: row for row, name in enumerate(AREAS)}[size]


def of_size(area_X: Floats, size: str) -> Bools:
    """Which areas (square pixels) are of this size; bounds count on both sides, as in COCO."""
    low, high = AREAS[size]
    return (area_X >= low) & (area_X <= high)


def assign(pairs: Overlaps, size: str = "all", threshold: float = 0.5) -> Found:
    """Give each object of ``size`` to at most one detection, by the rules of COCO's evaluator (:mod:`salt_lab.evaluate.matching`).

    Best-scored detections first, each takes the free object of its class with the highest IoU >= ``threshold``, counted objects before ignored
    ones. What found an ignored object, or nothing while its own area is not of this size, is ignored.
    """
    ignored_G = pairs.obj_ignored_AG[size_index(size)]
    same_P = pairs.obj_category_G[pairs.pair_obj_P] == pairs.det_category_D[pairs.pair_det_P]
    at_P = np.flatnonzero(same_P & (pairs.pair_iou_P >= threshold))
    order = np.lexsort((-pairs.pair_obj_P[at_P], -pairs.pair_iou_P[at_P], ignored_G[pairs.pair_obj_P[at_P]], pairs.pair_det_P[at_P]))
    at_P = at_P[order]
    object_D, iou_D = np.full(len(pairs.det_score_D), -1, np.int64), np.zeros(len(pairs.det_score_D))
    free, crowd, last = np.ones(len(ignored_G), bool).tolist(), pairs.obj_crowd_G.tolist(), -1
    for det, obj, iou in zip(
        pairs.pair_det_P[at_P].tolist(), pairs.pair_obj_P[at_P].tolist(), pairs.pair_iou_P[at_P].tolist(), strict=True
    ):
        if det != last and (free[obj] or crowd[obj]):
            object_D[det], iou_D[det], free[obj], last = obj, iou, False, det
    got_D = object_D >= 0
    counted_D = got_D & ~ignored_G[object_D] if len(ignored_G) else got_D
    ignored_D = (got_D & ~counted_D) | (~got_D & ~of_size(pairs.det_area_D, size))
    return Found(np.where(counted_D, object_D, -1), np.where(counted_D, iou_D, 0.0), ignored_D)


def best_pairs(pairs: Overlaps, chosen_P: Bools) -> Nearest:
    """Of each detection the pair of largest IoU among ``chosen_P``; of equal ones the object that comes first."""
    at_P = np.flatnonzero(chosen_P)
    at_P = at_P[np.lexsort((-pairs.pair_obj_P[at_P], pairs.pair_iou_P[at_P], pairs.pair_det_P[at_P]))]
    object_D, iou_D = np.full(len(pairs.det_score_D), -1, np.int64), np.zeros(len(pairs.det_score_D))
    object_D[pairs.pair_det_P[at_P]] = pairs.pair_obj_P[at_P]  # the last of equal indices stays
    iou_D[pairs.pair_det_P[at_P]] = pairs.pair_iou_P[at_P]
    return Nearest(object_D, iou_D)


def nearest(pairs: Overlaps) -> Nearest:
    """Of each detection the object of its class that it overlaps most."""
    same_P = pairs.obj_category_G[pairs.pair_obj_P] == pairs.det_category_D[pairs.pair_det_P]
    return best_pairs(pairs, same_P & ~pairs.obj_crowd_G[pairs.pair_obj_P])
