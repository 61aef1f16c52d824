"""The SALT operator as a module that knows no host: between a detector's towers and its predictors.

Source of every step: arXiv 2108.12176 section 3 and the released code, as numbered in the design's "The operator".
Shape legend: N images, C channels, K points, F = 2K - 4 scale factors, H x W cells.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    coarse_N4HW: Tensor  #: coarse distances left, top, right, bottom, cells, >= 0, float32; zeros on a level without the operator
    r_points_NK2HW: Tensor | None  #: R-points, cells from each cell, y first, float32; None where no feature is gathered at points
    c_points_NK2HW: Tensor | None  #: the points at which class features were gathered, likewise


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

    The keywords switch parts of the operator off, each giving the next simpler model; none of them has the part's parameters.

    Args:
        channels: C of the towers, a multiple of 32 (GroupNorm).
        num_points: K >= 4.
        num_levels: pyramid levels; each has its own learnt scale of the coarse distances, starting at 1.
        long_skip: add the level's feature to the feature of this task first: "none", "cls" (step 1), "reg" or "both" (needs equal channels).
        reg_at: where box features are gathered: "r_points", or "cell" (the host's own feature).
        cls_at: where class features are gathered: "c_points", "r_points" (no vectors: the points as they are), or "cell".
        stop_gradient: no gradient from class features into the points' box side (step 6).
        levels: indices of the levels on which the operator acts, 0 is the finest; None = all. Elsewhere features pass unchanged.

    Raises:
        ValueError: fewer than 4 points, channels not a multiple of 32, or a level that is not there.
    """

    def __init__(
        self, channels: int, num_points: int = 9, num_levels: int = 5, *, long_skip: str = "cls", reg_at: str = "r_points",
        cls_at: str = "c_points", stop_gradient: bool = True, levels: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if channels % GROUPS:
            raise ValueError(f"channels = {channels}: the operator's GroupNorm needs a multiple of {GROUPS}")
        self.levels = tuple(range(num_levels)) if levels is None else tuple(levels)
        if not set(self.levels) <= set(range(num_levels)) or not self.levels:
            raise ValueError(f"levels = {levels}: the host has the levels 0 to {num_levels - 1}; name at least one")
        self.num_points, self.long_skip, self.stop_gradient = num_points, long_skip, stop_gradient
        gathers = reg_at == "r_points" or cls_at != "cell"
        self.coarse_hidden = Hidden(channels)
        self.coarse_out = _conv3x3(channels, 4)
        self.factors_out = _conv3x3(channels, num_factors(num_points)) if gathers else None
        self.vectors_hidden = Hidden(channels) if cls_at == "c_points" else None
        self.vectors_out = _conv3x3(channels, 2 * num_points) if cls_at == "c_points" else None
        self.reg_align = PointConvLayer(channels, num_points) if reg_at == "r_points" else None
        self.cls_align = PointConvLayer(channels, num_points) if cls_at != "cell" else None
        self.scales = nn.ModuleList(Scale(1.0) if level in self.levels else nn.Identity() for level in range(num_levels))

    def forward(self, x: Tensor, cls_feat: Tensor, reg_feat: Tensor, level: int) -> Aligned:
        """Align one level.

        Args:
            x: ``(N, C, H, W)`` the level's feature from the neck.
            cls_feat, reg_feat: ``(N, C, H, W)`` after the host's towers.
            level: which pyramid level, 0 is the finest.
        """
        if level not in self.levels:
            return Aligned(cls_feat, reg_feat, _full(x.new_zeros(len(x), 4, *x.shape[-2:])), None, None)
        cls_feat = cls_feat + x if self.long_skip in ("cls", "both") else cls_feat
        reg_feat = reg_feat + x if self.long_skip in ("reg", "both") else reg_feat
        hidden = self.coarse_hidden(reg_feat)
        # distances, factors and points stay in float32 under AMP: half precision is coarser than a cell far from the centre
        coarse_N4HW = self.scales[level](_full(self.coarse_out(hidden)).relu())
        if self.factors_out is None:
            return Aligned(cls_feat, reg_feat, coarse_N4HW, None, None)
        r_points = place_r_points(coarse_N4HW, _full(self.factors_out(hidden)).sigmoid(), self.num_points)
        c_points = self._class_points(cls_feat, r_points)
        if self.cls_align is not None:
            cls_feat = self.cls_align(cls_feat, c_points)
        if self.reg_align is not None:
            reg_feat = self.reg_align(reg_feat, r_points)
        return Aligned(cls_feat, reg_feat, coarse_N4HW, r_points, c_points)

    def _class_points(self, cls_feat: Tensor, r_points: Tensor) -> Tensor | None:
        """Where class features are gathered: R-points moved by predicted vectors, R-points themselves, or nowhere."""
        if self.vectors_hidden is not None and self.vectors_out is not None:
            vectors = _full(self.vectors_out(self.vectors_hidden(cls_feat))).unflatten(1, (self.num_points, 2))
            return move_c_points(r_points, vectors, self.stop_gradient)
        if self.cls_align is None:
            return None
        return r_points.detach() if self.stop_gradient else r_points
