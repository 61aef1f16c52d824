"""The SALT operator as a module that knows no host: between a detector's towers and its predictors.

Source of every step: arXiv 2108.12176 section 3 and the released code, as numbered in the design's "The operator".
Shape legend: N images, C channels, K points, F = 2K - 4 scale factors, H x W cells.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmcv.cnn import Scale
from torch import Tensor, nn

from salt_lab.ops.point_conv import point_conv
from salt_lab.ops.points import move_c_points, num_factors, place_r_points

GROUPS = 32


class Aligned(NamedTuple):
    """What the operator returns for one pyramid level."""

    cls_feat: Tensor  #: (N, C, H, W) feature for the host's classification predictor
    reg_feat: Tensor  #: (N, C, H, W) feature for the host's regression predictor
    coarse_N4HW: Tensor  #: coarse distances left, top, right, bottom, cells, >= 0, float32
    r_points_NK2HW: Tensor  #: R-points, cells from each cell, y first, float32
    c_points_NK2HW: Tensor  #: C-points, likewise


class PointConvLayer(nn.Module):
    """Point convolution, GroupNorm(32), ReLU: ``(N, C, H, W)`` and ``(N, K, 2, H, W)`` points to ``(N, C, H, W)``."""

    def __init__(self, channels: int, num_points: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, num_points))
        self.norm = nn.GroupNorm(GROUPS, channels)
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, x_NCHW: Tensor, points_NK2HW: Tensor) -> Tensor:
        """Gather, mix, normalise, rectify."""
        return self.norm(point_conv(x_NCHW, points_NK2HW, self.weight)).relu()


class Hidden(nn.Sequential):
    """3x3 convolution with bias, GroupNorm(32), ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(_conv3x3(channels, channels), nn.GroupNorm(GROUPS, channels), nn.ReLU())


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _full(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class SALT(nn.Module):
    """Spatially aligned features for both tasks: R-points for regression, C-points for classification.

    Args:
        channels: C of the towers, a multiple of 32 (GroupNorm).
        num_points: K >= 4.
        num_levels: pyramid levels; each has its own learnt scale of the coarse distances, starting at 1.
        long_skip: add the level's feature to the classification feature first (step 1; needs equal channels).

    Raises:
        ValueError: fewer than 4 points, or channels not a multiple of 32.
    """

    def __init__(self, channels: int, num_points: int = 9, num_levels: int = 5, long_skip: bool = True) -> None:
        super().__init__()
        if channels % GROUPS:
            raise ValueError(f"channels = {channels}: the operator's GroupNorm needs a multiple of {GROUPS}")
        self.num_points = num_points
        self.long_skip = long_skip
        self.coarse_hidden = Hidden(channels)
        self.coarse_out = _conv3x3(channels, 4)
        self.factors_out = _conv3x3(channels, num_factors(num_points))
        self.vectors_hidden = Hidden(channels)
        self.vectors_out = _conv3x3(channels, 2 * num_points)
        self.reg_align = PointConvLayer(channels, num_points)
        self.cls_align = PointConvLayer(channels, num_points)
        self.scales = nn.ModuleList(Scale(1.0) for _ in range(num_levels))

    def forward(self, x: Tensor, cls_feat: Tensor, reg_feat: Tensor, level: int) -> Aligned:
        """Align one level.

        Args:
            x: ``(N, C, H, W)`` the level's feature from the neck.
            cls_feat, reg_feat: ``(N, C, H, W)`` after the host's towers.
            level: which pyramid level, 0 is the finest.
        """
        if self.long_skip:
            cls_feat = cls_feat + x
        hidden = self.coarse_hidden(reg_feat)
        # distances, factors and points stay in float32 under AMP: half precision is coarser than a cell far from the centre
        coarse_N4HW = self.scales[level](_full(self.coarse_out(hidden)).relu())
        factors_NFHW = _full(self.factors_out(hidden)).sigmoid()
        r_points = place_r_points(coarse_N4HW, factors_NFHW, self.num_points)
        vectors = _full(self.vectors_out(self.vectors_hidden(cls_feat))).unflatten(1, (self.num_points, 2))
        c_points = move_c_points(r_points, vectors)
        return Aligned(self.cls_align(cls_feat, c_points), self.reg_align(reg_feat, r_points), coarse_N4HW, r_points, c_points)
