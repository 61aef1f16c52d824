"""RetinaNet as a SALT host, with one square anchor a location."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from torch import Tensor

from salt_lab.models.hosts.atss import AnchorPositives
from salt_lab.models.hosts.seam import SALTHeadMixin, flat_N4, run_tower
from salt_lab.models.losses import Positives


@MODELS.register_module()
class SALTRetinaHead(SALTHeadMixin, RetinaHead):
    """RetinaNet's head with the operator between its towers and its predictors.

    Args:
        salt: arguments of :meth:`SALTHeadMixin.build_salt`; the released code weighs the coarse loss with 0.5 here.
        others: those of mmdet's ``RetinaHead``.

    Raises:
        ValueError: more than one anchor a location; a coarse box belongs to a location.
    """

    def build_salt(self, *args: Any, **kwargs: Any) -> None:
        """As the mixin's, for one anchor a location."""
        if self.num_base_priors != 1:
            raise ValueError(
                f"SALT gives each location one coarse box, this anchor generator gives it {self.num_base_priors} anchors: use "
                "octave_base_scale=8, scales_per_octave=1, ratios=[1.0] (host retinanet), or retinanet_9_anchors without SALT"
            )
        super().build_salt(*args, **kwargs)

    def forward_level(self, x: Tensor, level: int) -> tuple[Tensor, ...]:
        """One level: class logits, box deltas, coarse distances."""
        cls_feat, reg_feat, coarse, *_ = self.salt(x, run_tower(self.cls_convs, x), run_tower(self.reg_convs, x), level)
        return self.retina_cls(cls_feat), self.retina_reg(reg_feat), coarse

    def positives(self, targets: Any, *outputs: list[Tensor]) -> Positives:
        """RetinaNet's positives, boxes in pixels; u_i is its own box weight, 1, so that their number over all workers normalises.

        Refined boxes come from the host's delta coder; coarse ones are distances from the anchor's centre, never deltas.
        """
        labels, _, bbox_targets, bbox_weights, _ = targets
        _, bbox_preds, coarse = outputs
        priors = self.prior_generator.grid_priors([c.shape[-2:] for c in coarse], device=coarse[0].device)
        anchors = [level.expand(len(coarse[0]), -1, -1) for level in priors]
        rows = AnchorPositives(self, (anchors, labels, None, bbox_targets), coarse)
        refined_P4 = self.bbox_coder.decode(rows.anchors_P4, flat_N4(bbox_preds)[rows.at].float())
        target_P4 = rows.target_P4 if self.reg_decoded_bbox else self.bbox_coder.decode(rows.anchors_P4, rows.target_P4)
        weight_P = torch.cat([level.reshape(-1, 4) for level in bbox_weights])[rows.at, 0]
        return Positives(rows.coarse_P4, refined_P4, target_P4, weight_P, rows.stride_P1)
