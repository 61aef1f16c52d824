"""Non-maximum suppression: greedy, soft and matching, with the semantics of mmcv's compiled CPU ops.

Legend: N boxes (x1, y1, x2, y2), kept indices as int64. All arithmetic in the boxes' own precision, float32 at least, in mmcv's order of
operations, so that ties at the threshold fall the same way. Equal scores keep their order; mmcv's own sort does not promise that, and where
torch sorts with AVX2 or AVX-512 its compiled op takes them in another order. The loops are compiled by numba (:mod:`salt_lab.ops.nms_kernel`):
the first call of a process pays for its import, the first one on a machine for seconds of compiling (``benchmarks/nms.py`` measures both).

Why not OpenCV. ``cv2.dnn.NMSBoxes`` (4.12) was measured against the loop in tests/ops/test_nms.py and does not agree: two boxes without
area count as identical (IoU 1, one is dropped) where mmcv's 0 / 0 drops nothing, and it computes ``1 - (1 - IoU)`` from doubles, so with the
threshold within one float32 step of a pair's IoU a quarter of 15,000 random cases went the other way. Its order of equal scores is ours.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salt_lab.errors import MissingOpError


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
    order, owner = _owners(work, scores, iou_threshold, offset, inclusive=False)
    return torch.from_numpy(order[owner == np.arange(len(order))]).to(boxes.device)


@functools.lru_cache(maxsize=1)
def torchvision_nms() -> Callable[[Tensor, Tensor, float], Tensor] | None:
    """torchvision's compiled NMS, or None where torchvision is absent or does not fit this torch (then it fails on import)."""
    try:
        from torchvision.ops import nms as vendor
    except (ImportError, OSError, RuntimeError):
        return None
    return vendor


def _kernels() -> Any:
    """The compiled loops.

    Raises:
        MissingOpError: numba does not load here.
    """
    try:
        return importlib.import_module("salt_lab.ops.nms_kernel")
    except Exception as error:  # compiled libraries that do not fit fail in several ways
        reason = f"{type(error).__name__}: {error}"
        raise MissingOpError(
            f"NMS is compiled by numba, which does not load here ({reason}): pip install numba, as in constraints.txt"
        ) from error


def _rounded(threshold: float, like: Tensor) -> float:
    """The threshold as the boxes' precision has it: torchvision compares in double, where float32's 0.6 is greater than 0.6."""
    return float(torch.tensor(threshold, dtype=like.dtype))


def _owners(boxes: Tensor, scores: Tensor, threshold: float, offset: int, inclusive: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows in descending order of score, and for each place of that order the place of the box that drops it (its own if it is kept)."""
    owners = _kernels().owners

    order = torch.sort(scores, descending=True, stable=True).indices.cpu().numpy()
    return order, owners(boxes.contiguous().cpu().numpy(), order, float(threshold), int(offset), inclusive)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group the boxes that greedy NMS would drop with the box that drops them.

    Args:
        dets: ``(N, 5)``: box and score, on the CPU.
        iou_threshold: here IoU **greater or equal** joins a group, as in mmcv.

    Returns:
        One list of indices per kept box, in descending order of score, the kept box first.
    """
    work = dets.detach().to(torch.promote_types(dets.dtype, torch.float32))
    order, owner = _owners(work[:, :4], work[:, 4], iou_threshold, offset=0, inclusive=True)
    grouped = np.argsort(owner, kind="stable")
    rows, starts = order[grouped].tolist(), np.flatnonzero(np.diff(owner[grouped], prepend=-1)).tolist()
    return [rows[start:stop] for start, stop in itertools.pairwise([*starts, len(rows)])]


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
    soften = _kernels().soften

    work = torch.column_stack((boxes.detach(), scores.detach())).to(torch.promote_types(boxes.dtype, torch.float32))
    x1, y1, x2, y2, score = work.T
    table = torch.stack((x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset), score)).numpy()
    inds = np.arange(len(boxes))
    count = soften(table, inds, float(iou_threshold), float(sigma), float(min_score), int(method), int(offset))
    dets[:count] = torch.from_numpy(table[[0, 1, 2, 3, 5], :count].T).to(dets.dtype)
    return torch.from_numpy(inds[:count])
