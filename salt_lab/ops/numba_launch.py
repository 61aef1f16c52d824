"""Point convolution on a CPU: columns of about a thousand cells at a time, by :mod:`.numba_kernels`, and torch's matrix product.

The columns of a whole map are never in memory: for the backward pass they are read again. Both passes run on as many threads as torch has.

Legend: N images, C input and O output channels, K points, H x W cells; M = N * H * W, L cells at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Numbers in one chunk of columns, 8 MiB of float32: few enough to stay in a cache, enough for an efficient product.
CHUNK_NUMBERS = 2**21
#: Least cells that are worth a thread of their own.
CELLS_PER_THREAD = 64


class Inputs(NamedTuple):
    """The arguments as the loops want them: channels last, points as given, the weight as one matrix; all of one floating type."""

    x_NHWC: Tensor
    points_NK2HW: Tensor
    weight_OP: Tensor  #: P = K * C, points outermost

    @property
    def cells(self) -> int:
        """M."""
        N, H, W, _ = self.x_NHWC.shape
        return N * H * W


def laid_out(x_NCHW: Tensor, points_NK2HW: Tensor, weight_OCK: Tensor) -> Inputs:
    """Copies where the layout is another one."""
    weight_OP = weight_OCK.detach().permute(0, 2, 1).flatten(1).contiguous()
    return Inputs(x_NCHW.detach().permute(0, 2, 3, 1).contiguous(), points_NK2HW.detach().to(x_NCHW.dtype).contiguous(), weight_OP)


def forward(inputs: Inputs) -> Tensor:
    """``(N, H, W, O)``."""
    N, H, W, _ = inputs.x_NHWC.shape
    out_MO = inputs.x_NHWC.new_empty(inputs.cells, len(inputs.weight_OP))
    columns_LKC = _buffer(inputs)
    for start, rows in _chunks(inputs.cells, len(columns_LKC)):
        _read(inputs, start, rows, columns_LKC)
        torch.mm(columns_LKC[:rows].flatten(1), inputs.weight_OP.t(), out=out_MO[start : start + rows])
    return out_MO.view(N, H, W, -1)


def backward(
    inputs: Inputs, grad_NHWO: Tensor, for_map_or_points: bool, for_weight: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of map ``(N, H, W, C)``, points ``(N, K, 2, H, W)`` and weight ``(O, C, K)``, where wanted; map and points come together."""
    N, H, W, C = inputs.x_NHWC.shape
    K, outputs = inputs.points_NK2HW.shape[1], len(inputs.weight_OP)
    grad_MO = grad_NHWO.reshape(inputs.cells, outputs)
    columns_LKC = _buffer(inputs)
    grad_x = torch.zeros_like(inputs.x_NHWC) if for_map_or_points else None
    points_MK2 = grad_MO.new_empty(inputs.cells, K, 2) if for_map_or_points else None
    weight_OP = torch.zeros_like(inputs.weight_OP) if for_weight else None
    for start, rows in _chunks(inputs.cells, len(columns_LKC)):
        columns_LP, part_LO = columns_LKC[:rows].flatten(1), grad_MO[start : start + rows]
        if weight_OP is not None:
            _read(inputs, start, rows, columns_LKC)
            weight_OP.addmm_(part_LO.t(), columns_LP)
        if grad_x is not None and points_MK2 is not None:
            torch.mm(part_LO, inputs.weight_OP, out=columns_LP)
            points_MK2[start : start + rows] = _scatter(inputs, start, rows, columns_LKC, grad_x)
    grad_points = None if points_MK2 is None else points_MK2.view(N, H, W, K, 2).permute(0, 3, 4, 1, 2)
    return grad_x, grad_points, None if weight_OP is None else weight_OP.view(outputs, K, C).permute(0, 2, 1)


def _read(inputs: Inputs, start: int, rows: int, columns_LKC: Tensor) -> None:
    """Columns of the cells from ``start`` on, each thread with cells of its own."""
    from salt_lab.ops.numba_kernels import read_columns

    arrays = inputs.x_NHWC.numpy(), inputs.points_NK2HW.numpy(), start
    into = columns_LKC.numpy()
    _side_by_side(rows, CELLS_PER_THREAD, lambda part, first, last: read_columns(*arrays, first, last, into))


def _scatter(inputs: Inputs, start: int, rows: int, grad_LKC: Tensor, grad_x_NHWC: Tensor) -> Tensor:
    """The columns' gradient added to the map's, each thread with channels of its own; the points' gradient ``(L, K, 2)``."""
    from salt_lab.ops.numba_kernels import scatter_columns

    arrays = inputs.x_NHWC.numpy(), inputs.points_NK2HW.numpy(), start, rows
    grad, into, C = grad_LKC.numpy(), grad_x_NHWC.numpy(), grad_LKC.shape[2]
    by_part = grad_LKC.new_zeros(torch.get_num_threads(), rows, grad_LKC.shape[1], 2)
    least = max(1, C * CELLS_PER_THREAD // rows)
    _side_by_side(C, least, lambda part, first, last: scatter_columns(*arrays, first, last, grad, into, by_part[part].numpy()))
    return by_part.sum(0)


def _buffer(inputs: Inputs) -> Tensor:
    """Room for a chunk of columns."""
    C, K = inputs.x_NHWC.shape[3], inputs.points_NK2HW.shape[1]
    return inputs.x_NHWC.new_empty(min(inputs.cells, max(1, CHUNK_NUMBERS // (K * C))), K, C)


def _chunks(cells: int, most: int) -> Iterator[tuple[int, int]]:
    """First cell and number of cells, chunk by chunk."""
    return ((start, min(most, cells - start)) for start in range(0, cells, most))


def _side_by_side(total: int, least: int, work: Callable[[int, int, int], Any]) -> None:
    """``work(part, first, last)`` on torch's number of threads; the loops let go of the interpreter. ``least``: what is worth a thread."""
    parts = max(1, min(torch.get_num_threads(), total // least))
    bounds = [total * part // parts for part in range(parts + 1)]
    if parts == 1:
        work(0, 0, total)
        return
    for done in [_pool(parts).submit(work, part, *bounds[part : part + 2]) for part in range(parts)]:
        done.result()


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="point-conv")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads
