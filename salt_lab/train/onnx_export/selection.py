"""From the boxes and scores of all locations to detections: score threshold, the best of each level, non-maximum suppression.

Twice: :func:`detections`, after the graph, exactly as mmdet selects; and :class:`Selection`, as a part of the graph (``--nms``).

Legend: N images, C classes, L rows (locations x priors of all levels, level by level), M detections kept, S candidates of all classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from salt_lab.errors import UserError
from salt_lab.ops.nms import nms
from salt_lab.train.onnx_export.graph import Found, RawDetector


class Detections(NamedTuple):
    """What is left of one picture, by descending score."""

    boxes_M4: np.ndarray  #: x1 y1 x2 y2, pixels of the picture that the graph was given
    scores_M: np.ndarray  #: 0..1
    labels_M: np.ndarray  #: indices into the classes


def level_rows(height: int, width: int, strides: Sequence[int], per_location: Sequence[int], divisor: int = 32) -> list[int]:
    """Rows of each level for a picture of ``height`` x ``width`` pixels; strides, priors per location and divisor are in the file's metadata."""
    padded = [-(-side // divisor) * divisor for side in (height, width)]
    return [count * -(-padded[0] // stride) * -(-padded[1] // stride) for stride, count in zip(strides, per_location, strict=True)]


def detections(
    boxes_NL4: np.ndarray,
    scores_NLC: np.ndarray,
    test_cfg: Mapping[str, Any],
    rows: Sequence[int],
    quality_NL: np.ndarray | None = None,
) -> list[Detections]:
    """The graph's outputs to what mmdet would return, picture by picture.

    Args:
        boxes_NL4, scores_NLC, quality_NL: the outputs ``boxes``, ``scores`` and ``quality`` (None where the file has none).
        test_cfg: the config's ``model.test_cfg`` (``score_thr``, ``nms_pre``, ``min_bbox_size``, ``nms``, ``max_per_img``); in the file's metadata.
        rows: of each level (:func:`level_rows`), since ``nms_pre`` counts level by level.

    Raises:
        ValueError: ``rows`` do not sum to L.
    """
    from mmcv.ops import batched_nms

    if sum(rows) != boxes_NL4.shape[1]:
        raise ValueError(f"rows = {list(rows)} sum to {sum(rows)}, and there are {boxes_NL4.shape[1]} boxes a picture")
    found = []
    for image, (boxes, scores) in enumerate(zip(torch.from_numpy(boxes_NL4), torch.from_numpy(scores_NLC), strict=True)):
        quality = torch.ones(len(boxes)) if quality_NL is None else torch.from_numpy(quality_NL[image])
        at, labels = _candidates(_class_scores(scores, quality), test_cfg, rows)
        large = _large(boxes[at], test_cfg)
        at, labels = at[large], labels[large]
        kept_boxes, kept_scores = boxes[at], scores[at, labels]
        if len(at):
            suppressed, keep = batched_nms(kept_boxes, kept_scores, labels, dict(test_cfg["nms"]))
            keep = keep[: test_cfg["max_per_img"]]
            kept_boxes, kept_scores, labels = kept_boxes[keep], suppressed[: len(keep), 4], labels[keep]
        found.append(Detections(kept_boxes.numpy(), kept_scores.numpy(), labels.numpy()))
    return found


def _class_scores(scores_LC: Tensor, quality_L: Tensor) -> Tensor:
    """Threshold and ``nms_pre`` look at class scores before the quality (mmdet's order)."""
    return scores_LC / quality_L.clamp(min=torch.finfo(scores_LC.dtype).tiny)[:, None]


def _candidates(class_scores_LC: Tensor, test_cfg: Mapping[str, Any], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Rows and labels above the threshold, the best ``nms_pre`` of each level."""
    picked, first = [], 0
    for level in torch.split(class_scores_LC, list(rows)):
        above = torch.nonzero(level > test_cfg.get("score_thr", 0))
        order = level[tuple(above.T)].sort(descending=True).indices
        limit = test_cfg.get("nms_pre", -1)
        picked.append(above[order[:limit] if limit > 0 else order] + torch.tensor([first, 0]))
        first += len(level)
    rows_S, labels_S = torch.cat(picked).unbind(1)
    return rows_S, labels_S


def _large(boxes: Tensor, test_cfg: Mapping[str, Any]) -> Tensor:
    """Which boxes are wider and higher than ``min_bbox_size``; all where it is not set."""
    smallest = test_cfg.get("min_bbox_size", -1)
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides > smallest).all(-1) if smallest >= 0 else torch.ones_like(sides[..., 0], dtype=torch.bool)


class Selection(nn.Module):
    """The same in the graph, with ONNX's NonMaxSuppression: the ``max_per_img`` best, rows beyond the last detection have score 0.

    Args:
        raw: the graph before it.
        test_cfg: of the model; ``nms.type`` must be "nms", by class.

    Raises:
        UserError: another kind of suppression.
    """

    def __init__(self, raw: RawDetector, test_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        kind = dict(test_cfg.get("nms") or {})
        if kind.pop("type", "nms") != "nms" or set(kind) - {"iou_threshold", "split_thr"}:
            raise UserError(
                f"--nms: model.test_cfg.nms = {test_cfg.get('nms')}: only plain NMS by class; leave --nms out and select outside"
            )
        self.raw = raw
        self.test_cfg = test_cfg
        self.iou_threshold = float(kind["iou_threshold"])
        self.count = int(test_cfg["max_per_img"])

    def forward(self, image_N3HW: Tensor) -> tuple[Tensor, ...]:
        """The raw graph's outputs, then ``dets (N, max_per_img, 5)``: x1 y1 x2 y2 score, and ``labels (N, max_per_img)``."""
        found = self.raw.look(image_N3HW)
        return (*self.raw.outputs(found), *self.select(found))

    def select(self, found: Found) -> tuple[Tensor, Tensor]:
        """Boxes with scores, and labels."""
        N, L, C = (found.class_scores_NLC.shape[axis] for axis in range(3))
        scores_NCL = self._masked(found).transpose(1, 2)
        kept_M3 = NonMaxSuppression.apply(found.boxes_NL4, scores_NCL, self.count, self.iou_threshold)
        image, label, row = kept_M3.unbind(1)
        at_M = (image * C + label) * L + row
        alive = torch.zeros_like(scores_NCL).flatten().scatter(0, at_M, scores_NCL.flatten().gather(0, at_M)).reshape(N, C * L)
        scores, at = torch.cat([alive, alive.new_zeros(N, self.count)], dim=1).topk(self.count, dim=1)
        at = torch.where(scores > 0, at, torch.zeros_like(at))
        boxes = found.boxes_NL4.gather(1, (at % L)[..., None].expand(-1, -1, 4))
        return torch.cat([boxes, scores[..., None]], dim=-1), torch.div(at, L, rounding_mode="floor")

    def _masked(self, found: Found) -> Tensor:
        """Final scores, 0 where threshold, ``nms_pre`` or the smallest size drop a row."""
        keep = (found.class_scores_NLC > self.test_cfg.get("score_thr", 0)) & _large(found.boxes_NL4, self.test_cfg)[..., None]
        limit = self.test_cfg.get("nms_pre", -1)
        if limit > 0:
            cuts = [_cut(level, limit) for level in torch.split(found.class_scores_NLC, found.rows, dim=1)]
            keep = keep & (found.class_scores_NLC >= torch.cat(cuts, dim=1))
        scores = found.class_scores_NLC if found.quality_NL is None else found.class_scores_NLC * found.quality_NL[..., None]
        return torch.where(keep, scores, torch.zeros_like(scores))


def _cut(level_NLC: Tensor, limit: int) -> Tensor:
    """The ``limit``-th best class score of each picture's level, ``(N, L, 1)``; 0 where there are fewer."""
    flat = level_NLC.flatten(1)
    best = torch.cat([flat, flat.new_zeros(level_NLC.shape[0], limit)], dim=1).topk(limit, dim=1).values
    return best[:, -1:, None].expand(-1, level_NLC.shape[1], 1)


class NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator: ``(N, L, 4)`` boxes and ``(N, C, L)`` scores to ``(M, 3)`` image, class, row of what is kept; score 0 is never kept."""

    @staticmethod
    def forward(ctx: Any, boxes_NL4: Tensor, scores_NCL: Tensor, count: int, iou_threshold: float) -> Tensor:
        """The lab's own NMS, class by class."""
        kept = [torch.zeros(0, 3, dtype=torch.long)]
        for image, label in torch.nonzero(scores_NCL.amax(2) > 0).tolist():
            rows = torch.nonzero(scores_NCL[image, label] > 0)[:, 0]
            keep = rows[nms(boxes_NL4[image, rows], scores_NCL[image, label, rows], iou_threshold)[:count]]
            kept.append(torch.stack([torch.full_like(keep, image), torch.full_like(keep, label), keep], dim=1))
        return torch.cat(kept)

    @staticmethod
    def symbolic(g: Any, boxes_NL4: Any, scores_NCL: Any, count: int, iou_threshold: float) -> Any:
        """The node; it takes corners in any order, so x first is fine."""
        most = g.op("Constant", value_t=torch.tensor([count], dtype=torch.long))
        overlap, above = (g.op("Constant", value_t=torch.tensor([value], dtype=torch.float32)) for value in (iou_threshold, 0.0))
        return g.op("NonMaxSuppression", boxes_NL4, scores_NCL, most, overlap, above)
