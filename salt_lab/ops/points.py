"""Where the points of the operator lie: R-points from a coarse box and scale factors, C-points from R-points and predicted vectors.

Shape legend: N images, K points, F = 2K - 4 scale factors, H x W cells. Lengths are in cells of the level, measured from the cell itself.
Distances are ordered left, top, right, bottom; points are y first.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Kernel position of the left, top, right and bottom point, then of the inside points, for the published K = 9 (salt.md section 2, step 4).
PUBLISHED_ORDER = (3, 1, 5, 7, 0, 2, 4, 6, 8)
MIN_POINTS = 4


def num_factors(num_points: int) -> int:
    """Scale factors needed to place ``num_points``: one for each of the four side points, two for each inside point."""
    if num_points < MIN_POINTS:
        raise ValueError(f"num_points = {num_points}: a point set needs at least {MIN_POINTS} points (one per side)")
    return 2 * num_points - 4


def kernel_order(num_points: int) -> tuple[int, ...]:
    """Kernel position of each placed point, listed as left, top, right, bottom, then inside points.

    K = 9 follows the released code; for any other K the placed order is the kernel order **(ours)**.
    """
    num_factors(num_points)
    return PUBLISHED_ORDER if num_points == 9 else tuple(range(num_points))


def place_r_points(distances_N4HW: Tensor, factors_NFHW: Tensor, num_points: int) -> Tensor:
    """R-points: four slide along the sides of the coarse box, the others lie anywhere inside it (salt.md section 2, step 4).

    Args:
        distances_N4HW: coarse distances to left, top, right, bottom; cells, >= 0.
        factors_NFHW: scale factors in 0..1: one for each side (left, top, right, bottom), then y and x for each inside point.
        num_points: K >= 4.

    Returns:
        ``(N, K, 2, H, W)`` points in cells from each cell's position, y first.

    Raises:
        ValueError: ``num_points`` < 4 or the number of scale factors is not 2K - 4.
    """
    if factors_NFHW.shape[1] != num_factors(num_points):
        raise ValueError(f"{num_points} points need {num_factors(num_points)} scale factors, got {factors_NFHW.shape[1]}")
    left, top, right, bottom = distances_N4HW.unbind(1)
    width, height = left + right, top + bottom
    q_left, q_top, q_right, q_bottom = factors_NFHW[:, :4].unbind(1)
    sides = [
        torch.stack([q_left * height - top, -left], dim=1),
        torch.stack([-top, q_top * width - left], dim=1),
        torch.stack([q_right * height - top, right], dim=1),
        torch.stack([bottom, q_bottom * width - left], dim=1),
    ]
    placed_NK2HW = torch.stack(sides, dim=1)
    if num_points > MIN_POINTS:
        q_NI2HW = factors_NFHW[:, 4:].unflatten(1, (num_points - MIN_POINTS, 2))
        extent_N12HW = torch.stack([height, width], dim=1).unsqueeze(1)
        corner_N12HW = torch.stack([top, left], dim=1).unsqueeze(1)
        placed_NK2HW = torch.cat([placed_NK2HW, q_NI2HW * extent_N12HW - corner_N12HW], dim=1)
    order = kernel_order(num_points)
    if order == tuple(range(num_points)):
        return placed_NK2HW
    at = [order.index(k) for k in range(num_points)]
    return placed_NK2HW[:, at]


#: exp(v) is held below this factor (ours): e^8 cells is farther than any map is wide, and float32 stays finite through the products.
MAX_LOG_FACTOR = 8.0


def move_c_points(r_points_NK2HW: Tensor, vectors_NK2HW: Tensor, stop_gradient: bool = True) -> Tensor:
    """C-points: ``exp(v) * stop_gradient(R-points)``, elementwise, in float32 (salt.md section 2, step 6).

    The stopped gradient keeps classification from pulling on the regression branch; ``stop_gradient=False`` lets it pull. ``v`` is held at or below
    :data:`MAX_LOG_FACTOR` **(ours)** so that ``exp`` cannot overflow.

    Args and result have shape ``(N, K, 2, H, W)``, in cells, y first.
    """
    factor = vectors_NK2HW.to(r_points_NK2HW.dtype).clamp(max=MAX_LOG_FACTOR).exp()
    return factor * (r_points_NK2HW.detach() if stop_gradient else r_points_NK2HW)


def boxes_from_distances(centres_P2: Tensor, distances_P4: Tensor) -> Tensor:
    """Corners ``(x1, y1, x2, y2)`` of boxes given as distances (left, top, right, bottom) from centres ``(x, y)``; one unit for all."""
    x, y = centres_P2.unbind(-1)
    left, top, right, bottom = distances_P4.unbind(-1)
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)
