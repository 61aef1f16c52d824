"""Non-maximum suppression: greedy, soft and matching, with the semantics of mmcv's compiled CPU ops.

Legend: N boxes (x1, y1, x2, y2), kept indices as int64. All arithmetic in the boxes' own precision, float32 at least, in mmcv's order of
operations, so that ties at the threshold fall the same way.

Why not OpenCV. ``cv2.dnn.NMSBoxes`` (4.12) was measured against the loop in tests/ops/test_nms.py and does not agree: two boxes without
area count as identical (IoU 1, one is dropped) where mmcv's 0 / 0 drops nothing, and it computes ``1 - (1 - IoU)`` from doubles, so with the
threshold within one float32 step of a pair's IoU a quarter of 15,000 random cases went the other way. Its order of equal scores is ours.
Nor is it needed for speed (1 core, ms, ours / OpenCV): 1000 boxes in one heap 5 / 7, in 80 classes side by side 0.5 / 3.5; 5000: 165 / 144, 4 / 155.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

#: Above this many pairs of boxes that meet in x, the sweep would take more memory and time than going box by box.
MAX_SWEEP_PAIRS = 3_000_000


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Keep the best box, drop every box that overlaps it by more than the threshold, and so on.

    Args:
        boxes: ``(N, 4)``, any floating dtype, any device. N may be 0.
        scores: ``(N,)``. Equal scores keep their order.
        iou_threshold: boxes with IoU **greater** than this are dropped; 0-1. Rounded to the boxes' precision, as mmcv does.
        offset: 1 for boxes whose width is ``x2 - x1 + 1`` (old integer pixels), else 0.

    Returns:
        Kept indices, int64, by descending score, on the boxes' device. A box without area, or with a NaN, neither drops another nor is dropped
        (its IoU is 0 or 0 / 0).
    """
    boxes, scores = boxes.detach(), scores.detach()
    work = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    vendor = torchvision_nms()
    if vendor is not None and offset == 0 and len(work):
        return vendor(work, scores.to(work), _rounded(iou_threshold, work))
    order = torch.sort(scores, descending=True, stable=True).indices
    keep = _greedy(work[order].cpu().numpy(), iou_threshold, offset)
    return order[torch.from_numpy(keep).to(order.device)]


@functools.lru_cache(maxsize=1)
def torchvision_nms() -> Callable[[Tensor, Tensor, float], Tensor] | None:
    """torchvision's compiled NMS, or None where torchvision is absent or does not fit this torch (then it fails on import)."""
    try:
        from torchvision.ops import nms as vendor
    except (ImportError, OSError, RuntimeError):
        return None
    return vendor


def _rounded(threshold: float, like: Tensor) -> float:
    """The threshold as the boxes' precision has it: torchvision compares in double, where float32's 0.6 is greater than 0.6."""
    return float(torch.tensor(threshold, dtype=like.dtype))


def _greedy(boxes_N4: np.ndarray, threshold: float, offset: int) -> np.ndarray:
    """Positions kept of boxes already in descending order of score; the cheaper of two exact ways."""
    edges_5N = with_areas(boxes_N4, offset)
    if threshold < 0:
        return _one_by_one(edges_5N, threshold, offset)
    by_left, ends = _sweep_order(edges_5N, offset)
    pairs = int((ends - np.arange(len(ends)) - 1).sum())
    if pairs > MAX_SWEEP_PAIRS:
        return _one_by_one(edges_5N, threshold, offset)
    return _from_pairs(*_dropping_pairs(edges_5N, by_left, ends, threshold, offset), count=len(ends))


def _one_by_one(edges_5N: np.ndarray, threshold: float, offset: int) -> np.ndarray:
    """One vector operation per kept box over those still alive: best where few boxes survive."""
    alive = np.arange(edges_5N.shape[1])
    keep = []
    while alive.size:
        keep.append(alive[0])
        survives = ~(overlap(edges_5N[:, 0], edges_5N[:, 1:], offset) > edges_5N.dtype.type(threshold))
        alive, edges_5N = alive[1:], edges_5N[:, 1:]
        if not survives.all():
            alive, edges_5N = alive[survives], edges_5N[:, survives]
    return np.asarray(keep, dtype=np.int64)


def _sweep_order(edges_5N: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes by left edge, and for each place in that order the end of the places whose boxes can touch it in x (never one too few)."""
    by_left = np.argsort(edges_5N[0], kind="stable")
    left, right = edges_5N[0, by_left].astype(np.float64), edges_5N[2, by_left].astype(np.float64)
    ends = np.searchsorted(left, np.nextafter(right + offset, np.inf), side="right")
    return by_left, np.maximum(ends, np.arange(len(ends)) + 1)


def _dropping_pairs(
    edges_5N: np.ndarray, by_left: np.ndarray, ends: np.ndarray, threshold: float, offset: int
) -> tuple[np.ndarray, np.ndarray]:
    """``(winner, loser)`` positions of all pairs whose IoU exceeds the threshold; the winner has the better score (lower position)."""
    sorted_5N, found = edges_5N[:, by_left], []
    counts = ends - np.arange(len(ends)) - 1
    for rows in _chunks(counts):
        first = np.repeat(rows, counts[rows])
        starts = np.cumsum(counts[rows]) - counts[rows]
        second = np.arange(len(first)) - np.repeat(starts, counts[rows]) + first + 1
        over = overlap(sorted_5N[:, first], sorted_5N[:, second], offset) > edges_5N.dtype.type(threshold)
        found.append((by_left[first[over]], by_left[second[over]]))
    one, other = (np.concatenate(side) for side in zip(*found, strict=True))
    return np.minimum(one, other), np.maximum(one, other)


def _chunks(counts: np.ndarray, size: int = 1 << 16) -> list[np.ndarray]:
    """Runs of rows that hold about ``size`` pairs each, so that the temporaries stay in cache."""
    places = np.searchsorted(np.cumsum(counts), np.arange(size, int(counts.sum()), size))
    return np.split(np.arange(len(counts)), np.unique(places))


def _from_pairs(winner: np.ndarray, loser: np.ndarray, count: int) -> np.ndarray:
    """Walk the winners in order of score; a winner that is still alive drops its losers."""
    order = np.argsort(winner, kind="stable")
    winner, loser = winner[order], loser[order]
    bounds = [*np.flatnonzero(np.diff(winner, prepend=-1)).tolist(), len(winner)]
    alive = np.ones(count, dtype=bool)
    for start, stop in itertools.pairwise(bounds):
        if alive[winner[start]]:
            alive[loser[start:stop]] = False
    return np.flatnonzero(alive)


@np.errstate(invalid="ignore", over="ignore")
def with_areas(boxes_N4: np.ndarray, offset: int) -> np.ndarray:
    """``(5, N)``: x1, y1, x2, y2, area, each in one run of memory."""
    x1, y1, x2, y2 = boxes_N4.T
    return np.stack((x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)))


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def overlap(one_5: np.ndarray, others_5M: np.ndarray, offset: int) -> np.ndarray:
    """IoU of one box with M others, ``(M,)``, in mmcv's order of operations; 0 / 0 is NaN, which no comparison holds for."""
    x1, y1, x2, y2, area = one_5
    width = np.maximum(np.minimum(x2, others_5M[2]) - np.maximum(x1, others_5M[0]) + offset, 0)
    height = np.maximum(np.minimum(y2, others_5M[3]) - np.maximum(y1, others_5M[1]) + offset, 0)
    inter = width * height
    return inter / (area + others_5M[4] - inter)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group the boxes that greedy NMS would drop with the box that drops them.

    Args:
        dets: ``(N, 5)``: box and score, on the CPU.
        iou_threshold: here IoU **greater or equal** joins a group, as in mmcv.

    Returns:
        One list of indices per kept box, in descending order of score, the kept box first.
    """
    work = dets.detach().to(torch.promote_types(dets.dtype, torch.float32))
    order = torch.sort(work[:, 4], descending=True, stable=True).indices.numpy()
    edges_5N = with_areas(work[:, :4].numpy()[order], offset=0)
    groups = []
    while order.size:
        joins = overlap(edges_5N[:, 0], edges_5N[:, 1:], 0) >= edges_5N.dtype.type(iou_threshold)
        groups.append([int(order[0]), *order[1:][joins].tolist()])
        order, edges_5N = order[1:][~joins], edges_5N[:, 1:][:, ~joins]
    return groups


def softnms(
    boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float, method: int, offset: int
) -> Tensor:
    """Lower the scores of overlapping boxes instead of dropping them (Soft-NMS, arXiv 1704.04503), exactly as mmcv orders them.

    Args:
        boxes, scores: ``(N, 4)`` and ``(N,)`` on the CPU.
        dets: ``(N, 5)`` output: its first rows receive the kept boxes with their new scores, in the order of selection.
        iou_threshold: IoU **greater or equal** lowers the score (methods 0 and 1).
        sigma: width of the Gaussian of method 2.
        min_score: boxes whose lowered score falls below this are discarded.
        method: 0 sets the score to zero, 1 multiplies it by ``1 - IoU``, 2 by ``exp(-IoU^2 / sigma)`` at any IoU.
        offset: as in :func:`nms`.

    Returns:
        Indices of the kept boxes, int64, in the order of ``dets``.
    """
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    edges_5N = with_areas(boxes.detach().to(dtype).numpy(), offset)
    table = np.vstack((edges_5N, scores.detach().to(dtype).numpy()[None]))
    inds = np.arange(len(boxes))
    done, count = 0, len(boxes)
    while done < count:
        best = done + int(np.argmax(table[5, done:count]))
        table[:, [done, best]], inds[[done, best]] = table[:, [best, done]], inds[[best, done]]
        rest = slice(done + 1, count)
        table[5, rest] *= _decay(overlap(table[:5, done], table[:5, rest], offset), iou_threshold, sigma, method)
        done += 1
        count = _discard(table, inds, table[5, :count] < min_score, done, count)
    dets[:count] = torch.from_numpy(table[[0, 1, 2, 3, 5], :count].T.copy()).to(dets.dtype)
    return torch.from_numpy(inds[:count].copy())


def _decay(iou: np.ndarray, iou_threshold: float, sigma: float, method: int) -> np.ndarray:
    """The factor that Soft-NMS multiplies the scores with. A NaN overlap (two boxes without area) leaves the score alone."""
    if method == 2:
        return np.nan_to_num(np.exp(-(iou * iou) / iou.dtype.type(sigma)), nan=1.0)
    lowered = 1 - iou if method == 1 else np.zeros_like(iou)
    return np.where(iou >= iou.dtype.type(iou_threshold), lowered, iou.dtype.type(1))


def _discard(table: np.ndarray, inds: np.ndarray, weak: np.ndarray, start: int, count: int) -> int:
    """Fill each weak place from ``start`` on with the last box that is not weak, in mmcv's order; returns the new count."""
    for place in start + np.flatnonzero(weak[start:count]):
        while count > place and weak[count - 1]:
            count -= 1
        if count <= place:
            break
        count -= 1
        table[:, place], inds[place] = table[:, count], inds[count]
    return count
