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
        labels, bbox_targets = (torch.cat(t) for t in targets)
        _, bbox_preds, _, coarse = outputs
        at = (labels >= 0) & (labels < self.num_classes)
        cells = (
            1
            if self.norm_on_bbox
            else torch.cat([c.new_full((c[:, 0].numel(), 1), s) for c, s in zip(coarse, self.strides, strict=True)])[at]
        )
        distances_P4 = bbox_targets[at]
        origin_P2 = distances_P4.new_zeros(len(distances_P4), 2)
        coarse_P4, refined_P4, target_P4 = (
            boxes_from_distances(origin_P2, d) for d in (flat_N4(coarse)[at], flat_N4(bbox_preds)[at] / cells, distances_P4 / cells)
        )
        return Positives(coarse_P4, refined_P4, target_P4, self.centerness_target(distances_P4))
