"""SALT-Net's head: GFL with the operator, the long skip and a quality predictor (salt.md section 4; its plain counterpart is GFLv2)."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from salt_lab.models.hosts.gfl import SALTGFLHead

TOP = 4


def quality_statistics(side_logits: Tensor, reg_max: int) -> Tensor:
    """Per side the 4 largest softmax values and their mean: ``(N, 4 * (reg_max + 1), H, W)`` logits to ``(N, 20, H, W)`` in 0..1."""
    prob_N4BHW = side_logits.unflatten(1, (4, reg_max + 1)).softmax(dim=2)
    top_N44HW = prob_N4BHW.topk(TOP, dim=2).values
    return torch.cat([top_N44HW, top_N44HW.mean(dim=2, keepdim=True)], dim=2).flatten(1, 2)


def logit_of_product(a: Tensor, b: Tensor) -> Tensor:
    """``logit(sigmoid(a) * sigmoid(b))``, finite for any finite input.

    SALT-Net's score is a product of two sigmoids. As the logit of that product it passes through GFL's own loss and
    post-processing, which apply the sigmoid themselves, and quality focal loss on it equals the one on activated scores.
    """
    log_score = (F.logsigmoid(a) + F.logsigmoid(b)).clamp(max=-1e-7)
    return log_score - torch.log(-torch.expm1(log_score))


@MODELS.register_module()
class SALTNetHead(SALTGFLHead):
    """The head of SALT-Net.

    Args:
        conf_channels: width of the quality predictor.
        others: those of :class:`SALTGFLHead`; ``stacked_convs`` is 3 in the released models.
    """

    def __init__(self, *args: Any, conf_channels: int = 64, stacked_convs: int = 3, **kwargs: Any) -> None:
        super().__init__(*args, stacked_convs=stacked_convs, **kwargs)
        self.reg_conf = nn.Sequential(nn.Conv2d(4 * (TOP + 1), conf_channels, 1), nn.ReLU(), nn.Conv2d(conf_channels, 1, 1))

    def forward_level(self, x: Tensor, level: int) -> tuple[Tensor, ...]:
        """As GFL's, but the class logit is that of class score times quality."""
        cls_logit, side_logits, coarse = super().forward_level(x, level)
        quality_logit = self.reg_conf(quality_statistics(side_logits, self.reg_max))
        return logit_of_product(cls_logit.to(side_logits.dtype), quality_logit.to(side_logits.dtype)), side_logits, coarse
