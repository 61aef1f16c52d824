"""RepPoints as a SALT host."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import RepPointsHead
from mmdet.registry import MODELS
from torch import Tensor

from salt_lab.models.hosts.atss import AnchorPositives
from salt_lab.models.hosts.seam import SALTHeadMixin, flat_N4, run_tower
from salt_lab.models.losses import Positives


@MODELS.register_module()
class SALTRepPointsHead(SALTHeadMixin, RepPointsHead):
    """RepPoints' head with the operator between its towers and its own two stages of points.

    Args:
        salt: arguments of :meth:`SALTHeadMixin.build_salt`.
        others: those of mmdet's ``RepPointsHead``.

    Raises:
        ValueError: the points start from a grid on a fixed box (``use_grid_points``, or not ``center_init``): not the published model.
    """

    def build_salt(self, *args: Any, **kwargs: Any) -> None:
        """As the mixin's, for points that start from the location itself."""
        if self.use_grid_points or not self.center_init:
            raise ValueError(
                f"use_grid_points={self.use_grid_points}, center_init={self.center_init}: SALT knows RepPoints whose points start from "
                "their location; set use_grid_points=False and center_init=True"
            )
        super().build_salt(*args, **kwargs)

    def forward_level(self, x: Tensor, level: int) -> tuple[Tensor, ...]:
        """One level: class logits; in training first and refined points (y first, cells), else refined boxes (cells); coarse distances."""
        cls_feat, reg_feat, coarse, *_ = self.salt(x, run_tower(self.cls_convs, x), run_tower(self.reg_convs, x), level)
        first = self.reppoints_pts_init_out(self.reppoints_pts_init_conv(reg_feat).relu())
        damped = (1 - self.gradient_mul) * first.detach() + self.gradient_mul * first
        offset = damped - self.dcn_base_offset.type_as(x)
        cls_score = self.reppoints_cls_out(self.reppoints_cls_conv(cls_feat, offset).relu())
        moved = self.reppoints_pts_refine_out(self.reppoints_pts_refine_conv(reg_feat, offset).relu())
        refined = moved + first.detach()
        return (cls_score, first, refined, coarse) if self.training else (cls_score, self.points2bbox(refined), coarse)

    def positives(self, targets: Any, *outputs: list[Tensor]) -> Positives:
        """The positives of RepPoints' refine stage, whose targets it asks for last; boxes in pixels; u_i = 1 **(ours)**.

        Coarse distances are measured from the point that RepPoints itself starts from, the corner of the cell.
        """
        labels, _, bbox_targets, _, bbox_weights, _ = targets
        _, _, refined, coarse = outputs
        points = self.prior_generator.grid_priors([c.shape[-2:] for c in coarse], device=coarse[0].device)
        anchors = [level.repeat(1, 2).expand(len(coarse[0]), -1, -1) for level in points]  # of no size, at the points
        rows = AnchorPositives(self, (anchors, labels, None, bbox_targets), coarse)
        boxes = [self.points2bbox(level.detach().float()) for level in refined]  # a teacher only: no gradient
        refined_P4 = rows.anchors_P4 + flat_N4(boxes)[rows.at] * rows.stride_P1
        weight_P = torch.cat([level.reshape(-1, 4) for level in bbox_weights])[rows.at, 0]
        return Positives(rows.coarse_P4, refined_P4, rows.target_P4, weight_P, rows.stride_P1)
