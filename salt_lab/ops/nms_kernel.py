"""The loops behind :mod:`salt_lab.ops.nms`, compiled by numba. Importing this file imports numba (once a process, a few tenths of a second).

Legend: N boxes (x1, y1, x2, y2); order_N: their rows from the best score down; a *place* counts along that order. Arithmetic is in the boxes'
own precision and in mmcv's order of operations, without contraction, so that ties at the threshold fall the same way.

The inner loop of :func:`owners` has no branch and looks at dropped boxes, too: then the compiler takes 8 pairs at once (AVX), which mmcv's loop
over the living does not allow. Unsigned indices are a part of it: signed ones could wrap around, and numba's check for that keeps it from doing so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from salt_lab.ops.jit import compiled


@compiled()
def owners(boxes_N4: Any, order_N: Any, iou_threshold: float, offset: int, inclusive: bool) -> Any:
    """Greedy suppression: for each place the place of the box that drops it, its own where it is kept; ``(N,)`` int32.

    Args:
        boxes_N4: float32 or float64, contiguous.
        order_N: int64, a permutation of the rows.
        iou_threshold: rounded to the boxes' precision.
        offset: 1 if a width is ``x2 - x1 + 1``, else 0.
        inclusive: an IoU of exactly the threshold drops, too.
    """
    count, real = len(order_N), boxes_N4.dtype.type
    threshold, plus, zero = real(iou_threshold), real(offset), real(0)
    x1, y1, x2, y2, area = np.empty((5, count), boxes_N4.dtype)
    for place in range(count):
        box = boxes_N4[order_N[place]]
        x1[place], y1[place], x2[place], y2[place] = box[0], box[1], box[2], box[3]
        area[place] = (box[2] - box[0] + plus) * (box[3] - box[1] + plus)
    owner = np.full(count, -1, np.int32)
    for one in range(count):
        if owner[one] >= 0:
            continue
        owner[one] = one
        left, top, right, bottom, size = x1[one], y1[one], x2[one], y2[one], area[one]
        for other in range(np.uint64(one + 1), np.uint64(count)):
            width = (right if right < x2[other] else x2[other]) - (left if left > x1[other] else x1[other]) + plus
            height = (bottom if bottom < y2[other] else y2[other]) - (top if top > y1[other] else y1[other]) + plus
            inter = (width if width > zero else zero) * (height if height > zero else zero)
            iou = inter / (size + area[other] - inter)  # 0 / 0 is NaN, which no comparison holds for
            over = (iou > threshold) | (inclusive & (iou == threshold))
            owner[other] = np.int32(one) if over & (owner[other] < 0) else owner[other]
    return owner


@compiled()
def soften(table_6N: Any, inds_N: Any, iou_threshold: float, sigma: float, min_score: float, method: int, offset: int) -> int:
    """Soft-NMS in place; returns how many boxes are left, which then are the first columns, in the order of selection.

    Args:
        table_6N: x1, y1, x2, y2, area, score of each box; float32 or float64, contiguous.
        inds_N: int64, moved along with the columns.
        iou_threshold, sigma, min_score: rounded to the boxes' precision.
        method: 0 naive, 1 linear, 2 Gaussian.
        offset: as for :func:`owners`.
    """
    score_N, real = table_6N[5], table_6N.dtype.type
    weakest, done, count = real(min_score), 0, len(inds_N)
    while done < count:
        best, highest = done, score_N[done]
        for place in range(done + 1, count):
            if score_N[place] > highest:
                best, highest = place, score_N[place]
        for row in range(6):
            table_6N[row, done], table_6N[row, best] = table_6N[row, best], table_6N[row, done]
        inds_N[done], inds_N[best] = inds_N[best], inds_N[done]
        _decay(table_6N, done, count, real(iou_threshold), real(sigma), method, real(offset))
        done += 1
        place = done
        while place < count:  # a weak box gives its place to the last one, which may be weak as well
            if score_N[place] < weakest:
                count -= 1
                for row in range(6):
                    table_6N[row, place] = table_6N[row, count]
                inds_N[place] = inds_N[count]
            else:
                place += 1
    return count


@compiled()
def _decay(table_6N: Any, best: int, count: int, threshold: Any, sigma: Any, method: int, plus: Any) -> None:
    """Lower the scores behind ``best``. A NaN overlap (two boxes without area) leaves the score alone."""
    x1, y1, x2, y2, area, score = table_6N
    zero, one = table_6N.dtype.type(0), table_6N.dtype.type(1)
    left, top, right, bottom, size = x1[best], y1[best], x2[best], y2[best], area[best]
    for other in range(best + 1, count):
        width = min(right, x2[other]) - max(left, x1[other]) + plus
        height = min(bottom, y2[other]) - max(top, y1[other]) + plus
        inter = max(width, zero) * max(height, zero)
        iou = inter / (size + area[other] - inter)
        if method == 2:
            score[other] *= np.exp(-(iou * iou) / sigma) if iou == iou else one
        elif iou >= threshold:
            score[other] *= one - iou if method == 1 else zero
