"""GFLv2 as a SALT host."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor

from salt_lab.models.gflv2 import QualityMixin
from salt_lab.models.hosts.gfl import SALTGFLHead


@MODELS.register_module()
class SALTGFLv2Head(QualityMixin, SALTGFLHead):
    """GFLv2's head with the operator between its towers and its predictors.

    Args:
        conf_channels, dcn_on_last_conv: see :class:`~salt_lab.models.gflv2.QualityMixin`.
        others: those of :class:`SALTGFLHead`.
    """

    def forward_level(self, x: Tensor, level: int) -> tuple[Tensor, ...]:
        """As GFL's, but the class logit is that of class score times quality."""
        cls_logit, side_logits, coarse = super().forward_level(x, level)
        return self.with_quality(cls_logit, side_logits), side_logits, coarse
