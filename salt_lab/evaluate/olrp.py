"""Optimal Localisation Recall Precision (oLRP): one error of boxes, false alarms and misses together, and its three parts.

Oksuz et al., "Localization Recall Precision (LRP): A New Performance Metric for Object Detection", ECCV 2018, and "One Metric to Measure Them
All", TPAMI 2021. Letters: C categories, N detections of one class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from salt_lab.evaluate.overlaps import Overlaps, assign, size_index

Floats = NDArray[np.float64]
#: IoU from which a detection finds an object.
TAU = 0.5


class Olrp(NamedTuple):
    """Percent, 0 to 100, all the lower the better."""

    olrp: float  #: the least LRP error over all score thresholds; NaN for a class without objects
    loc: float  #: at that threshold: mean 1 - IoU of what was found, 0 to 100 (1 - tau); NaN where nothing was
    fp: float  #: false alarms among what was said (1 - precision); NaN where nothing was found
    fn: float  #: objects missed (1 - recall)
    score: float  #: the threshold, 0 to 1, at which the class works best; NaN where nothing was found


def olrp_of_class(score_N: Floats, iou_N: Floats, objects: int, tau: float = TAU) -> Olrp:
    """oLRP of one class.

    For the detections scored ``s`` or higher, LRP(s) = (sum over the found (1 - IoU) / (1 - tau) + FP + FN) / (TP + FP + FN); oLRP is its
    minimum over ``s``. Detections of equal score come and go together.

    Args:
        score_N: scores of the detections that count.
        iou_N: IoU with the object that each found; 0 = a false alarm.
        objects: how many there are to be found.
        tau: 0 <= tau < 1.
    """
    if objects == 0:
        return Olrp(*(float("nan"),) * 5)
    order_N = np.argsort(-score_N, kind="stable")
    score_N, iou_N = score_N[order_N], iou_N[order_N]
    last_S = np.flatnonzero(np.diff(score_N, append=-np.inf))  # the last detection of each score
    tp_S = np.cumsum(iou_N > 0)[last_S]
    if not len(last_S) or tp_S[-1] == 0:
        return Olrp(100.0, float("nan"), float("nan"), 100.0, float("nan"))
    fp_S, fn_S = last_S + 1 - tp_S, objects - tp_S
    apart_S = np.cumsum(np.where(iou_N > 0, 1 - iou_N, 0.0))[last_S]
    lrp_S = (apart_S / (1 - tau) + fp_S + fn_S) / (tp_S + fp_S + fn_S)
    best = int(np.argmin(np.where(tp_S > 0, lrp_S, np.inf)))
    tp, fp = tp_S[best], fp_S[best]
    total, loc, fp_rate, fn_rate = (100 * float(part) for part in (lrp_S[best], apart_S[best] / tp, fp / (tp + fp), fn_S[best] / objects))
    return Olrp(total, loc, fp_rate, fn_rate, float(score_N[last_S[best]]))


def olrp(pairs: Overlaps, size: str = "all", tau: float = TAU) -> dict[int, Olrp]:
    """oLRP of each category by its id.

    Args:
        pairs: of :func:`salt_lab.evaluate.overlaps.overlaps`.
        size: "all", "s", "m" or "l" (COCO's): objects of other sizes are neither to be found nor wrong to find. Crowds never count.
        tau: at least 0.1.
    """
    found = assign(pairs, size, tau)
    objects_C = np.bincount(pairs.obj_category_G[~pairs.obj_ignored_AG[size_index(size)]], minlength=len(pairs.category_ids_C))
    counts_D = ~found.ignored_D
    bounds_C = np.searchsorted(pairs.det_category_D, np.arange(len(objects_C) + 1))
    each = {}
    for c, number in enumerate(pairs.category_ids_C.tolist()):
        at = slice(bounds_C[c], bounds_C[c + 1])
        keep = counts_D[at]
        each[number] = olrp_of_class(pairs.det_score_D[at][keep], found.iou_D[at][keep], int(objects_C[c]), tau)
    return each
