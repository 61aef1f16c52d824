"""RoIAlign in plain torch, with the signatures of mmcv's compiled op: the features of a box as a small grid, for two-stage hosts.

Each of the grid's cells is the mean of a few bilinear readings spread evenly over its part of the box. ``sampling_ratio`` 0 takes about one
reading a cell of the map, so large boxes have more. The maximum in place of the mean (``pool_mode`` 0) is left to the compiled op.

Legend: N images, C channels, H x W cells of the map, R boxes, B = aligned_height x aligned_width cells of the grid, P readings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from salt_lab.errors import MissingOpError

#: readings held at once, ``C x P``: boxes are taken in turns so that it stays below (one box at least)
MAX_READINGS = 2**26


class Readings(NamedTuple):
    """Where some boxes of one image read, and what each reading counts for."""

    at_P2: Tensor  #: ``(y, x)`` in cells, cell (0, 0) has its centre at 0
    weight_P: Tensor  #: one over the readings of its grid cell; 0 outside the map
    bin_P: Tensor  #: which of the boxes' ``R * B`` grid cells it belongs to


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, *, aligned_height: int, aligned_width: int,
    spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Fill ``output``, ``(R, C, aligned_height, aligned_width)``.

    Args:
        input: ``(N, C, H, W)`` map.
        rois: ``(R, 5)`` image index, then x1 y1 x2 y2 in pixels; ``spatial_scale`` makes cells of them.
        output: filled.
        argmax_y, argmax_x: of the maximum; left alone.
        aligned_height, aligned_width: the grid.
        spatial_scale: cells per pixel.
        sampling_ratio: readings along each side of a grid cell; 0 = as many as it covers cells, rounded up.
        pool_mode: 1, the mean.
        aligned: pixels are areas (a box's edge lies half a pixel before a cell's centre); False is the older habit, with boxes of one cell at least.

    Raises:
        MissingOpError: ``pool_mode`` 0.
    """
    _only_mean(pool_mode)
    for image, rows, part in _parts(input, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned):
        read_CP = _read(input[image], part.at_P2)
        grid_CB = read_CP.new_zeros(len(read_CP), len(rows) * aligned_height * aligned_width)
        grid_CB.index_add_(1, part.bin_P, read_CP * part.weight_P.to(read_CP.dtype))
        output[rows] = grid_CB.unflatten(1, (len(rows), aligned_height, aligned_width)).transpose(0, 1).to(output.dtype)


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor, *, aligned_height: int, aligned_width: int,
    spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Add the map's gradient to ``grad_input``. The boxes get none, as in the compiled op. Arguments as forward."""
    _only_mean(pool_mode)
    for image, rows, part in _parts(grad_input, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned):
        grad_CB = grad_output[rows].transpose(0, 1).flatten(1)
        with torch.enable_grad():
            leaf = torch.zeros_like(grad_input[image]).requires_grad_()  # reading is linear: the map's values do not matter
            read_CP = _read(leaf, part.at_P2)
        grad_CP = (grad_CB[:, part.bin_P] * part.weight_P).to(read_CP.dtype)
        grad_input[image] += torch.autograd.grad(read_CP, leaf, grad_CP)[0]


def _only_mean(pool_mode: int) -> None:
    if pool_mode != 1:
        raise MissingOpError("RoIAlign with pool_mode='max' is not among the portable ops: take 'avg', mmdet's own, or the compiled mmcv")


def _parts(
    x_NCHW: Tensor, rois: Tensor, grid: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Iterator[tuple[int, Tensor, Readings]]:
    """Image, rows of ``rois`` and their readings, in turns that fit into memory."""
    for image in range(len(x_NCHW)):
        rows_R = torch.nonzero(rois[:, 0] == image).flatten()
        boxes_R4 = rois[rows_R, 1:].to(torch.promote_types(rois.dtype, torch.float32)) * scale - (0.5 if aligned else 0.0)
        sides_R2 = (boxes_R4[:, 2:] - boxes_R4[:, :2]).flip(1)  # height, width
        sides_R2 = sides_R2 if aligned else sides_R2.clamp(min=1)
        steps_R2 = sides_R2 / sides_R2.new_tensor(grid)
        counts_R2 = torch.full_like(steps_R2, ratio) if ratio > 0 else steps_R2.ceil().clamp(min=0)
        most = int(counts_R2.amax(0).prod()) if len(rows_R) else 0
        turn = max(1, MAX_READINGS // max(1, x_NCHW.shape[1] * grid[0] * grid[1] * most))
        for start in range(0, len(rows_R), turn):
            now = slice(start, start + turn)
            first_R2 = boxes_R4[now, :2].flip(1)
            yield image, rows_R[now], _readings(first_R2, steps_R2[now], counts_R2[now], grid, x_NCHW.shape[2:])


def _readings(first_R2: Tensor, steps_R2: Tensor, counts_R2: Tensor, grid: tuple[int, int], size: torch.Size) -> Readings:
    """Readings of boxes whose corners are ``first``, grid cells ``steps`` large, with ``counts`` readings along each side of one."""
    axes, there = [], []
    for axis in (0, 1):
        taps = torch.arange(int(counts_R2[:, axis].amax()), device=first_R2.device)
        cells = torch.arange(grid[axis], device=first_R2.device)
        count_R11, step_R11 = counts_R2[:, axis, None, None], steps_R2[:, axis, None, None]
        axes.append(first_R2[:, axis, None, None] + (cells[:, None] + (taps + 0.5) / count_R11) * step_R11)
        there.append((taps < count_R11).expand_as(axes[axis]))
    y, x = axes[0][:, :, None, :, None], axes[1][:, None, :, None, :]  # box, grid row, grid column, reading down, reading across
    used = there[0][:, :, None, :, None] & there[1][:, None, :, None, :]
    at_P2 = torch.stack(torch.broadcast_tensors(y, x), dim=-1)[used]
    bins = torch.arange(len(first_R2) * grid[0] * grid[1], device=first_R2.device).reshape(-1, *grid, 1, 1).expand_as(used)[used]
    weight = (1 / counts_R2.prod(1).clamp(min=1))[:, None, None, None, None].expand_as(used)[used]
    inside = ((at_P2 >= -1) & (at_P2 <= at_P2.new_tensor(list(size)))).all(1)
    return Readings(at_P2, weight * inside, bins)


def _read(x_CHW: Tensor, at_P2: Tensor) -> Tensor:
    """``(C, P)`` bilinear readings, float32 at least; beyond the outermost centres the border's value goes on."""
    dtype = torch.promote_types(x_CHW.dtype, torch.float32)
    size = at_P2.new_tensor(x_CHW.shape[1:])
    grid_P2 = ((2 * torch.minimum(at_P2.clamp(min=0), size - 1) + 1) / size - 1).flip(1).to(dtype)
    return F.grid_sample(x_CHW[None].to(dtype), grid_P2[None, None], padding_mode="border", align_corners=False)[0, :, 0]
