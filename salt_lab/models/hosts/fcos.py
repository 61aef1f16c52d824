"""FCOS as a SALT host."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import MODELS
from torch import Tensor

from salt_lab.models.hosts.seam import SALTHeadMixin, flat_N4, run_tower
from salt_lab.models.losses import Positives
from salt_lab.ops.points import boxes_from_distances


class PointPositives:
    """Positives of a head without anchors: flat rows, ordered as :func:`flat_N4`, boxes in cells around their own location.

    Args:
        head: a SALT head.
        labels: per level, any shape with one label a location.
        coarse: per level the coarse distances ``(N, 4, H, W)``, cells.
    """

    def __init__(self, head: Any, labels: list[Tensor], coarse: list[Tensor]) -> None:
        label_R = torch.cat([level.flatten() for level in labels])
        self.at = head.acting_rows(coarse) & (label_R >= 0) & (label_R < head.num_classes)
        self.stride_P1 = head.cell_rows(coarse)[self.at]
        self.coarse_P4 = self.boxes(flat_N4(coarse)[self.at])

    @staticmethod
    def boxes(distances_P4: Tensor) -> Tensor:
        """Corners of boxes given as distances left, top, right, bottom; the location is the origin."""
        return boxes_from_distances(distances_P4.new_zeros(len(distances_P4), 2), distances_P4)


@MODELS.register_module()
class SALTFCOSHead(SALTHeadMixin, FCOSHead):
    """FCOS's head with the operator between its towers and its predictors.

    Args:
        salt: arguments of :meth:`SALTHeadMixin.build_salt`; the released code weighs the coarse loss with 0.5 here.
        others: those of mmdet's ``FCOSHead``.
    """

    normaliser_floor = 1e-6

    def forward_level(self, x: Tensor, level: int) -> tuple[Tensor, ...]:
        """One level: class scores, box distances, centerness, coarse distances. The level scale is applied once (a trap of the released code)."""
        cls_feat, reg_feat, coarse, *_ = self.salt(x, run_tower(self.cls_convs, x), run_tower(self.reg_convs, x), level)
        centerness = self.conv_centerness(reg_feat if self.centerness_on_reg else cls_feat)
        bbox_pred = self.scales[level](self.conv_reg(reg_feat)).float()
        if self.norm_on_bbox:
            bbox_pred = bbox_pred.clamp(min=0) * (1 if self.training else self.strides[level])
        else:
            bbox_pred = bbox_pred.exp()
        return self.conv_cls(cls_feat), bbox_pred, centerness, coarse

    def positives(self, targets: Any, *outputs: list[Tensor]) -> Positives:
        """FCOS's positives, boxes in cells around their location; u_i is the centerness target."""
        labels, bbox_targets = targets
        _, bbox_preds, _, coarse = outputs
        rows = PointPositives(self, labels, coarse)
        cells = 1 if self.norm_on_bbox else rows.stride_P1  # without norm_on_bbox FCOS measures in pixels
        target_P4 = torch.cat(bbox_targets)[rows.at]
        refined_P4, weight_P = flat_N4(bbox_preds)[rows.at] / cells, self.centerness_target(target_P4)
        return Positives(rows.coarse_P4, rows.boxes(refined_P4), rows.boxes(target_P4 / cells), weight_P, 1.0)
