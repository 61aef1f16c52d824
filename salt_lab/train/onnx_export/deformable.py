"""Deformable convolutions while a graph is recorded.

mmcv's autograd functions would record themselves as operators that no runtime knows. For that time they are replaced by the lab's own
reading of columns (:mod:`salt_lab.ops.deform`): ``GridSample`` and a product of matrices, which ONNX has.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from salt_lab.ops.deform import Geometry, read_columns

Pair = int | tuple[int, int]


@contextlib.contextmanager
def plain_deformable(model: nn.Module) -> Iterator[None]:
    """Within it, every module of ``model`` that calls mmcv's ``deform_conv2d`` or ``modulated_deform_conv2d`` calls ours."""
    names: dict[str, Callable[..., Tensor]] = {"deform_conv2d": deform_conv2d, "modulated_deform_conv2d": modulated_deform_conv2d}
    homes = {kind.__module__ for module in model.modules() for kind in type(module).__mro__}
    places = [(sys.modules[home].__dict__, name) for home in sorted(homes) for name in names if name in sys.modules[home].__dict__]
    before = [space[name] for space, name in places]
    try:
        for space, name in places:
            space[name] = names[name]
        yield
    finally:
        for (space, name), function in zip(places, before, strict=True):
            space[name] = function


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
    bias: bool = False,
    im2col_step: int = 32,
) -> Tensor:
    """Version 1, with mmcv's arguments; ``(N, C, H, W)`` to ``(N, O, H', W')``."""
    return _convolve(x, offset, None, weight, None, _geometry(weight, stride, padding, dilation, groups, deform_groups))


def modulated_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Version 2: each column is weighed by the mask."""
    return _convolve(x, offset, mask, weight, bias, _geometry(weight, stride, padding, dilation, groups, deform_groups))


def _convolve(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    columns = read_columns(x, offset, mask, geometry)
    kernel = weight.reshape(geometry.groups, weight.shape[0] // geometry.groups, -1)
    product = torch.matmul(kernel, columns).reshape(x.shape[0], weight.shape[0], *offset.shape[2:])
    return product if bias is None else product + bias[:, None, None]


def _geometry(weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int, deform_groups: int) -> Geometry:
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    return Geometry(kernel, _pair(stride), _pair(padding), _pair(dilation), groups, deform_groups)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
