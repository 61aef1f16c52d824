"""Launching the kernels of :mod:`.triton_kernels`: tiles that suit channels and device, memory formats, and each gradient in turn.

Importing this file does not import Triton; launching does. Speed: unmeasured, no GPU was at hand; tiles are where a measurement would begin.

Legend: N images, C input and O output channels, K points, H x W cells, Q = H * W.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Tiles(NamedTuple):
    """What one program works on, and with how many warps and pipeline stages. All sizes are powers of two, at least 16."""

    cells: int
    inputs: int
    outputs: int
    warps: int
    stages: int


#: Largest tiles by kernel and bytes of a number; chosen by counting registers and shared memory, not yet by measuring (``point_conv_gpu.py``).
TILES = {
    ("forward", 2): Tiles(64, 64, 256, 8, 2),
    ("forward", 4): Tiles(64, 32, 128, 8, 2),
    ("points", 2): Tiles(64, 64, 64, 8, 2),
    ("points", 4): Tiles(64, 32, 32, 8, 2),
    ("map", 2): Tiles(32, 256, 64, 8, 2),
    ("map", 4): Tiles(32, 128, 32, 8, 2),
    ("weight", 2): Tiles(64, 64, 256, 8, 2),
    ("weight", 4): Tiles(32, 64, 128, 8, 2),
}
KERNELS = {
    "forward": "forward_kernel",
    "points": "backward_points_kernel",
    "map": "backward_map_kernel",
    "weight": "backward_weight_kernel",
}
#: Most parts into which the cells are cut for the weight's gradient; each has a float32 copy of the weight.
MAX_SHARES = 16
#: Tiles that did not fit a device's shared memory, and what is used instead.
_FITTING: dict[tuple[str, Tiles], Tiles] = {}


def forget_fitting() -> None:
    """Try the tiles of :data:`TILES` again, whatever did not fit before."""
    _FITTING.clear()


def interpreted() -> bool:
    """Whether Triton is asked to run kernels in Python on the CPU (``TRITON_INTERPRET=1``), for tests."""
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on")


class Inputs(NamedTuple):
    """What the kernels read: map, points and weight as the caller has them (for shape and type) and as they lie in memory."""

    x: Tensor  #: (N, C, H, W)
    weight: Tensor  #: (O, C, K)
    points: Tensor  #: (N, K, 2, H, W), dense
    map_NQC: Tensor  #: channels side by side: a copy unless ``x`` is channels last already
    weight_KCO: Tensor


def laid_out(x: Tensor, points: Tensor, weight: Tensor) -> Inputs:
    """The inputs, copied where they lie otherwise than the kernels read them."""
    return Inputs(x, weight, points.contiguous(), x.permute(0, 2, 3, 1).contiguous(), weight.permute(2, 1, 0).contiguous())


def forward(inputs: Inputs, out: Tensor) -> None:
    """Fill ``out`` ``(N, O, H, W)``, dense, channels first or last."""
    N, _, H, W = inputs.x.shape
    outputs, _, K = inputs.weight.shape

    def grid(t: Tiles) -> tuple[int, ...]:
        return _blocks(H * W, t.cells), N, _blocks(outputs, t.outputs)

    numbers = (inputs.map_NQC, inputs.points, inputs.weight_KCO, out, K, H, W, *_strides(out))
    _launch("forward", inputs, _filling("forward", inputs, grid), grid, numbers, ROUND=_triton_type(inputs.x.dtype))


def grad_points(inputs: Inputs, grad: Tensor, into: Tensor, scatter: bool) -> Tensor:
    """Fill ``into`` ``(N, K, 2, H, W)`` with the points' gradient unless it is empty.

    Args:
        inputs: of the forward pass.
        grad: gradient of the result, dense, channels first or last.
        into: float32.
        scatter: add up the map's gradient on the way.

    Returns:
        The map's gradient ``(N, C, H, W)``, float32, in no fixed order of adding; without numbers unless ``scatter``.
    """
    N, C, H, W = inputs.x.shape
    K = inputs.weight.shape[2]
    grad_NHWC = torch.zeros((N, H, W, C) if scatter else (0, 0, 0, 0), dtype=torch.float32, device=grad.device)
    numbers = (grad, inputs.map_NQC, inputs.points, inputs.weight_KCO, grad_NHWC, into, K, H, W, *_strides(grad))
    tiles = _tiles("points", inputs)
    _launch("points", inputs, tiles, lambda t: (_blocks(H * W, t.cells), N, K), numbers, SCATTER=scatter, POINTS=into.numel() > 0)
    return grad_NHWC.permute(0, 3, 1, 2)


def grad_map(inputs: Inputs, grad: Tensor) -> Tensor:
    """The map's gradient ``(N, C, H, W)``, gathered in a fixed order: the same to the last bit in every run."""
    N, C, H, W = inputs.x.shape
    grad_NHWC = inputs.x.new_empty(N, H, W, C)

    def grid(t: Tiles) -> tuple[int, ...]:
        return _blocks(H * W, t.cells), N, _blocks(C, t.inputs)

    numbers = (grad, *readers(inputs.points), inputs.weight_KCO, grad_NHWC, inputs.weight.shape[2], H * W, *_strides(grad))
    _launch("map", inputs, _filling("map", inputs, grid), grid, numbers, ROUND=_triton_type(grad.dtype))
    return grad_NHWC.permute(0, 3, 1, 2)


def grad_weight(inputs: Inputs, grad: Tensor) -> Tensor:
    """The weight's gradient ``(O, C, K)``, float32: shares of the cells side by side, then their sum, always in the same order."""
    outputs, C, K = inputs.weight.shape
    N, _, H, W = inputs.x.shape
    tiles = _tiles("weight", inputs)
    all_tiles, programs = N * _blocks(H * W, tiles.cells), K * _blocks(C, tiles.inputs) * _blocks(outputs, tiles.outputs)
    shares = min(all_tiles, MAX_SHARES, _blocks(2 * _processors(grad), programs))
    partial = torch.empty(shares, K, C, outputs, dtype=torch.float32, device=grad.device)

    def grid(t: Tiles) -> tuple[int, ...]:
        return K * _blocks(C, t.inputs), _blocks(outputs, t.outputs), shares

    numbers = (grad, inputs.map_NQC, inputs.points, partial, N, K, H, W, *_strides(grad), _blocks(all_tiles, shares))
    _launch("weight", inputs, tiles, grid, numbers, ROUND=_triton_type(grad.dtype))
    return partial.sum(0).permute(2, 1, 0)


def readers(points_NK2HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Who reads each cell: numbers of (image, point, reading cell, corner) sorted by (image, point, read cell), where each list starts, shares.

    Returns:
        order ``(4NKQ,)``, starts ``(NKQ + 1,)`` into it, and shares ``(4NKQ,)`` by number. Corners outside the map come last, in no list.
    """
    N, K, _, H, W = points_NK2HW.shape
    y = points_NK2HW[:, :, 0] + torch.arange(H, device=points_NK2HW.device, dtype=torch.float32)[:, None]
    x = points_NK2HW[:, :, 1] + torch.arange(W, device=points_NK2HW.device, dtype=torch.float32)
    reads = (y > -1) & (y < H) & (x > -1) & (x < W)
    y, x = torch.where(reads, y, 0.0), torch.where(reads, x, 0.0)
    down, right = y - y.floor(), x - x.floor()
    shares = torch.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right], dim=-1)
    rows = (y.floor()[..., None] + torch.tensor([0, 0, 1, 1], device=y.device)).int()
    columns = (x.floor()[..., None] + torch.tensor([0, 1, 0, 1], device=y.device)).int()
    inside = reads[..., None] & (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)
    plane = torch.arange(N * K, device=y.device, dtype=torch.int32).view(N, K, 1, 1, 1) * (H * W)
    read = torch.where(inside, plane + rows * W + columns, N * K * H * W).flatten()
    found, order = torch.sort(read, stable=True)
    starts = torch.searchsorted(found, torch.arange(N * K * H * W + 1, device=y.device, dtype=torch.int32), out_int32=True)
    return order, starts, shares.flatten()


def _launch(
    kind: str, inputs: Inputs, tiles: Tiles, grid: Callable[[Tiles], tuple[int, ...]], numbers: tuple[Any, ...], **constants: Any
) -> None:
    """Run a kernel where its numbers are, with smaller tiles if the device's shared memory is too small for these."""
    kernel = getattr(importlib.import_module("salt_lab.ops.triton_kernels"), KERNELS[kind])
    too_large = importlib.import_module("triton.runtime.errors").OutOfResources
    constants |= dict(C=inputs.weight.shape[1], O=inputs.weight.shape[0], PRECISION=_precision())
    constants["FACTOR"] = _triton_type(torch.float32 if interpreted() else inputs.x.dtype)
    wanted = (kind, tiles)
    tiles = _FITTING.get(wanted, tiles)
    while True:
        options = dict(CELLS=tiles.cells, BLOCK_C=tiles.inputs, BLOCK_O=tiles.outputs, num_warps=tiles.warps, num_stages=tiles.stages)
        try:
            with torch.cuda.device(inputs.x.device) if inputs.x.is_cuda else contextlib.nullcontext():
                kernel[grid(tiles)](*numbers, **constants, **options)
            return
        except too_large:
            if tiles == (smaller := _smaller(tiles)):
                raise
            tiles = _FITTING[wanted] = smaller


def _smaller(tiles: Tiles) -> Tiles:
    """The next thing to try: no pipeline, then half the channels."""
    if tiles.stages > 1:
        return tiles._replace(stages=1)
    return tiles._replace(inputs=max(16, tiles.inputs // 2), outputs=max(16, tiles.outputs // 2))


def _tiles(kind: str, inputs: Inputs) -> Tiles:
    """The largest tiles that these channels can fill."""
    largest = TILES[kind, inputs.x.element_size()]
    fill_O, fill_C = (max(16, 1 << (size - 1).bit_length()) for size in inputs.weight.shape[:2])
    return largest._replace(inputs=min(largest.inputs, fill_C), outputs=min(largest.outputs, fill_O))


def _filling(kind: str, inputs: Inputs, grid: Callable[[Tiles], tuple[int, ...]]) -> Tiles:
    """The same, with fewer cells while a small level of the pyramid would leave processors idle."""
    tiles = _tiles(kind, inputs)
    while math.prod(grid(tiles)) < _processors(inputs.x) and tiles.cells > 16:
        tiles = tiles._replace(cells=tiles.cells // 2)
    return tiles


def _processors(x: Tensor) -> int:
    """Multiprocessors of a GPU; 2 in the interpreter, so that tests meet several programs."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2


def _precision() -> str:
    """How float32 factors are multiplied: as torch's own matrix product on a GPU may ("tf32"), exactly unless someone allowed that."""
    settings = torch.backends.cuda.matmul
    # Since torch 2.9 there is a second switch, and the old one cannot be read once the new one was used.
    allowed = settings.fp32_precision == "tf32" if hasattr(settings, "fp32_precision") else settings.allow_tf32
    return "tf32" if allowed else "ieee"


def _triton_type(dtype: torch.dtype) -> Any:
    return getattr(importlib.import_module("triton.language"), str(dtype).removeprefix("torch."))


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _strides(each: Tensor) -> tuple[int, int, int]:
    """Steps in memory from an image, a channel and a cell to the next, of a map that is dense with its channels first or last."""
    _, channels, H, W = each.shape
    return (channels * H * W, H * W, 1) if each.is_contiguous() else (channels * H * W, 1, channels)
