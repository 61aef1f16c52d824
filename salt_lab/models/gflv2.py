"""GFLv2 (arXiv 2011.12885): GFL whose class score is multiplied by a quality read from the shape of the box distribution.

mmdet has GFL only. What GFLv2 adds stands here once, for the plain head and for the heads with SALT (SALT-Net is GFLv2 with SALT).
Shape legend: N images, B = reg_max + 1 bins a side, H x W cells.
"""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn import ConvModule, Scale
from mmdet.models.dense_heads import GFLHead
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

TOP = 4
#: GFL's own initialisation, which leaves deformable kernels out; their offsets start from zero in every head of mmdet
INIT = dict(
    type="Normal",
    layer=["Conv2d", "ModulatedDeformConv2dPack"],
    std=0.01,
    override=dict(type="Normal", name="gfl_cls", std=0.01, bias_prob=0.01),
)


def quality_statistics(side_logits: Tensor, reg_max: int) -> Tensor:
    """Per side the 4 largest softmax values and their mean: ``(N, 4 * (reg_max + 1), H, W)`` logits to ``(N, 20, H, W)`` in 0..1."""
    prob_N4BHW = side_logits.unflatten(1, (4, reg_max + 1)).softmax(dim=2)
    top_N44HW = prob_N4BHW.topk(TOP, dim=2).values
    return torch.cat([top_N44HW, top_N44HW.mean(dim=2, keepdim=True)], dim=2).flatten(1, 2)


def logit_of_product(a: Tensor, b: Tensor) -> Tensor:
    """``logit(sigmoid(a) * sigmoid(b))``, finite for any finite input.

    GFLv2's score is a product of two sigmoids. As the logit of that product it passes through GFL's own loss and
    post-processing, which apply the sigmoid themselves, and quality focal loss on it equals the one on activated scores.
    """
    log_score = (F.logsigmoid(a) + F.logsigmoid(b)).clamp(max=-1e-7)
    return log_score - torch.log(-torch.expm1(log_score))


class QualityPredictor(nn.Sequential):
    """Box distribution to quality: statistics, 1x1 convolution, ReLU, 1x1 convolution; the sigmoid is the caller's.

    Args:
        reg_max: the distribution has ``reg_max + 1`` bins a side, at least 4.
        conf_channels: width of the hidden layer.

    Raises:
        ValueError: the distribution has fewer bins than the statistics take.
    """

    def __init__(self, reg_max: int, conf_channels: int = 64) -> None:
        if reg_max + 1 < TOP:
            raise ValueError(
                f"reg_max = {reg_max}: the quality predictor reads the {TOP} likeliest bins of a side, so it must be at least 3"
            )
        super().__init__(nn.Conv2d(4 * (TOP + 1), conf_channels, 1), nn.ReLU(), nn.Conv2d(conf_channels, 1, 1))
        self.reg_max = reg_max

    def forward(self, side_logits: Tensor) -> Tensor:
        """``(N, 4 * (reg_max + 1), H, W)`` side logits, with gradient, to quality logits ``(N, 1, H, W)``."""
        return super().forward(quality_statistics(side_logits, self.reg_max))


class QualityMixin:
    """Put before a GFL head in the bases: the quality predictor, and the towers' last convolution deformable if asked for.

    Args:
        conf_channels: width of the quality predictor.
        dcn_on_last_conv: the last convolution of both towers is a modulated deformable one (DCNv2), as in two released models.
        others: those of the GFL head.

    Raises:
        ValueError: ``dcn_on_last_conv`` without a tower convolution, or ``reg_max`` below 3.
    """

    def __init__(self, *args: Any, conf_channels: int = 64, dcn_on_last_conv: bool = False, **kwargs: Any) -> None:
        self.dcn_on_last_conv = dcn_on_last_conv
        super().__init__(*args, **{"init_cfg": INIT} | kwargs)
        head: Any = self
        # named as in the released code, so that its weights fit
        self.reg_conf = QualityPredictor(head.reg_max, conf_channels)

    def _init_layers(self) -> None:
        super()._init_layers()  # type: ignore[misc]
        if self.dcn_on_last_conv:
            self._make_last_convs_deformable()

    def _make_last_convs_deformable(self) -> None:
        head: Any = self
        if not head.stacked_convs:
            raise ValueError(
                "stacked_convs = 0: dcn_on_last_conv replaces the last convolution of each tower, so there must be at least one"
            )
        for tower in (head.cls_convs, head.reg_convs):
            inputs = tower[-1].in_channels
            conv_cfg = dict(type="DCNv2")
            tower[-1] = ConvModule(inputs, head.feat_channels, 3, padding=1, conv_cfg=conv_cfg, norm_cfg=head.norm_cfg)

    def with_quality(self, cls_logit: Tensor, side_logits: Tensor) -> Tensor:
        """Logit of class score times quality: ``(N, classes, H, W)`` class logits and side logits in, the former's shape out.

        The class loss flows back through the quality into the box distribution, as in GFLv2.
        """
        quality_logit = self.reg_conf(side_logits)
        return logit_of_product(cls_logit.to(side_logits.dtype), quality_logit.to(side_logits.dtype))


@MODELS.register_module()
class GFLv2Head(QualityMixin, GFLHead):
    """GFLv2's head: mmdet's GFL head with the quality predictor. Weights of the released GFLv2 models fit by name.

    Args:
        conf_channels, dcn_on_last_conv: see :class:`QualityMixin`.
        others: those of mmdet's ``GFLHead``.
    """

    def forward_single(self, x: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
        """One level: logits of class score times quality, and side logits ``(N, 4 * (reg_max + 1), H, W)``."""
        cls_logit, side_logits = super().forward_single(x, scale)
        return self.with_quality(cls_logit, side_logits), side_logits
