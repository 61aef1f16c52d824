"""ATSS as a SALT host, and what the anchor-based hosts share."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import ATSSHead
from mmdet.registry import MODELS
from torch import Tensor

from salt_lab.models.hosts.seam import SALTHeadMixin, flat_N4, run_tower
from salt_lab.models.losses import Positives
from salt_lab.ops.points import boxes_from_distances


class AnchorPositives:
    """Positives of a head with one square anchor a location: level-wise targets in, flat rows out, ordered as :func:`flat_N4`.

    Args:
        head: a SALT head.
        targets: per level the anchors ``(N, H * W, 4)`` in pixels, the labels ``(N, H * W)``, something unused, and the target boxes
            like the anchors; what follows is not read. ATSS's ``get_targets`` returns just that.
        coarse: per level the coarse distances ``(N, 4, H, W)``, cells.
    """

    def __init__(self, head: Any, targets: Any, coarse: list[Tensor]) -> None:
        anchors, labels, _, bbox_targets, *_ = targets
        label_R = torch.cat([level.flatten() for level in labels])
        self.at = head.acting_rows(coarse) & (label_R >= 0) & (label_R < head.num_classes)
        self.anchors_P4 = torch.cat([level.reshape(-1, 4) for level in anchors])[self.at]
        self.target_P4 = torch.cat([level.reshape(-1, 4) for level in bbox_targets])[self.at]
        self.centres_P2 = (self.anchors_P4[:, :2] + self.anchors_P4[:, 2:]) / 2
        self.stride_P1 = head.cell_rows(coarse)[self.at]
        # distances are distances, from the anchor's centre: the released RetinaNet variant decodes them as anchor deltas
        self.coarse_P4 = boxes_from_distances(self.centres_P2, flat_N4(coarse)[self.at] * self.stride_P1)


@MODELS.register_module()
class SALTATSSHead(SALTHeadMixin, ATSSHead):
    """ATSS's head with the operator between its towers and its predictors.

    Args:
        salt: arguments of :meth:`SALTHeadMixin.build_salt`.
        others: those of mmdet's ``ATSSHead``.
    """

    def forward_level(self, x: Tensor, level: int) -> tuple[Tensor, ...]:
        """One level: class scores, box deltas, centerness, coarse distances."""
        cls_feat, reg_feat, coarse, *_ = self.salt(x, run_tower(self.cls_convs, x), run_tower(self.reg_convs, x), level)
        return self.atss_cls(cls_feat), self.scales[level](self.atss_reg(reg_feat)).float(), self.atss_centerness(reg_feat), coarse

    def positives(self, targets: Any, *outputs: list[Tensor]) -> Positives:
        """ATSS's positives, boxes in pixels; u_i is the centerness target."""
        _, bbox_preds, _, coarse = outputs
        rows = AnchorPositives(self, targets, coarse)
        refined_P4 = self.bbox_coder.decode(rows.anchors_P4, flat_N4(bbox_preds)[rows.at])
        weight_P = self.centerness_target(rows.anchors_P4, rows.target_P4)
        return Positives(rows.coarse_P4, refined_P4, rows.target_P4, weight_P, rows.stride_P1)
