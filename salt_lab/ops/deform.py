"""Deformable convolution v1 and v2 in plain torch, with the signatures of mmcv's compiled ops.

mmcv's autograd Functions call these with output tensors to fill; column buffers that the compiled ops need are accepted and left alone.
Both are the same sum as point convolution: read the map at given positions (:mod:`salt_lab.ops.sampling`), weigh by the mask (v2), multiply.

Legend: N images, C input and O output channels, H x W cells of the input, Q = output cells, K = kernel height x width,
G deformable groups (channels that share positions), g convolution groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from salt_lab.ops.sampling import sample

#: Columns held at once, in bytes: batches are cut so that ``C x K x Q`` columns stay below it (one image at least).
MAX_COLUMN_BYTES = 256 * 2**20


class Geometry(NamedTuple):
    """Shape of a convolution, vertical before horizontal, in cells."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int


def positions(offset: Tensor, geometry: Geometry) -> Tensor:
    """Where the kernel reads: ``(N * G, K * Q, 2)`` absolute ``(y, x)`` in cells, float32 at least.

    Args:
        offset: mmcv's offsets ``(N, G * K * 2, H_out, W_out)``: y before x, measured from the regular kernel position.
        geometry: of the convolution.
    """
    n, _, height, width = offset.shape
    regular_K2HW = regular_positions(height, width, geometry, like=offset)
    at_MK2HW = offset.reshape(n * geometry.deform_groups, -1, 2, height, width) + regular_K2HW
    return at_MK2HW.flatten(3).transpose(2, 3).flatten(1, 2)


def regular_positions(height: int, width: int, geometry: Geometry, like: Tensor) -> Tensor:
    """``(K, 2, H_out, W_out)``: where the same convolution without offsets reads, in cells, float32 at least, on ``like``'s device."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    axes = []
    for axis, size in enumerate((height, width)):
        taps = torch.arange(geometry.kernel[axis], device=like.device, dtype=dtype) * geometry.dilation[axis]
        cells = torch.arange(size, device=like.device, dtype=dtype) * geometry.stride[axis] - geometry.padding[axis]
        axes.append(taps[:, None] + cells)
    shape = (*geometry.kernel, height, width)
    return torch.stack((axes[0][:, None, :, None].expand(shape), axes[1][None, :, None, :].expand(shape)), dim=2).flatten(0, 1)


def read_columns(x_NCHW: Tensor, offset: Tensor, mask: Tensor | None, geometry: Geometry) -> Tensor:
    """``(N, g, C / g * K, Q)``: what the kernel sees at each output cell, weighed by the mask ``(N, G * K, H_out, W_out)`` if there is one."""
    n, channels, height, width = x_NCHW.shape
    deform_groups, taps = geometry.deform_groups, geometry.kernel[0] * geometry.kernel[1]
    per_group = x_NCHW.reshape(n * deform_groups, channels // deform_groups, height, width)
    read = sample(per_group, positions(offset, geometry)).reshape(n, deform_groups, channels // deform_groups, taps, -1)
    if mask is not None:
        read = read * mask.reshape(n, deform_groups, 1, taps, -1)
    return read.reshape(n, geometry.groups, channels // geometry.groups * taps, -1)


def convolve(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, output: Tensor, geometry: Geometry
) -> None:
    """Fill ``output``, ``(N, O, H_out, W_out)``.

    Raises:
        ValueError: offset or mask have not the shape that input, kernel, stride, padding and groups ask for.
    """
    _check_shapes(x, offset, mask, output, geometry)
    kernel_gOL = weight.reshape(geometry.groups, weight.shape[0] // geometry.groups, -1)
    with torch.autocast(x.device.type, enabled=False):  # mmcv has chosen the types already
        for part in _batches(x, offset, geometry):
            columns = read_columns(x[part], offset[part], None if mask is None else mask[part], geometry)
            product = torch.matmul(kernel_gOL, columns).reshape(output[part].shape)
            output[part] = product if bias is None else product + bias[:, None, None]


def _check_shapes(x: Tensor, offset: Tensor, mask: Tensor | None, output: Tensor, geometry: Geometry) -> None:
    """Say what was expected before a reshape deep inside fails."""
    taps = geometry.deform_groups * geometry.kernel[0] * geometry.kernel[1]
    for name, tensor, channels in (("offset", offset, 2 * taps), ("mask", mask, taps)):
        expected = (x.shape[0], channels, *output.shape[2:])
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(f"deformable convolution: {name} has shape {tuple(tensor.shape)}, expected {expected} for {geometry}")


class Gradients(NamedTuple):
    """Tensors that receive gradients; None where nobody asks."""

    x: Tensor | None = None
    offset: Tensor | None = None
    mask: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None


def backpropagate(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, grad_output: Tensor, into: Gradients, geometry: Geometry
) -> None:
    """Add to ``into.x``, ``.weight``, ``.bias`` and overwrite ``into.offset``, ``.mask``, as the compiled ops do."""
    kernel_gOL = weight.reshape(geometry.groups, weight.shape[0] // geometry.groups, -1)
    grad_NgOQ = grad_output.reshape(x.shape[0], *kernel_gOL.shape[:2], -1) if len(x) else grad_output
    with torch.autocast(x.device.type, enabled=False):
        for part in _batches(x, offset, geometry):
            sources = [source[part].detach() for source in (x, offset, mask) if source is not None]
            leaves = [source.requires_grad_(into.x is not None) for source in sources]
            with torch.enable_grad():
                columns = read_columns(leaves[0], leaves[1], leaves[2] if mask is not None else None, geometry)
            if into.weight is not None:
                into.weight.add_(torch.matmul(grad_NgOQ[part], columns.detach().transpose(2, 3)).sum(0).reshape(weight.shape))
            if into.x is not None:
                grads = torch.autograd.grad(columns, leaves, torch.matmul(kernel_gOL.transpose(1, 2), grad_NgOQ[part]))
                _store(grads, part, into)
    if into.bias is not None:
        into.bias.add_(grad_output.sum((0, 2, 3)))


def _store(grads: tuple[Tensor, ...], part: slice, into: Gradients) -> None:
    """Gradients of map, offsets and (v2) mask of some images to their places."""
    for target, grad, adds in zip((into.x, into.offset, into.mask), grads, (True, False, False), strict=False):
        if target is not None:
            target[part] = target[part] + grad if adds else grad


def _batches(x: Tensor, offset: Tensor, geometry: Geometry) -> Iterator[slice]:
    """Slices of the batch whose columns fit into ``MAX_COLUMN_BYTES``."""
    taps = geometry.kernel[0] * geometry.kernel[1]
    per_image = x.shape[1] * taps * offset.shape[2] * offset.shape[3] * max(4, x.element_size())
    step = max(1, MAX_COLUMN_BYTES // max(1, per_image))
    for start in range(0, x.shape[0], step):
        yield slice(start, start + step)


def first_values(tensor: Tensor, size: torch.Size) -> Tensor:
    """Offsets or mask ``(N, D, H, W)`` for an output of ``size`` cells, as v2's compiled kernels read them: they count through the memory by
    the output's cells and never ask for the tensor's own. mmdet's DyHead hands them a finer level's offsets and was trained so
    (mmdetection issue 11146, GLIP issue 52); of those they read the first ``D x h x w`` values of each image.
    """
    count = tensor.shape[1] * size.numel()
    if tensor.shape[2:] == size or tensor[0:1].numel() < count:  # too few values are refused further on
        return tensor
    return tensor.flatten(1)[:, :count].unflatten(1, (tensor.shape[1], *size))


def _geometry_v1(options: dict[str, int]) -> Geometry:
    """mmcv's keywords of v1, which are horizontal first."""
    pairs = (
        (options["kH"], options["kW"]), (options["dH"], options["dW"]), (options["padH"], options["padW"]),
        (options["dilationH"], options["dilationW"]),
    )  # fmt: skip
    return Geometry(*pairs, groups=options["group"], deform_groups=options["deformable_group"])


def _geometry_v2(options: dict[str, int]) -> Geometry:
    """mmcv's keywords of v2."""
    kernel, stride, padding, dilation = ((options[f"{name}_h"], options[f"{name}_w"]) for name in ("kernel", "stride", "pad", "dilation"))
    return Geometry(kernel, stride, padding, dilation, groups=options["group"], deform_groups=options["deformable_group"])


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **options: int
) -> None:
    """v1: fill ``output``. Options: kW, kH, dW, dH (stride), padW, padH, dilationW, dilationH, group, deformable_group, im2col_step (unused)."""
    convolve(input, offset, None, weight, None, output, _geometry_v1(options))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **options: int,
) -> None:
    """v1: gradients of the map (added) and of the offsets (overwritten). Options as forward."""
    backpropagate(input, offset, None, weight, gradOutput, Gradients(x=gradInput, offset=gradOffset), _geometry_v1(options))


def deform_conv_backward_parameters(
    input: Tensor, offset: Tensor, gradOutput: Tensor, gradWeight: Tensor, columns: Tensor, ones: Tensor, scale: float = 1, **options: int
) -> None:
    """v1: ``scale`` times the gradient of the weights, added to ``gradWeight``. Options as forward."""
    backpropagate(input, offset, None, gradWeight, gradOutput * scale, Gradients(weight=gradWeight), _geometry_v1(options))


def modulated_deform_conv_forward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor, output: Tensor, columns: Tensor,
    *, with_bias: bool, **options: int,
) -> None:  # fmt: skip
    """v2: fill ``output``. Options: kernel_h, kernel_w, stride_*, pad_*, dilation_*, group, deformable_group; ``bias`` is empty without one."""
    offset, mask = (first_values(each, output.shape[2:]) for each in (offset, mask))
    convolve(input, offset, mask, weight, bias if with_bias else None, output, _geometry_v2(options))


def modulated_deform_conv_backward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor, columns: Tensor, grad_input: Tensor,
    grad_weight: Tensor, grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor, *, with_bias: bool, **options: int,
) -> None:  # fmt: skip
    """v2: gradients of map, weights and bias (added), offsets and mask (overwritten). Options as forward."""
    offset, mask = (first_values(each, grad_output.shape[2:]) for each in (offset, mask))
    used = Gradients(grad_input, torch.zeros_like(offset), torch.zeros_like(mask), grad_weight, grad_bias if with_bias else None)
    backpropagate(input, offset, mask, weight, grad_output, used, _geometry_v2(options))
    for target, values in ((grad_offset, used.offset), (grad_mask, used.mask)):
        if values is not None:
            target.copy_(pad(values.flatten(1), (0, target[0].numel() - values[0].numel())).view_as(target) if len(target) else target)
