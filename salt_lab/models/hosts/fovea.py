"""FoveaBox as a SALT host."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import FoveaHead
from mmdet.registry import MODELS
from torch import Tensor

from salt_lab.models.hosts.fcos import PointPositives
from salt_lab.models.hosts.seam import SALTHeadMixin, flat_N4, run_tower
from salt_lab.models.losses import Positives


@MODELS.register_module()
class SALTFoveaHead(SALTHeadMixin, FoveaHead):
    """FoveaBox's head with the operator between its towers and its predictors.

    Args:
        salt: arguments of :meth:`SALTHeadMixin.build_salt`.
        others: those of mmdet's ``FoveaHead``.

    Raises:
        ValueError: ``with_deform``; FoveaBox-align aligns class features in its own way, before the class tower.
    """

    def build_salt(self, *args: Any, **kwargs: Any) -> None:
        """As the mixin's, for towers that start from the pyramid."""
        if self.with_deform:
            raise ValueError("with_deform=True: SALT knows FoveaBox without its own feature alignment; set with_deform=False")
        super().build_salt(*args, **kwargs)

    def forward_level(self, x: Tensor, level: int) -> tuple[Tensor, ...]:
        """One level: class logits, logs of distances in base edges, coarse distances."""
        cls_feat, reg_feat, coarse, *_ = self.salt(x, run_tower(self.cls_convs, x), run_tower(self.reg_convs, x), level)
        return self.conv_cls(cls_feat), self.conv_reg(reg_feat), coarse

    def positives(self, targets: Any, *outputs: list[Tensor]) -> Positives:
        """FoveaBox's positives, boxes in cells around their location; u_i = 1, as FoveaBox weighs its own boxes."""
        labels, bbox_targets = targets
        _, bbox_preds, coarse = outputs
        rows = PointPositives(self, [labels], coarse)
        edges = zip(coarse, self.base_edge_list, self.strides, strict=True)
        edge_P1 = flat_N4([torch.full_like(c[:, :1], edge / stride) for c, edge, stride in edges])[rows.at]
        refined_P4, target_P4 = (rows.boxes(log[rows.at].float().exp() * edge_P1) for log in (flat_N4(bbox_preds), bbox_targets))
        return Positives(rows.coarse_P4, refined_P4, target_P4, target_P4.new_ones(len(target_P4)), 1.0)

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The losses; where nothing is positive FoveaBox's own box loss is a constant, and gets its (zero) gradient here."""
        losses = super().loss_by_feat(*args, **kwargs)
        if not losses["loss_bbox"].requires_grad:
            losses["loss_bbox"] = losses["loss_bbox"] + 0 * torch.stack([level.sum() for level in args[1]]).sum()
        return losses
