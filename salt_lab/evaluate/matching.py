"""Which detection found which object, by the rules of COCO's evaluator: done once, counted as often as one likes.

Letters: I images, C categories, D detections, G objects, A areas, T IoU thresholds, P pairs of a detection and an object of its class and image.

The rules (pycocotools 2.0): of each image and category the 100 best-scored detections, best first, each take the object of highest IoU that is still
free, counted objects before ignored ones; a crowd may be taken again and again, and its IoU is the share of the detection inside it. Of two
objects of equal IoU the later one in the file is taken, of two detections of equal score the earlier one goes first. A detection that found nothing
counts as wrong unless its own area is outside the range. An object whose annotation id is 0 is never found, as in pycocotools. Where an IoU is no
number (boxes with NaN or infinity) we say 0 **(ours)**; pycocotools says "matched".

Only pairs of IoU 0.5 or more can match and they are few, so the greedy walk is NumPy over all images at once: the first candidate of each image and
class, then the second, ... Nothing is compiled.

Why not a library: hotcoco 1.3.0 and faster-coco-eval 1.8.0 both gave pycocotools' numbers to 1e-12 on 100 awkward data sets of our tests, and
hotcoco is as fast as this. But which detection found what, all that a bootstrap needs, comes out of hotcoco as a Python dict for every image, class
and area (49 s at the size of val2017), so there would be two evaluators where one will do. ``benchmarks/evaluation.py`` measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_lab.evaluate.candidates import Pairs, best_of_each_image, candidates, number_in_run
from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.ground_truth import GroundTruth, load_truth

Bools = NDArray[np.bool_]
Indices = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]

#: 0.50, 0.55, ... 0.95.
IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10, dtype=np.float64)
#: Names and bounds in square pixels, both inclusive.
AREAS = {"all": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}


@dataclass(frozen=True)
class Matches:
    """One run on one ground truth. Arrays are read-only.

    Detections are ordered by category, then as pycocotools orders them: score from high to low, equal scores by image id, then rank. Objects stand in
    the order of :class:`~salt_lab.evaluate.ground_truth.GroundTruth`.
    """

    image_ids_I: NDArray[np.int64]  #: ascending
    category_ids_C: NDArray[np.int64]  #: ascending
    iou_thresholds_T: Floats
    det_category_D: Indices  #: index into category_ids_C
    det_image_D: Indices  #: index into image_ids_I
    det_score_D: Floats
    det_rank_D: Indices  #: 0 = the best of its image and category
    det_index_D: Indices  #: row in the caller's detections
    det_tp_ATD: Bools  #: matched to a counted object
    det_ignored_ATD: Bools  #: matched to an ignored object, or unmatched and outside the area range: neither right nor wrong
    det_object_TD: Indices  #: of the area "all": object that it is matched to, crowds included; -1 = none
    det_iou_D: Floats  #: largest IoU with an object of its class in its image that is no crowd, 0 = none
    obj_category_G: Indices
    obj_image_G: Indices
    obj_ignored_AG: Bools  #: crowd, or outside the area range
    obj_crowd_G: Bools
    obj_area_G: Floats  #: square pixels

    def __post_init__(self) -> None:
        for value in vars(self).values():
            value.setflags(write=False)


def match(truth: GroundTruth | Mapping[str, Any], detections: Detections | Sequence[Mapping[str, Any]]) -> Matches:
    """Match ``detections`` (may be empty) with the objects of ``truth``. Detections of unknown categories are left out, as pycocotools does.

    Raises:
        DataError: a detection names an image that ``truth`` does not have, or lacks a field.
    """
    truth = truth if isinstance(truth, GroundTruth) else load_truth(truth)
    found = detections if isinstance(detections, Detections) else Detections.from_rows(detections)
    kept = best_of_each_image(truth, found)
    boxes_D4 = np.asarray(found.boxes_N4, np.float64)[kept.index_D]
    ignored_AG = truth.crowd_G | _outside(truth.areas_G)
    pairs, best_iou_D = candidates(truth, kept, boxes_D4, float(IOU_THRESHOLDS[0]))
    tp_ATD, ignored_ATD, object_TD = _take(truth, pairs, ignored_AG, _outside(boxes_D4[:, 2] * boxes_D4[:, 3]))
    return Matches(
        truth.image_ids_I,
        truth.category_ids_C,
        IOU_THRESHOLDS.copy(),
        kept.category_D,
        kept.image_D,
        np.asarray(found.score_N, np.float64)[kept.index_D],
        kept.rank_D,
        kept.index_D,
        tp_ATD,
        ignored_ATD,
        object_TD,
        best_iou_D,
        truth.obj_category_G,
        truth.obj_image_G,
        ignored_AG,
        truth.crowd_G,
        truth.areas_G,
    )


def _outside(area_X: Floats) -> Bools:
    """A x X: not within the bounds of each area."""
    return np.stack([(area_X < low) | (area_X > high) for low, high in AREAS.values()])


def _take(truth: GroundTruth, pairs: Pairs, ignored_AG: Bools, outside_AD: Bools) -> tuple[Bools, Bools, Indices]:
    """Right, ignored, object of each detection."""
    tp_ATD = np.zeros((len(AREAS), len(IOU_THRESHOLDS), outside_AD.shape[1]), np.bool_)
    ignored_ATD = np.repeat(outside_AD[:, None], len(IOU_THRESHOLDS), axis=1)
    object_TD = np.full(tp_ATD.shape[1:], -1, np.int32)
    can_be_found_G = truth.annotation_ids_G != 0
    for det_S, obj_SAT, counted_SAT in _rounds(truth, pairs, ignored_AG):
        found_SAT = (obj_SAT >= 0) & can_be_found_G[obj_SAT]
        beside_SAT = outside_AD.T[det_S, :, None] & ~found_SAT | (obj_SAT >= 0) & ~counted_SAT
        tp_ATD[:, :, det_S] = (found_SAT & counted_SAT).transpose(1, 2, 0)
        ignored_ATD[:, :, det_S] = beside_SAT.transpose(1, 2, 0)
        object_TD[:, det_S] = np.where(found_SAT, obj_SAT, -1)[:, 0].T
    return tp_ATD, ignored_ATD, object_TD


def _rounds(truth: GroundTruth, pairs: Pairs, ignored_AG: Bools) -> Iterator[tuple[Longs, Longs, Bools]]:
    """The greedy walk: the first candidates of every image and category choose at once, then the second ones, ...

    S is the candidates of one round, each of another image or category, so no object stands in a round twice.

    Yields:
        det_S; obj_SAT, the object that each took, -1 = none; counted_SAT, whether that one counts.
    """
    order_P, edges = _by_round(truth, pairs)
    taken_GAT = np.zeros((len(truth.crowd_G), len(AREAS), len(IOU_THRESHOLDS)), np.bool_)
    for low, high in pairwise(edges):
        part, count = order_P[low:high], np.int32(high - low)
        obj_P, det_P = pairs.obj_P[part], pairs.det_P[part]
        free_PAT = (pairs.iou_P[part, None, None] >= IOU_THRESHOLDS) & (~taken_GAT[obj_P] | truth.crowd_G[obj_P, None, None])
        wish_PA = np.arange(1, count + 1, dtype=np.int32)[:, None] + count * ~ignored_AG.T[obj_P]  # counted objects before ignored ones
        first_S = np.flatnonzero(np.diff(det_P, prepend=-1))
        wish_PAT = wish_PA[:, :, None] * free_PAT
        best_SAT = np.maximum.reduceat(wish_PAT, first_S, axis=0)
        taken_GAT[obj_P] |= free_PAT & (wish_PAT == np.repeat(best_SAT, np.diff(first_S, append=count), axis=0))
        yield det_P[first_S], np.where(best_SAT > 0, obj_P[(best_SAT - 1) % count], -1), best_SAT > count


def _by_round(truth: GroundTruth, pairs: Pairs) -> tuple[Longs, list[int]]:
    """Pairs by round, detection, and from the least to the most wanted; and where rounds begin and end."""
    group_P = truth.obj_category_G[pairs.obj_P].astype(np.int64) * len(truth.image_ids_I) + truth.obj_image_G[pairs.obj_P]
    first_S = np.flatnonzero(np.diff(pairs.det_P, prepend=-1))
    round_S = number_in_run(group_P[first_S])
    round_P = np.repeat(round_S, np.diff(first_S, append=len(pairs.det_P)))
    order_P = np.lexsort((pairs.iou_P, pairs.det_P, round_P))  # stable: of equal IoUs the later object is wanted more
    return order_P, np.searchsorted(round_P[order_P], np.arange(round_S.max(initial=-1) + 2)).tolist()
