"""Triton kernels of point convolution: gather and multiply in one launch, columns never written to memory. The only file that imports Triton.

Launched by :mod:`salt_lab.ops.fused_point_conv`; what they compute is defined by :func:`salt_lab.ops.point_conv.point_conv`.

Legend: N images, C input and O output channels, K points, Q = H * W cells. A tile is ``CELLS`` cells x ``BLOCK_C`` or ``BLOCK_O`` channels;
one program works on cells of one image. Maps lie in memory as NQC (channels last: a point's channels are read in one piece), weights as KCO,
points as NK2Q in float32. ``ROUND`` is the type in which the product's operands are rounded, as the portable path rounds its columns;
``FACTOR`` the type in which they are handed to ``tl.dot``: the same, but float32 in Triton's interpreter, whose ``dot`` reads bfloat16's bits as
integers (triton 3.7.1). Sums are float32.
"""

from __future__ import annotations

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]


@triton.jit
def _place(points_ptr, n, k, cell, live, K, H, W):
    """Upper left cell, way from it to the point (0 to 1), and whether the point reads anything: more than -1 and less than H, W; never NaN."""
    at = points_ptr + (n * K + k) * 2 * H * W + cell
    y = tl.load(at, mask=live, other=0.0) + (cell // W).to(tl.float32)
    x = tl.load(at + H * W, mask=live, other=0.0) + (cell % W).to(tl.float32)
    reads = live & (y > -1) & (y < H) & (x > -1) & (x < W)
    y, x = tl.where(reads, y, 0.0), tl.where(reads, x, 0.0)
    top, left = tl.floor(y), tl.floor(x)
    return top.to(tl.int32), left.to(tl.int32), y - top, x - left, reads


@triton.jit
def _corner(n, row, column, reads, H, W, C: tl.constexpr):
    """Where a corner's channels begin in an NQC map, and whether the corner is inside the map."""
    inside = reads & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    return ((n * H + row) * W + column) * C, inside


@triton.jit
def _read(x_ptr, n, row, column, reads, c, H, W, C: tl.constexpr):
    """``(CELLS, BLOCK_C)`` values at one corner, float32, zero outside the map."""
    at, inside = _corner(n, row, column, reads, H, W, C)
    return tl.load(x_ptr + at[:, None] + c[None, :], mask=inside[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _four(x_ptr, n, top, left, reads, c, H, W, C: tl.constexpr):
    """Values at the four corners: upper left, upper right, lower left, lower right."""
    return (
        _read(x_ptr, n, top, left, reads, c, H, W, C),
        _read(x_ptr, n, top, left + 1, reads, c, H, W, C),
        _read(x_ptr, n, top + 1, left, reads, c, H, W, C),
        _read(x_ptr, n, top + 1, left + 1, reads, c, H, W, C),
    )


@triton.jit
def _columns(x_ptr, n, top, left, down, right, reads, c, H, W, C: tl.constexpr):
    """``(CELLS, BLOCK_C)``: the map read bilinearly at one point of each cell, float32."""
    v00, v01, v10, v11 = _four(x_ptr, n, top, left, reads, c, H, W, C)
    up, near = (1 - down)[:, None], (1 - right)[:, None]
    return (v00 * near + v01 * right[:, None]) * up + (v10 * near + v11 * right[:, None]) * down[:, None]


@triton.jit
def _weight(weight_ptr, k, c, o, C: tl.constexpr, O: tl.constexpr):  # noqa: E741
    """``(BLOCK_C, BLOCK_O)`` weights of point ``k``."""
    return tl.load(weight_ptr + (k * C + c)[:, None] * O + o[None, :], mask=(c < C)[:, None] & (o < O)[None, :], other=0.0)


@triton.jit
def forward_kernel(
    x_ptr, points_ptr, weight_ptr, out_ptr, K, H, W, stride_n, stride_o, stride_q,
    C: tl.constexpr, O: tl.constexpr, CELLS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,  # noqa: E741
    ROUND: tl.constexpr, FACTOR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``out[n, o, q]`` for a tile of cells and output channels: sum over points and input channels. Grid: cells, images, outputs."""
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    n = tl.program_id(1)
    o = tl.program_id(2) * BLOCK_O + tl.arange(0, BLOCK_O)
    live = cell < H * W
    total = tl.zeros((CELLS, BLOCK_O), tl.float32)
    for k in range(K):
        top, left, down, right, reads = _place(points_ptr, n, k, cell, live, K, H, W)
        for c0 in range(0, C, BLOCK_C):
            c = c0 + tl.arange(0, BLOCK_C)
            columns = _columns(x_ptr, n, top, left, down, right, reads, c, H, W, C).to(ROUND).to(FACTOR)
            total = tl.dot(columns, _weight(weight_ptr, k, c, o, C, O).to(FACTOR), total, input_precision=PRECISION)
    at = out_ptr + n * stride_n + cell[:, None] * stride_q + o[None, :] * stride_o
    tl.store(at, total.to(out_ptr.dtype.element_ty), mask=live[:, None] & (o < O)[None, :])


@triton.jit
def _grad_at(grad_ptr, n, cell, live, o, stride_n, stride_o, stride_q, O: tl.constexpr):  # noqa: E741
    """``(CELLS, BLOCK_O)`` gradients of the result, in their own type."""
    at = grad_ptr + n * stride_n + cell[:, None] * stride_q + o[None, :] * stride_o
    return tl.load(at, mask=live[:, None] & (o < O)[None, :], other=0.0)


@triton.jit
def _add(grad_x_ptr, n, row, column, reads, c, values, H, W, C: tl.constexpr):
    """Add ``(CELLS, BLOCK_C)`` values to one corner each; the order of adding, and so the last bit, is the machine's."""
    at, inside = _corner(n, row, column, reads, H, W, C)
    tl.atomic_add(grad_x_ptr + at[:, None] + c[None, :], values, mask=inside[:, None] & (c < C)[None, :], sem="relaxed")


@triton.jit
def backward_points_kernel(
    grad_ptr, x_ptr, points_ptr, weight_ptr, grad_x_ptr, grad_points_ptr, K, H, W, stride_n, stride_o, stride_q,
    C: tl.constexpr, O: tl.constexpr, CELLS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,  # noqa: E741
    SCATTER: tl.constexpr, POINTS: tl.constexpr, FACTOR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of one point of a tile of cells: its position (``POINTS``), and what it read, added to ``grad_x`` (float32, ``SCATTER``).

    Grid: cells, images, points. A position's gradient is one program's own sum, so it is the same in every run.
    """
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    n, k = tl.program_id(1), tl.program_id(2)
    live = cell < H * W
    top, left, down, right, reads = _place(points_ptr, n, k, cell, live, K, H, W)
    up, near = (1 - down)[:, None], (1 - right)[:, None]
    along_y, along_x = tl.zeros((CELLS,), tl.float32), tl.zeros((CELLS,), tl.float32)
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        columns = tl.zeros((CELLS, BLOCK_C), tl.float32)
        for o0 in range(0, O, BLOCK_O):
            o = o0 + tl.arange(0, BLOCK_O)
            grad = _grad_at(grad_ptr, n, cell, live, o, stride_n, stride_o, stride_q, O).to(FACTOR)
            columns = tl.dot(grad, tl.trans(_weight(weight_ptr, k, c, o, C, O).to(FACTOR)), columns, input_precision=PRECISION)
        if POINTS:
            v00, v01, v10, v11 = _four(x_ptr, n, top, left, reads, c, H, W, C)
            along_y += tl.sum(columns * ((v10 - v00) * near + (v11 - v01) * right[:, None]), axis=1)
            along_x += tl.sum(columns * ((v01 - v00) * up + (v11 - v10) * down[:, None]), axis=1)
        if SCATTER:
            _add(grad_x_ptr, n, top, left, reads, c, columns * up * near, H, W, C)
            _add(grad_x_ptr, n, top, left + 1, reads, c, columns * up * right[:, None], H, W, C)
            _add(grad_x_ptr, n, top + 1, left, reads, c, columns * down[:, None] * near, H, W, C)
            _add(grad_x_ptr, n, top + 1, left + 1, reads, c, columns * down[:, None] * right[:, None], H, W, C)
    if POINTS:
        at = grad_points_ptr + (n * K + k) * 2 * H * W + cell
        tl.store(at, along_y, mask=live)
        tl.store(at + H * W, along_x, mask=live)


@triton.jit
def backward_map_kernel(
    grad_ptr, order_ptr, starts_ptr, shares_ptr, weight_ptr, grad_x_ptr, K, Q, stride_n, stride_o, stride_q,
    C: tl.constexpr, O: tl.constexpr, CELLS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,  # noqa: E741
    ROUND: tl.constexpr, FACTOR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The map's gradient without atomics: each cell gathers from all cells that read it, always in the same order. Grid: cells, images, inputs.

    The readers of cell ``q`` through point ``k`` are ``order[starts[n, k, q] : starts[n, k, q + 1]]``: numbers ``((n * K + k) * Q + reader) * 4 +
    corner``, with their bilinear ``shares``. A tile takes as long as its most read cell.
    """
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    n = tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    live = cell < Q
    total = tl.zeros((CELLS, BLOCK_C), tl.float32)
    for k in range(K):
        plane = (n * K + k) * Q
        start = tl.load(starts_ptr + plane + cell, mask=live, other=0)
        readers = tl.load(starts_ptr + plane + cell + 1, mask=live, other=0) - start
        most = tl.max(readers, axis=0)
        for o0 in range(0, O, BLOCK_O):
            o = o0 + tl.arange(0, BLOCK_O)
            gathered = tl.zeros((CELLS, BLOCK_O), tl.float32)
            for r in range(most):
                more = r < readers
                entry = tl.load(order_ptr + start + r, mask=more, other=0)
                share = tl.load(shares_ptr + entry, mask=more, other=0.0)
                grad = _grad_at(grad_ptr, n, entry // 4 - plane, more, o, stride_n, stride_o, stride_q, O)
                gathered += share[:, None] * grad.to(tl.float32)
            weight = tl.trans(_weight(weight_ptr, k, c, o, C, O).to(FACTOR))
            total = tl.dot(gathered.to(ROUND).to(FACTOR), weight, total, input_precision=PRECISION)
    at = grad_x_ptr + (n * Q + cell)[:, None] * C + c[None, :]
    tl.store(at, total.to(grad_x_ptr.dtype.element_ty), mask=live[:, None] & (c < C)[None, :])


@triton.jit
def backward_weight_kernel(
    grad_ptr, x_ptr, points_ptr, partial_ptr, N, K, H, W, stride_n, stride_o, stride_q, tiles_each,
    C: tl.constexpr, O: tl.constexpr, CELLS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,  # noqa: E741
    ROUND: tl.constexpr, FACTOR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``partial[s, k, c, o]``: the weight's gradient from share ``s`` of all cells, float32. Grid: points x inputs, outputs, shares."""
    blocks_c = tl.cdiv(C, BLOCK_C)
    k, s = tl.program_id(0) // blocks_c, tl.program_id(2)
    c = tl.program_id(0) % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    per_image = tl.cdiv(H * W, CELLS)
    total = tl.zeros((BLOCK_C, BLOCK_O), tl.float32)
    for tile in range(s * tiles_each, tl.minimum((s + 1) * tiles_each, N * per_image)):
        n = tile // per_image
        cell = tile % per_image * CELLS + tl.arange(0, CELLS)
        live = cell < H * W
        top, left, down, right, reads = _place(points_ptr, n, k, cell, live, K, H, W)
        columns = _columns(x_ptr, n, top, left, down, right, reads, c, H, W, C).to(ROUND).to(FACTOR)
        grad = _grad_at(grad_ptr, n, cell, live, o, stride_n, stride_o, stride_q, O).to(FACTOR)
        total = tl.dot(tl.trans(columns), grad, total, input_precision=PRECISION)
    at = partial_ptr + ((s * K + k) * C + c)[:, None] * O + o[None, :]
    tl.store(at, total, mask=(c < C)[:, None] & (o < O)[None, :])
