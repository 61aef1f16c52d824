"""VFNet as a SALT host."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import VFNetHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from salt_lab.models.hosts.fcos import PointPositives
from salt_lab.models.hosts.seam import SALTHeadMixin, flat_N4, run_tower
from salt_lab.models.losses import Positives


@MODELS.register_module()
class SALTVFNetHead(SALTHeadMixin, VFNetHead):
    """VFNet's head with the operator between its towers and its own star-shaped parts: VFNet's alignment comes on top of SALT's.

    Args:
        salt: arguments of :meth:`SALTHeadMixin.build_salt`.
        others: those of mmdet's ``VFNetHead``.
    """

    def forward_level(self, x: Tensor, level: int) -> tuple[Tensor, ...]:
        """One level: class logits, in training first boxes, refined boxes (both as distances in pixels), coarse distances."""
        cls_feat, reg_feat, coarse, *_ = self.salt(x, run_tower(self.cls_convs, x), run_tower(self.reg_convs, x), level)
        stride = self.strides[level]
        unit = self.reg_denoms[level] if self.bbox_norm_type == "reg_denom" else stride
        first = self.scales[level](self.vfnet_reg(self.vfnet_reg_conv(reg_feat))).float().exp() * unit
        star = self.star_dcn_offset(first, self.gradient_mul, stride).to(reg_feat.dtype)
        factors = self.scales_refine[level](self.vfnet_reg_refine(self.vfnet_reg_refine_dconv(reg_feat, star).relu()))
        refined = factors.float().exp() * first.detach()
        cls_score = self.vfnet_cls(self.vfnet_cls_dconv(cls_feat, star).relu()).float()  # under AMP VFNet's own loss needs it so
        return (cls_score, first, refined, coarse) if self.training else (cls_score, refined, coarse)

    def positives(self, targets: Any, *outputs: list[Tensor]) -> Positives:
        """VFNet's positives, boxes in cells around their location; u_i is the IoU of the refined box with its target, detached."""
        labels, _, bbox_targets, _ = targets
        _, _, bbox_preds_refine, coarse = outputs
        rows = PointPositives(self, labels, coarse)
        refined_P4 = rows.boxes(flat_N4(bbox_preds_refine)[rows.at] / rows.stride_P1)
        target_P4 = rows.boxes(torch.cat(bbox_targets)[rows.at] / rows.stride_P1)
        weight_P = bbox_overlaps(refined_P4.detach(), target_P4, is_aligned=True).clamp(min=1e-6)
        return Positives(rows.coarse_P4, refined_P4, target_P4, weight_P, 1.0)
