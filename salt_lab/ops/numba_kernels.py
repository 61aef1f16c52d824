"""The reading and scattering loops of point convolution on a CPU, compiled by numba; importing this file imports numba.

A cell's channels lie side by side in memory (channels last), so each corner of a bilinear reading is one run of C numbers that vector
instructions add up; torch's ``grid_sample`` reads them one by one, a plane apart. What is arithmetic (the matrix products) is left to torch.

Legend: N images, C channels, K points, H x W cells; M = N * H * W cells counted through the batch; L cells at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from salt_lab.ops.jit import compiled

#: Sums may be reordered and multiply-adds fused, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "contract", "nsz"}


@compiled(fastmath=_FASTMATH)
def read_columns(x_NHWC: Any, points_NK2HW: Any, start: int, first: int, last: int, columns_LKC: Any) -> None:
    """Fill rows ``first`` to ``last`` of ``columns`` with the bilinear readings of cell ``start + row``; zero outside the map."""
    H, W, C = x_NHWC.shape[1:]
    real = x_NHWC.dtype.type
    zero, one, outside_C = real(0), real(1), np.zeros(C, x_NHWC.dtype)
    for row in range(first, last):
        n, cell = divmod(start + row, H * W)
        i, j = divmod(cell, W)
        for k in range(points_NK2HW.shape[1]):
            column_C = columns_LKC[row, k]
            y, x = points_NK2HW[n, k, 0, i, j] + real(i), points_NK2HW[n, k, 1, i, j] + real(j)
            if not (y > -1 and y < H and x > -1 and x < W):
                column_C[:] = zero
                continue
            top, left = int(np.floor(y)), int(np.floor(x))
            down, right = y - real(top), x - real(left)
            up, before = one - down, one - right
            nw_C = x_NHWC[n, top, left] if top >= 0 and left >= 0 else outside_C
            ne_C = x_NHWC[n, top, left + 1] if top >= 0 and left + 1 < W else outside_C
            sw_C = x_NHWC[n, top + 1, left] if top + 1 < H and left >= 0 else outside_C
            se_C = x_NHWC[n, top + 1, left + 1] if top + 1 < H and left + 1 < W else outside_C
            nw, ne, sw, se = up * before, up * right, down * before, down * right
            for c in range(C):
                column_C[c] = nw * nw_C[c] + ne * ne_C[c] + sw * sw_C[c] + se * se_C[c]


@compiled(fastmath=_FASTMATH)
def scatter_columns(
    x_NHWC: Any, points_NK2HW: Any, start: int, rows: int, c_first: int, c_last: int, grad_LKC: Any, grad_x_NHWC: Any, grad_points_LK2: Any
) -> None:
    """The way back of :func:`read_columns` for the channels ``c_first`` to ``c_last``.

    Adds the columns' gradient to that of the map and writes what these channels give to the points' gradient. Other channels are not touched,
    so threads with channels of their own need no locks, and the map's sums have one order however many threads there are.
    """
    H, W = x_NHWC.shape[1:3]
    real = x_NHWC.dtype.type
    zero, one = real(0), real(1)
    for row in range(rows):
        n, cell = divmod(start + row, H * W)
        i, j = divmod(cell, W)
        for k in range(points_NK2HW.shape[1]):
            y, x = points_NK2HW[n, k, 0, i, j] + real(i), points_NK2HW[n, k, 1, i, j] + real(j)
            by_y, by_x = zero, zero
            if y > -1 and y < H and x > -1 and x < W:
                top, left = int(np.floor(y)), int(np.floor(x))
                down, right = y - real(top), x - real(left)
                grad_C = grad_LKC[row, k]
                for corner in range(4):
                    v, u = corner // 2, corner % 2
                    at_y, at_x = top + v, left + u
                    if at_y < 0 or at_y >= H or at_x < 0 or at_x >= W:
                        continue
                    along_y, along_x = (down if v else one - down), (right if u else one - right)
                    dot = _add_corner(x_NHWC[n, at_y, at_x], grad_C, along_y * along_x, c_first, c_last, grad_x_NHWC[n, at_y, at_x])
                    by_y += dot * (along_x if v else -along_x)
                    by_x += dot * (along_y if u else -along_y)
            grad_points_LK2[row, k, 0], grad_points_LK2[row, k, 1] = by_y, by_x


@compiled(fastmath=_FASTMATH)
def _add_corner(x_C: Any, grad_C: Any, share: Any, c_first: int, c_last: int, grad_x_C: Any) -> Any:
    """Give a corner its share of the gradient; the product of the two tells how the reading changes with that corner's weight."""
    dot = x_C.dtype.type(0)
    for c in range(c_first, c_last):
        dot += x_C[c] * grad_C[c]
        grad_x_C[c] += share * grad_C[c]
    return dot
