"""Bilinear reading of a feature map at real-valued positions: the one sampler that every op of the lab shares.

Point convolution and the portable deformable convolutions (v1, v2) read their columns here, so they agree on borders and gradients.

Legend: N images, C channels, H x W cells, P points per image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(x_NCHW: Tensor, coords_NP2: Tensor) -> Tensor:
    """Read ``x`` bilinearly at absolute positions; everything outside the map is zero.

    As mmcv's deformable convolution reads: a point between -1 and 0 (or H-1 and H) mixes the border cell with zero; a point at or beyond -1
    or H, however far (also infinite, also NaN), reads zero and gets and gives no gradient.

    Args:
        x_NCHW: the map, any floating dtype, H and W at least 1.
        coords_NP2: ``(y, x)`` in cells from the centre of cell (0, 0), y first: cell ``(i, j)`` sits at ``y = i, x = j``. Positions are
            computed in float32 at least, whatever their dtype: half precision cannot tell neighbouring cells of a large map apart.

    Returns:
        Tensor of shape ``(N, C, P)``, dtype and device of ``x_NCHW``, differentiable with respect to both arguments. Exactly on a cell,
        where bilinear reading has a kink, the position's gradient is that of one of the two sides (which one is left to rounding).
    """
    n, c, height, width = x_NCHW.shape
    if x_NCHW.numel() == 0 or coords_NP2.numel() == 0:
        return _empty(x_NCHW, coords_NP2)
    dtype = torch.promote_types(x_NCHW.dtype, torch.float32)
    grid_NP2 = _normalise(coords_NP2.to(dtype), height, width)
    columns = F.grid_sample(x_NCHW.to(dtype), grid_NP2[:, None], mode="bilinear", padding_mode="zeros", align_corners=False)
    return columns.reshape(n, c, -1).to(x_NCHW.dtype)


def _normalise(coords_NP2: Tensor, height: int, width: int) -> Tensor:
    """Cells ``(y, x)`` to grid_sample's ``(x, y)``, which run from -1 to 1 over the map from edge to edge.

    Edge to edge (``align_corners=False``) because centre to centre would divide by zero on a map one cell high.
    """
    y_NP, x_NP = _inside(coords_NP2[..., 0], height), _inside(coords_NP2[..., 1], width)
    return torch.stack(((2 * x_NP + 1) / width - 1, (2 * y_NP + 1) / height - 1), dim=-1)


def _inside(at_NP: Tensor, size: int) -> Tensor:
    """Positions within one cell of the map as they are; all others, NaN too, at -2, where every reading is zero."""
    return torch.where((at_NP > -1) & (at_NP < size), at_NP, -2.0)


def _empty(x_NCHW: Tensor, coords_NP2: Tensor) -> Tensor:
    """No image, no channel or no point: an empty result that still has a gradient path to both arguments."""
    nothing = x_NCHW.sum() * 0 + coords_NP2.sum().to(x_NCHW.dtype) * 0
    return x_NCHW.new_zeros(x_NCHW.shape[0], x_NCHW.shape[1], coords_NP2.shape[1]) + nothing
