"""Detections that count, in the order in which COCO's evaluator counts them, and the objects that each could be matched to.

Letters: N the caller's detections, D those that count, G objects, P pairs of a detection and an object of its class and image, U groups (a class in
an image) that have objects, E detections in such a group, X anything.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from salt_lab.errors import DataError
from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.ground_truth import GroundTruth

Bools = NDArray[np.bool_]
Indices = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]

#: At most so many detections of an image and category count.
MAX_DETECTIONS = 100
#: Pairs whose IoU is computed at once; few enough to stay in a core's cache.
_PAIRS_AT_ONCE = 100_000


class Kept(NamedTuple):
    """Detections that count, in the order of :class:`~salt_lab.evaluate.matching.Matches`."""

    category_D: Indices
    image_D: Indices
    rank_D: Indices
    index_D: Indices
    by_group_D: Longs  #: their places, ordered by category, image, rank


class Pairs(NamedTuple):
    """Pairs of enough IoU, ordered by category, image, rank of the detection, place of the object in the file."""

    det_P: Longs
    obj_P: Longs
    iou_P: Floats


def best_of_each_image(truth: GroundTruth, found: Detections) -> Kept:
    """The :data:`MAX_DETECTIONS` best of each image and category, of known categories alone; equal scores stay in the caller's order.

    Raises:
        DataError: a detection names an image that ``truth`` does not have.
    """
    images, categories = len(truth.image_ids_I), len(truth.category_ids_C)
    image_N, known_N = _places(truth.image_ids_I, found.image_id_N)
    if not known_N.all():
        row = int(np.argmin(known_N))
        raise DataError(
            f"detection {row}: image_id {found.image_id_N[row]} is not in {truth.name} ({int((~known_N).sum())} of {len(found)} detections "
            "name unknown images). Give the annotations that the detections were made with"
        )
    category_N, known_N = _places(truth.category_ids_C, found.category_id_N)
    order_N = _sorted(np.flatnonzero(known_N), image_N, images)
    order_N = order_N[np.argsort(-np.asarray(found.score_N, np.float64)[order_N], kind="stable")]
    order_N = _sorted(order_N, category_N, categories)
    by_group_N = _sorted(_sorted(np.arange(len(order_N)), image_N[order_N], images), category_N[order_N], categories)
    rank_N = np.empty(len(order_N), np.int32)
    rank_N[by_group_N] = number_in_run((category_N[order_N] * images + image_N[order_N])[by_group_N])
    first_N = rank_N < MAX_DETECTIONS
    index_D, place_N = order_N[first_N], np.cumsum(first_N) - 1
    category_D, image_D, rank_D, row_D = (
        part.astype(np.int32) for part in (category_N[index_D], image_N[index_D], rank_N[first_N], index_D)
    )
    return Kept(category_D, image_D, rank_D, row_D, place_N[by_group_N[first_N[by_group_N]]])


def _places(ids_X: Longs, wanted_N: Longs) -> tuple[Longs, Bools]:
    """Index of each wanted id, and whether it is there at all."""
    if not len(ids_X):
        return np.zeros(len(wanted_N), np.int64), np.zeros(len(wanted_N), np.bool_)
    place_N = np.minimum(np.searchsorted(ids_X, wanted_N), len(ids_X) - 1)
    return place_N, ids_X[place_N] == wanted_N


def _sorted(order_N: Longs, key_N: Longs, bound: int) -> Longs:
    """``order_N`` by key, equal keys as they were. Keys lie under ``bound``; NumPy sorts short integers by their digits, which is much faster."""
    key_X = key_N[order_N].astype(np.uint16 if bound <= 2**16 else np.int64)
    return order_N[np.argsort(key_X, kind="stable")]


def number_in_run(value_X: Longs) -> Longs:
    """Place of each entry in its run of equal values: [7, 7, 2, 2, 2] gives [0, 1, 0, 1, 2]."""
    place_X = np.arange(len(value_X))
    return place_X - np.maximum.accumulate(np.where(np.diff(value_X, prepend=-1) != 0, place_X, 0))


def candidates(truth: GroundTruth, kept: Kept, boxes_D4: Floats, floor: float) -> tuple[Pairs, Floats]:
    """Pairs of an IoU of ``floor`` (above 0) or more, and each detection's largest IoU with an object that is no crowd."""
    images = len(truth.image_ids_I)
    group_G = truth.obj_category_G.astype(np.int64) * images + truth.obj_image_G
    by_group_G = np.argsort(group_G, kind="stable")
    group_U, first_U, objects_U = np.unique(group_G[by_group_G], return_index=True, return_counts=True)
    group_D = (kept.category_D.astype(np.int64) * images + kept.image_D)[kept.by_group_D]
    low_U = np.asarray(np.searchsorted(group_D, group_U), np.int64)
    count_U = np.asarray(np.searchsorted(group_D, group_U, side="right"), np.int64) - low_U
    det_E = kept.by_group_D[_ranges(low_U, count_U)]
    first_E, objects_E = np.repeat(first_U, count_U), np.repeat(objects_U, count_U)
    best_iou_D, found = np.zeros(len(boxes_D4)), [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    columns_D, columns_G = _columns(boxes_D4), _columns(truth.boxes_G4)
    for block_E in _blocks(objects_E):
        det_P = np.repeat(det_E[block_E], objects_E[block_E])
        obj_P = by_group_G[_ranges(first_E[block_E], objects_E[block_E])]
        iou_P = _ious(columns_D[:, det_P], columns_G[:, obj_P], truth.crowd_G[obj_P])
        starts = np.cumsum(objects_E[block_E]) - objects_E[block_E]
        best_iou_D[det_E[block_E]] = np.maximum.reduceat(np.where(truth.crowd_G[obj_P], 0.0, iou_P), starts)
        near_P = iou_P >= floor
        found.append(Pairs(det_P[near_P], obj_P[near_P], iou_P[near_P]))
    return Pairs(*map(np.concatenate, zip(*found, strict=True))), best_iou_D


def _ranges(first_X: Longs, count_X: Longs) -> Longs:
    """first, first + 1, ... (count numbers) of each, one after another."""
    before_X = np.cumsum(count_X) - count_X
    return np.arange(count_X.sum()) + np.repeat(first_X - before_X, count_X)


def _blocks(count_E: Longs) -> list[slice]:
    """Portions of about _PAIRS_AT_ONCE pairs."""
    edges = [0, *(np.flatnonzero(np.diff(np.cumsum(count_E) // _PAIRS_AT_ONCE)) + 1).tolist(), len(count_E)]
    return [slice(low, high) for low, high in pairwise(edges) if high > low]


def _columns(boxes_X4: Floats) -> Floats:
    """5 x X: left, top, right, bottom, area."""
    x_X, y_X, width_X, height_X = np.ascontiguousarray(boxes_X4.T)
    with np.errstate(all="ignore"):
        return np.stack([x_X, y_X, width_X + x_X, height_X + y_X, width_X * height_X])


def _ious(box_5P: Floats, object_5P: Floats, crowd_P: Bools) -> Floats:
    """Intersection over union, over the detection's area alone with a crowd; operation by operation as maskApi.c computes it."""
    with np.errstate(all="ignore"):
        width_P = np.fmin(box_5P[2], object_5P[2]) - np.fmax(box_5P[0], object_5P[0])
        height_P = np.fmin(box_5P[3], object_5P[3]) - np.fmax(box_5P[1], object_5P[1])
        both_P = width_P * height_P
        iou_P = both_P / np.where(crowd_P, box_5P[4], box_5P[4] + object_5P[4] - both_P)
        return np.where((width_P > 0) & (height_P > 0) & np.isfinite(iou_P), iou_P, 0.0)
