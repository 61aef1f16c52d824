"""Point convolution: a convolution whose kernel positions are given by the caller, one set of K points per cell.

Shape legend: N images, C input channels, O output channels, K points, H x W cells.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from salt_lab.errors import UserError, did_you_mean
from salt_lab.ops.backends import POINT_CONV_BACKENDS, POINT_CONV_VARIABLE, default_backend
from salt_lab.ops.fused_point_conv import fused_point_conv, why_not
from salt_lab.ops.sampling import sample


def cell_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Positions of the cells themselves: ``(2, H, W)``, y first, in cells, on ``like``'s device and in float32 (float64 if it is)."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    y = torch.arange(height, device=like.device, dtype=dtype)
    x = torch.arange(width, device=like.device, dtype=dtype)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"))


def point_conv(x_NCHW: Tensor, points_NK2HW: Tensor, weight_OCK: Tensor, backend: str | None = None) -> Tensor:
    """Gather ``x`` bilinearly at each cell's K points and mix channels and points with ``weight``.

    ``out[o](p) = sum_k sum_c weight[o, c, k] * x[c](p + points[k](p))``, zero outside the map (salt.md section 1). Equal to a
    deformable convolution (v1, 3x3, pad 1, no bias) whose offsets are the points minus the 3x3 grid, but for any K >= 1.

    Args:
        x_NCHW: feature map.
        points_NK2HW: points in cells, measured from each cell's own position, y before x. Read in float32 (or float64), never in half precision.
        weight_OCK: weights, of ``x``'s type.
        backend: "numba" (loops for the CPU) and "triton" (kernels for CUDA devices), both without all columns in memory; "portable" (torch,
            anywhere); "auto": numba or triton where they work, else portable. None: what the environment variable ``SALT_LAB_POINT_CONV``
            says, else "auto" on a CPU and "portable" on a GPU (the Triton kernels have not run on a device yet).

    Returns:
        ``(N, O, H, W)`` in ``x``'s type (autocast applies to the product).

    Raises:
        ValueError: the shapes do not fit together.
        UserError: an unknown backend, or "numba" or "triton" where they do not work, with the reason.
    """
    N, C, H, W = x_NCHW.shape
    _, C_weight, K = weight_OCK.shape
    if points_NK2HW.shape != (N, K, 2, H, W) or C_weight != C:
        raise ValueError(
            f"point_conv: x {tuple(x_NCHW.shape)}, points {tuple(points_NK2HW.shape)} and weight {tuple(weight_OCK.shape)} do not fit: "
            f"expected points (N, K, 2, H, W) = {(N, K, 2, H, W)} and weight (O, C, K) with C = {C}"
        )
    if _fused(x_NCHW, points_NK2HW, weight_OCK, backend or os.environ.get(POINT_CONV_VARIABLE) or default_backend(x_NCHW.device.type)):
        return fused_point_conv(x_NCHW, points_NK2HW, weight_OCK)
    return _portable(x_NCHW, points_NK2HW, weight_OCK)


def _portable(x_NCHW: Tensor, points_NK2HW: Tensor, weight_OCK: Tensor) -> Tensor:
    """Columns written to memory, then one matrix product: any device, any floating type."""
    N, C, H, W = x_NCHW.shape
    outputs, _, K = weight_OCK.shape
    at_NK2HW = points_NK2HW + cell_grid(H, W, like=points_NK2HW)
    at_NP2 = at_NK2HW.flatten(3).permute(0, 1, 3, 2).reshape(N, K * H * W, 2)
    columns_NCP = sample(x_NCHW, at_NP2)
    columns_NLP = columns_NCP.reshape(N, C * K, H * W)
    return torch.matmul(weight_OCK.reshape(outputs, C * K), columns_NLP).reshape(N, outputs, H, W)


def _fused(x_NCHW: Tensor, points_NK2HW: Tensor, weight_OCK: Tensor, backend: str) -> bool:
    """Whether our kernels compute these tensors. Exported graphs keep torch's own operators."""
    if backend not in POINT_CONV_BACKENDS:
        raise UserError(f"point_conv: {did_you_mean('backend', backend, POINT_CONV_BACKENDS)}; also in {POINT_CONV_VARIABLE}")
    if backend == "portable" or (backend == "auto" and torch.onnx.is_in_onnx_export()):
        return False
    kernels = ("triton" if x_NCHW.is_cuda else "numba") if backend == "auto" else backend
    reason = why_not(x_NCHW, points_NK2HW, weight_OCK, kernels)
    if reason and backend != "auto":
        raise UserError(f"point_conv: the {kernels} kernels cannot be used: {reason}. Choose the backend 'auto' or 'portable'")
    return reason is None
