"""Made candidates for ``nms.py``: the maps that a detector's head hands to its post-processing, with the overlaps and the ties of a real one.

Objects of all sizes lie on an 800 x 1333 image. Around each, neighbouring cells fire with boxes that differ by some percent, most of them for the
object's class, a third for any; so a class holds clumps of boxes that overlap, and single ones. Logits are rounded to 1/64, which makes scores tie.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

CLASSES, STRIDES = 80, (8, 16, 32, 64, 128)
HEIGHT, WIDTH = 800, 1333
SCORE_THR = 0.05


class Candidates(NamedTuple):
    """``boxes (N, 4)``, ``scores (N,)`` and ``labels (N,)`` as they reach NMS; ``head`` and ``maps``, its predict_by_feat's input, make them."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    head: Any
    maps: dict[str, Any]

    @property
    def apart(self) -> Tensor:
        """The boxes with each class moved to a place of its own, as mmcv's batched_nms does it."""
        return self.boxes + self.labels.to(self.boxes)[:, None] * (self.boxes.max() + 1)


def make(count: int, seed: int = 0) -> Candidates:
    """Exactly ``count`` candidates above the score threshold, in the maps of FCOS with 80 classes."""
    warnings.filterwarnings("ignore", message="torch.meshgrid")  # mmdet's grid of priors
    g = np.random.default_rng(seed)
    boxes, labels = _fired(count, g)
    cls_maps, box_maps = _maps(boxes, labels, count, g)
    ones = [torch.full((1, 1, *maps.shape[-2:]), 30.0) for maps in cls_maps]  # centerness 1
    meta = {"img_shape": (HEIGHT, WIDTH), "scale_factor": (1.0, 1.0)}
    maps = {"cls_scores": cls_maps, "bbox_preds": box_maps, "score_factors": ones, "batch_img_metas": [meta], "cfg": config(count)}
    head = _head()
    found = head.predict_by_feat(**maps, rescale=True, with_nms=False)[0]
    assert len(found.bboxes) == count, f"{len(found.bboxes)} candidates instead of {count}"
    return Candidates(found.bboxes, found.scores, found.labels, head, maps)


def config(count: int) -> Any:
    """FCOS's test_cfg; a level hands over 1,000 at most, or as many as are asked for."""
    from mmengine import ConfigDict

    nms = dict(type="nms", iou_threshold=0.5)
    return ConfigDict(nms_pre=max(1000, count), min_bbox_size=-1, score_thr=SCORE_THR, nms=nms, max_per_img=100)


def _head() -> Any:
    from mmdet.models import FCOSHead

    return FCOSHead(CLASSES, 8, feat_channels=8, stacked_convs=1, strides=STRIDES, norm_cfg=None).eval()


def _fired(count: int, g: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """More boxes than are needed, and their classes: some fall on a cell and class that is taken."""
    objects, many = max(4, count // 25), 8 * count
    sides, centres = np.exp(g.uniform(np.log(16), np.log(500), (objects, 2))), g.uniform(0, 1, (objects, 2)) * (WIDTH, HEIGHT)
    of = g.integers(0, objects, many)
    centre = centres[of] + g.normal(0, 0.1, (many, 2)) * sides[of]
    half = sides[of] * np.exp(g.normal(0, 0.12, (many, 2))) / 2
    classes = np.where(g.random(many) < 2 / 3, g.integers(0, CLASSES, objects)[of], g.integers(0, CLASSES, many))
    return np.concatenate((centre - half, centre + half), axis=1), classes


def _maps(boxes: np.ndarray, labels: np.ndarray, count: int, g: np.random.Generator) -> tuple[list[Tensor], list[Tensor]]:
    """Class logits and distances to the four sides on every level; ``count`` logits are above the threshold."""
    shapes = [(-(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]
    cls_maps = [torch.full((1, CLASSES, *shape), -8.0) for shape in shapes]
    box_maps = [torch.full((1, 4, *shape), 8.0) for shape in shapes]
    left, levels = count, np.searchsorted((64, 128, 256, 512), (boxes[:, 2:] - boxes[:, :2]).max(axis=1))
    for box, label, level in zip(boxes, labels, levels, strict=True):
        stride, (rows, columns) = STRIDES[level], shapes[level]
        column, row = (int(np.clip((box[i] + box[i + 2]) / 2 // stride, 0, end - 1)) for i, end in ((0, columns), (1, rows)))
        if left == 0:
            break
        if cls_maps[level][0, label, row, column] > -8:
            continue
        cls_maps[level][0, label, row, column] = round(64 * max(-2.9, 1.2 * g.standard_normal() - 1.2)) / 64
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        box_maps[level][0, :, row, column] = torch.tensor([x - box[0], y - box[1], box[2] - x, box[3] - y])
        left -= 1
    return cls_maps, box_maps
