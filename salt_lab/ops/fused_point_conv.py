"""Point convolution as one torch operator, ``salt_lab::point_conv``, by :mod:`.numba_launch` on a CPU and :mod:`.triton_launch` on a GPU.

Known to torch as a custom operator with a shape-only twin, a backward pass and a count of its arithmetic, so that ``torch.compile``, autograd and
the FLOP counter see one node. Importing this file imports neither numba nor Triton; running the operator does. The sampled columns of a whole map are
never in memory. Speed: ``benchmarks/point_conv.py`` on a CPU; on a GPU unmeasured until one was at hand.

Legend: N images, C input and O output channels, K points, H x W cells, Q = H * W.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.utils.flop_counter import register_flop_formula

from salt_lab.ops import numba_launch, triton_launch

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NUMBA_DTYPES = (torch.float32, torch.float64)
#: Compute capability from which tensor cores know bfloat16.
MIN_CAPABILITY = (8, 0)
#: Offsets inside the Triton kernels are 32 bits.
MAX_NUMBERS = 2**31 - 1
#: Whether Triton is installed; looked up once, where torch.compile does not look.
HAS_TRITON = importlib.util.find_spec("triton") is not None


def why_not(x_NCHW: Tensor, points_NK2HW: Tensor, weight_OCK: Tensor, backend: str) -> str | None:
    """Why these tensors cannot go through the loops of "numba" or "triton", or None if they can. Called before autocast has had its say."""
    if x_NCHW.device != weight_OCK.device or x_NCHW.device != points_NK2HW.device:
        return f"x is on '{x_NCHW.device}', points on '{points_NK2HW.device}', weight on '{weight_OCK.device}'"
    types = _type_of(x_NCHW), _type_of(weight_OCK)
    known = NUMBA_DTYPES if backend == "numba" else TRITON_DTYPES
    most = torch.float64 if types[0] == torch.float64 else torch.float32
    if any(dtype not in known for dtype in types) or torch.promote_types(points_NK2HW.dtype, most) != most:
        return f"no kernel for {types[0]}, points {points_NK2HW.dtype}: {', '.join(str(dtype)[6:] for dtype in known)} are"
    if types[0] != types[1]:
        return f"x is {x_NCHW.dtype} and weight {weight_OCK.dtype}"
    return why_not_numba(x_NCHW.device) if backend == "numba" else _why_not_triton(x_NCHW, points_NK2HW, weight_OCK)


def why_not_numba(device: torch.device) -> str | None:
    """The device's part of :func:`why_not` for the CPU's loops."""
    if device.type != "cpu" or triton_launch.interpreted():
        return f"x is on '{device}', not on the CPU" if device.type != "cpu" else "Triton's interpreter computes on the CPU here"
    return None if torch.compiler.is_compiling() else _numba_fails()  # what is traced is checked when it runs


@functools.lru_cache(maxsize=1)
def _numba_fails() -> str | None:
    """Why numba's loops cannot be loaded here: it is absent, or does not fit this NumPy or Python. Asked once."""
    try:
        importlib.import_module("salt_lab.ops.numba_kernels")
    except Exception as error:  # compiled libraries that do not fit fail in several ways
        return f"numba does not load ({type(error).__name__}: {error}): pip install numba, as in constraints.txt"
    return None


def _why_not_triton(x_NCHW: Tensor, points_NK2HW: Tensor, weight_OCK: Tensor) -> str | None:
    if not (x_NCHW.is_cuda or triton_launch.interpreted()):
        return f"x is on '{x_NCHW.device}', not on a CUDA device"
    outputs, _, K = weight_OCK.shape
    cells = x_NCHW.shape[0] * x_NCHW.shape[2] * x_NCHW.shape[3]
    if max(x_NCHW.numel(), 4 * cells * K, cells * outputs, weight_OCK.numel()) > MAX_NUMBERS:
        return f"more than {MAX_NUMBERS} numbers"
    return why_not_on(x_NCHW.device.index if x_NCHW.is_cuda else None)


def why_not_on(index: int | None) -> str | None:
    """The device's part of :func:`why_not` for Triton: a CUDA device's index, None for Triton's interpreter."""
    if not HAS_TRITON:
        return "Triton is not installed (pip install triton; CUDA builds of torch bring it)"
    if index is not None:
        device = torch.cuda.get_device_properties(index)
        if torch.version.hip or (device.major, device.minor) < MIN_CAPABILITY:
            return f"{device.name} is not a CUDA device of compute capability {MIN_CAPABILITY[0]} or more"
    return None


def _type_of(tensor: Tensor) -> torch.dtype:
    """The type in which the product is made: autocast's if it is on."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and tensor.dtype != torch.float64 else tensor.dtype


def fused_point_conv(x_NCHW: Tensor, points_NK2HW: Tensor, weight_OCK: Tensor) -> Tensor:
    """:func:`salt_lab.ops.point_conv.point_conv` by the kernels of the tensors' device, where :func:`why_not` says nothing of them.

    Points stay in float32 (float64 on a CPU, if they are). Under autocast map and weight are read in autocast's type, else both have one type,
    the result's; sums are float32 at least.
    The result lies in memory as ``x`` does (channels last or first). A float32 product uses tf32 only where torch's own may.
    """
    dtype = _type_of(x_NCHW)
    result: Tensor = torch.ops.salt_lab.point_conv(x_NCHW.to(dtype), _full(points_NK2HW), weight_OCK.to(dtype))
    return result


def _full(points_NK2HW: Tensor) -> Tensor:
    return points_NK2HW.to(torch.promote_types(points_NK2HW.dtype, torch.float32))


@torch.library.custom_op("salt_lab::point_conv", mutates_args=(), schema="(Tensor x, Tensor points, Tensor weight) -> Tensor")
def _forward(x: Tensor, points: Tensor, weight: Tensor) -> Tensor:
    if not _anything(x, points, weight):
        return _like(x, weight.shape[0]).zero_()
    if _by_numba(x):
        return _placed(numba_launch.forward(numba_launch.laid_out(x, points, weight)).permute(0, 3, 1, 2), x)
    out = _like(x, weight.shape[0])
    triton_launch.forward(triton_launch.laid_out(x, points, weight), out)
    return out


@_forward.register_fake
def _(x: Tensor, points: Tensor, weight: Tensor) -> Tensor:
    return _like(x, weight.shape[0])


_BACKWARD = (
    "(Tensor grad, Tensor x, Tensor points, Tensor weight, bool for_x, bool for_points, bool for_weight) -> (Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("salt_lab::point_conv_backward", mutates_args=(), schema=_BACKWARD)
def _backward(
    grad: Tensor, x: Tensor, points: Tensor, weight: Tensor, for_x: bool, for_points: bool, for_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of map, points and weight; those that are not wanted are empty."""
    if not _anything(x, points, weight):
        return tuple(each.zero_() for each in _gradients_like(x, points, weight, for_x, for_points, for_weight))  # type: ignore[return-value]
    if _by_numba(x):
        return _backward_numba(grad, x, points, weight, for_x, for_points, for_weight)
    grad = grad.contiguous(memory_format=suggest_memory_format(grad))
    inputs = triton_launch.laid_out(x, points, weight)
    grad_x, grad_points, grad_weight = _gradients_like(x, points, weight, False, for_points, for_weight)
    scatter = for_x and not torch.are_deterministic_algorithms_enabled()
    if for_points or scatter:
        added = triton_launch.grad_points(inputs, grad, into=grad_points, scatter=scatter)
    if for_x:
        grad_x = _placed(added if scatter else triton_launch.grad_map(inputs, grad), x)
    if for_weight:
        grad_weight.copy_(triton_launch.grad_weight(inputs, grad))
    return grad_x, grad_points, grad_weight


def _by_numba(x: Tensor) -> bool:
    return x.device.type == "cpu" and not triton_launch.interpreted()


def _backward_numba(
    grad: Tensor, x: Tensor, points: Tensor, weight: Tensor, for_x: bool, for_points: bool, for_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    into = _gradients_like(x, points, weight, for_x, for_points, for_weight)
    inputs = numba_launch.laid_out(x, points, weight)
    grad_x, grad_points, grad_weight = numba_launch.backward(inputs, grad.permute(0, 2, 3, 1), for_x or for_points, for_weight)
    found = None if grad_x is None else grad_x.permute(0, 3, 1, 2), grad_points, grad_weight
    for each, values in zip(into, found, strict=True):
        if values is not None and each.numel():
            each.copy_(values)
    return into


@_backward.register_fake
def _(grad: Tensor, x: Tensor, points: Tensor, weight: Tensor, for_x: bool, for_points: bool, for_weight: bool) -> Any:
    return _gradients_like(x, points, weight, for_x, for_points, for_weight)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad
    found = torch.ops.salt_lab.point_conv_backward(grad, *ctx.saved_tensors, *wanted)
    return tuple(each if want else None for each, want in zip(found, wanted, strict=True))


_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.salt_lab.point_conv)
def _flops(x: Any, points: Any, weight: Any, *args: Any, out_shape: Any = None, **options: Any) -> int:
    """A convolution with K taps, two operations a multiply-add; reading the map is not counted (as in :mod:`salt_lab.train.flops`)."""
    outputs, C, K = weight
    return 2 * int(x[0] * x[2] * x[3]) * int(outputs * C * K)


@register_flop_formula(torch.ops.salt_lab.point_conv_backward)
def _backward_flops(grad: Any, x: Any, points: Any, weight: Any, for_x: bool, for_points: bool, for_weight: bool, **options: Any) -> int:
    """One product for map and points together, one for the weight."""
    return _flops(x, points, weight) * (int(for_x or for_points) + int(for_weight))


def _anything(x: Tensor, points: Tensor, weight: Tensor) -> bool:
    return bool(x.numel() and points.numel() and weight.numel())


def _like(x: Tensor, channels: int) -> Tensor:
    """An empty map of ``x``'s size, type and place in memory, with so many channels."""
    shape = (x.shape[0], channels, *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=suggest_memory_format(x))


def _placed(values: Tensor, x: Tensor) -> Tensor:
    """``values`` in ``x``'s type and place in memory, copied only if they are not so already."""
    like = torch.empty(values.shape, dtype=x.dtype, device="meta", memory_format=suggest_memory_format(x))
    return values if (values.dtype, values.stride()) == (like.dtype, like.stride()) else _like(x, values.shape[1]).copy_(values)


def _gradients_like(
    x: Tensor, points: Tensor, weight: Tensor, for_x: bool, for_points: bool, for_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Empty tensors for the gradients that are wanted, and tensors without numbers for the others."""
    return (
        _like(x, x.shape[1]) if for_x else x.new_empty(0),
        points.new_empty(points.shape) if for_points else points.new_empty(0),
        weight.new_empty(weight.shape) if for_weight else weight.new_empty(0),
    )
