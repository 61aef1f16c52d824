"""GFL as a SALT host."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import GFLHead
from mmdet.registry import MODELS
from torch import Tensor

from salt_lab.models.hosts.atss import AnchorPositives
from salt_lab.models.hosts.seam import SALTHeadMixin, flat_N4, run_tower
from salt_lab.models.losses import Positives
from salt_lab.ops.points import boxes_from_distances


@MODELS.register_module()
class SALTGFLHead(SALTHeadMixin, GFLHead):
    """GFL's head with the operator between its towers and its predictors.

    Args:
        salt: arguments of :meth:`SALTHeadMixin.build_salt`.
        others: those of mmdet's ``GFLHead``.
    """

    def forward_level(self, x: Tensor, level: int) -> tuple[Tensor, ...]:
        """One level: class (and quality) logits, side logits ``(N, 4 * (reg_max + 1), H, W)``, coarse distances."""
        cls_feat, reg_feat, coarse, *_ = self.salt(x, run_tower(self.cls_convs, x), run_tower(self.reg_convs, x), level)
        return self.gfl_cls(cls_feat), self.scales[level](self.gfl_reg(reg_feat)).float(), coarse

    def positives(self, targets: Any, *outputs: list[Tensor]) -> Positives:
        """GFL's positives, boxes in pixels; u_i is the detached highest class score."""
        cls_scores, bbox_preds, coarse = outputs
        rows = AnchorPositives(self, targets, coarse)
        refined_P4 = boxes_from_distances(rows.centres_P2, self.integral(flat_N4(bbox_preds)[rows.at]) * rows.stride_P1)
        weight_P = flat_N4(cls_scores)[rows.at].detach().float().sigmoid().amax(dim=1)
        return Positives(rows.coarse_P4, refined_P4, rows.target_P4, weight_P, rows.stride_P1)
