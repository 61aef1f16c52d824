"""Deformable convolution v1 and v2, through mmcv's own modules, against the sum written as Python loops in double precision."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import salt_lab.ops.deform as room
from salt_lab.ops.portable import install

pytestmark = pytest.mark.skipif(not install(), reason="compiled mmcv ops are installed: the portable ones are not in use")

#: stride, padding, dilation, groups, deform_groups of a 3 x 2 kernel
GEOMETRIES = [
    (1, 1, 1, 1, 1),
    (2, 1, 1, 1, 1),
    ((1, 2), (2, 0), (2, 1), 1, 1),
    (1, 1, 1, 2, 1),
    (1, 1, 1, 1, 2),
    (2, (1, 2), 1, 2, 4),
    (1, 1, 1, 4, 4),
]


class Problem(NamedTuple):
    """One convolution with everything it takes; ``upstream`` is the gradient that arrives at its output."""

    x: Tensor
    offset: Tensor
    mask: Tensor
    weight: Tensor
    bias: Tensor
    upstream: Tensor
    keywords: dict[str, Any]


def pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def problem(geometry: tuple[Any, ...], seed: int = 0, spread: float = 2.0) -> Problem:
    """Random tensors; offsets reach ``spread`` cells out and stay a tenth off the cells, where the derivative jumps."""
    stride, padding, dilation, groups, deform_groups = geometry
    g = torch.Generator().manual_seed(seed)
    n, c, o, kernel, size = 2, 4, 8, (3, 2), (5, 6)
    out = [(size[i] + 2 * pair(padding)[i] - pair(dilation)[i] * (kernel[i] - 1) - 1) // pair(stride)[i] + 1 for i in range(2)]
    taps = deform_groups * kernel[0] * kernel[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    offset = normal(n, 2 * taps, *out) * spread
    offset = offset.floor() + 0.1 + 0.8 * (offset - offset.floor())
    keywords = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "deform_groups": deform_groups}
    mask = torch.rand(n, taps, *out, generator=g, dtype=torch.float64)
    return Problem(normal(n, c, *size), offset, mask, normal(o, c // groups, *kernel), normal(o), normal(n, o, *out), keywords)


def corners(map_HW: np.ndarray, y: float, x: float) -> list[tuple[int, int, float, float, float]]:
    """Cells inside the map that a bilinear reading mixes: row, column, weight and the weight's derivatives by y and x."""
    top, left, found = math.floor(y), math.floor(x), []
    for i, j in product((top, top + 1), (left, left + 1)):
        if 0 <= i < map_HW.shape[0] and 0 <= j < map_HW.shape[1]:
            wy, wx = 1 - abs(y - i), 1 - abs(x - j)
            found.append((i, j, wy * wx, wx * (1 if i > top else -1), wy * (1 if j > left else -1)))
    return found


def by_hand(p: Problem) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Output and all gradients, one product at a time."""
    x, offset, mask, weight, upstream = (t.detach().double().numpy() for t in (p.x, p.offset, p.mask, p.weight, p.upstream))
    stride, padding, dilation = (pair(p.keywords[key]) for key in ("stride", "padding", "dilation"))
    per_group, per_deform = x.shape[1] // p.keywords["groups"], x.shape[1] // p.keywords["deform_groups"]
    o_per_group, (kh, kw) = weight.shape[0] // p.keywords["groups"], weight.shape[2:]
    output = np.zeros(upstream.shape)
    grads = {name: np.zeros(array.shape) for name, array in {"x": x, "offset": offset, "mask": mask, "weight": weight}.items()}
    for n, c, i, j, a, b in product(*(range(size) for size in (*x.shape[:2], *upstream.shape[2:], kh, kw))):
        tap = (c // per_deform) * kh * kw + a * kw + b
        y_at = i * stride[0] - padding[0] + a * dilation[0] + offset[n, 2 * tap, i, j]
        x_at = j * stride[1] - padding[1] + b * dilation[1] + offset[n, 2 * tap + 1, i, j]
        mixed = corners(x[n, c], y_at, x_at)
        value, modulation = sum(w * x[n, c, row, col] for row, col, w, _, _ in mixed), mask[n, tap, i, j]
        outs = slice((c // per_group) * o_per_group, (c // per_group + 1) * o_per_group)
        kernel = weight[outs, c % per_group, a, b]
        output[n, outs, i, j] += kernel * modulation * value
        arriving = float(upstream[n, outs, i, j] @ kernel)
        grads["weight"][outs, c % per_group, a, b] += upstream[n, outs, i, j] * modulation * value
        grads["mask"][n, tap, i, j] += arriving * value
        for row, col, w, by_y, by_x in mixed:
            grads["x"][n, c, row, col] += arriving * modulation * w
            grads["offset"][n, 2 * tap, i, j] += arriving * modulation * by_y * x[n, c, row, col]
            grads["offset"][n, 2 * tap + 1, i, j] += arriving * modulation * by_x * x[n, c, row, col]
    return output, grads


def module_of(p: Problem, modulated: bool, with_bias: bool = False) -> nn.Module:
    """mmcv's layer with the problem's weights, in the problem's precision."""
    from mmcv.ops import DeformConv2d, ModulatedDeformConv2d

    channels = p.x.shape[1], p.weight.shape[0]
    if modulated:
        layer = ModulatedDeformConv2d(*channels, tuple(p.weight.shape[2:]), bias=with_bias, **p.keywords)
    else:
        layer = DeformConv2d(*channels, tuple(p.weight.shape[2:]), **p.keywords)
    layer = layer.to(p.x.dtype)
    layer.weight.data = p.weight.clone()
    if with_bias:
        layer.bias.data = p.bias.clone()
    return layer


def through_mmcv(p: Problem, modulated: bool, with_bias: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradients as a training step gets them."""
    layer = module_of(p, modulated, with_bias)
    leaves = {name: getattr(p, name).clone().requires_grad_() for name in ("x", "offset", "mask")}
    output = layer(*leaves.values()) if modulated else layer(leaves["x"], leaves["offset"])
    output.backward(p.upstream.to(output.dtype))
    grads = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return output.detach(), grads | {name: parameter.grad for name, parameter in layer.named_parameters()}


def assert_same(found: dict[str, Tensor], expected: dict[str, np.ndarray], rtol: float) -> None:
    for name, grad in found.items():
        reference = torch.from_numpy(expected[name])
        error = (grad.double() - reference).abs().max() / reference.abs().max()
        assert error < rtol, f"gradient of {name}: relative error {error:.1e}"


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_v1_and_its_gradients_are_the_loops(geometry: tuple[Any, ...]) -> None:
    p = problem(geometry)
    p = p._replace(mask=torch.ones_like(p.mask))
    output, grads = through_mmcv(p, modulated=False)
    expected, expected_grads = by_hand(p)
    torch.testing.assert_close(output, torch.from_numpy(expected), rtol=0, atol=1e-11)
    assert set(grads) == {"x", "offset", "weight"}
    assert_same(grads, expected_grads, rtol=1e-12)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_v2_and_its_gradients_are_the_loops(geometry: tuple[Any, ...], with_bias: bool) -> None:
    p = problem(geometry, seed=1)
    output, grads = through_mmcv(p, modulated=True, with_bias=with_bias)
    expected, expected_grads = by_hand(p)
    expected = expected + p.bias.numpy()[:, None, None] * with_bias
    expected_grads["bias"] = p.upstream.sum((0, 2, 3)).numpy()
    torch.testing.assert_close(output, torch.from_numpy(expected), rtol=0, atol=1e-11)
    assert set(grads) == {"x", "offset", "mask", "weight"} | ({"bias"} if with_bias else set())
    assert_same(grads, expected_grads, rtol=1e-12)


def test_the_loops_gradients_are_their_own_numeric_derivatives() -> None:
    """Checks the reference itself, along one random direction per tensor."""
    p = problem(GEOMETRIES[5], seed=2)
    _, grads = by_hand(p)
    for name in ("x", "offset", "mask", "weight"):
        towards = torch.randn(getattr(p, name).shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        ends = (by_hand(p._replace(**{name: getattr(p, name) + step * towards}))[0] for step in (1e-5, -1e-5))
        slope = sum(sign * float((end * p.upstream.numpy()).sum()) for sign, end in zip((1, -1), ends, strict=True)) / 2e-5
        assert slope == pytest.approx(float((grads[name] * towards.numpy()).sum()), rel=1e-7)


def test_float32_agrees_with_double_to_rounding() -> None:
    p = problem(GEOMETRIES[5], seed=4)
    single = p._replace(**{name: getattr(p, name).float() for name in p._fields if name != "keywords"})
    expected, expected_grads = by_hand(single)
    output, grads = through_mmcv(single, modulated=True)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
    assert_same(grads, expected_grads, rtol=1e-5)


def test_points_far_outside_the_map_see_nothing_and_teach_nothing() -> None:
    p = problem(GEOMETRIES[1])
    output, grads = through_mmcv(p._replace(offset=torch.full_like(p.offset, 1e30)), modulated=False)
    assert output.abs().max() == 0
    assert all(grad.abs().max() == 0 for grad in grads.values())


def test_points_between_minus_one_and_the_first_cell_count_in_part() -> None:
    p = problem((1, 0, 1, 1, 1))
    x, offset = torch.ones_like(p.x), torch.zeros_like(p.offset)
    offset[:, 0::2] = -2.25  # the lowest of three kernel rows of output row 0 reads row -0.25, the others are out
    output, _ = through_mmcv(p._replace(x=x, offset=offset), modulated=False)
    expected = 0.75 * p.weight[:, :, 2].sum((1, 2))
    torch.testing.assert_close(output[0, :, 0, 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("modulated", [False, True])
def test_without_offsets_it_is_the_ordinary_convolution(modulated: bool) -> None:
    p = problem(((1, 2), 1, (2, 1), 2, 2))
    p = p._replace(offset=torch.zeros_like(p.offset), mask=torch.ones_like(p.mask))
    plain = {key: value for key, value in p.keywords.items() if key != "deform_groups"}
    output, grads = through_mmcv(p, modulated)
    x, weight = p.x.clone().requires_grad_(), p.weight.clone().requires_grad_()
    expected = F.conv2d(x, weight, **plain)
    expected.backward(p.upstream)
    torch.testing.assert_close(output, expected.detach(), rtol=0, atol=1e-11)
    torch.testing.assert_close(grads["x"], x.grad, rtol=0, atol=1e-11)
    torch.testing.assert_close(grads["weight"], weight.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("modulated", [False, True])
def test_cutting_the_batch_to_bound_memory_changes_nothing(modulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = through_mmcv(problem(GEOMETRIES[4]), modulated)
    monkeypatch.setattr(room, "MAX_COLUMN_BYTES", 1)
    one_by_one = through_mmcv(problem(GEOMETRIES[4]), modulated)
    torch.testing.assert_close(one_by_one, whole, rtol=1e-12, atol=1e-12)


def test_an_empty_batch_passes_forward_and_backward() -> None:
    """Straight to the op: mmcv's own Function refuses a batch of 0 before any op, compiled or not, sees it."""
    p = problem(GEOMETRIES[0])
    x, offset, mask, nothing, output = p.x[:0], p.offset[:0], p.mask[:0], p.x.new_empty(0), p.upstream[:0].clone()
    into = {
        name: torch.zeros_like(t) for name, t in {"input": x, "weight": p.weight, "bias": p.bias, "offset": offset, "mask": mask}.items()
    }
    grads: dict[str, Any] = {f"grad_{name}": grad for name, grad in into.items()}
    sizes = {f"{name}_{axis}": size for name, size in (("stride", 1), ("pad", 1), ("dilation", 1)) for axis in "hw"}
    options: dict[str, Any] = sizes | {"kernel_h": 3, "kernel_w": 2, "group": 1, "deformable_group": 1}
    room.modulated_deform_conv_forward(x, p.weight, p.bias, nothing, offset, mask, output, nothing, with_bias=True, **options)
    room.modulated_deform_conv_backward(
        x, p.weight, p.bias, nothing, offset, mask, nothing, grad_output=output, with_bias=True, **grads, **options
    )
    assert output.shape == (0, *p.upstream.shape[1:])
    assert into["weight"].abs().max() == 0 and into["bias"].abs().max() == 0


def test_frozen_inputs_are_left_without_gradient() -> None:
    """A frozen backbone: only the weights learn (the offsets come from a frozen layer too)."""
    p = problem(GEOMETRIES[0])
    layer = module_of(p, modulated=False)
    layer(p.x, p.offset).backward(p.upstream)
    _, expected = by_hand(p._replace(mask=torch.ones_like(p.mask)))
    assert_same({name: p.grad for name, p in layer.named_parameters() if p.grad is not None}, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("modulated", [False, True])
def test_half_precision_offsets_under_autocast_give_half_precision_of_the_same(modulated: bool, dtype: torch.dtype) -> None:
    """Under autocast the layer that makes the offsets returns half precision, and mmcv casts map and weights to it."""
    p = problem(GEOMETRIES[5], seed=6, spread=0.5)
    half = p._replace(offset=p.offset.to(dtype), x=p.x.float(), weight=p.weight.float(), mask=p.mask.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, grads = through_mmcv(half, modulated)
    exact = half._replace(mask=half.mask if modulated else torch.ones_like(p.mask), x=half.x.to(dtype), weight=half.weight.to(dtype))
    expected, expected_grads = by_hand(exact._replace(upstream=p.upstream.to(dtype)))
    assert output.dtype == dtype and grads["x"].dtype == torch.float32
    tolerance = 20 * torch.finfo(dtype).eps
    assert (output.double() - torch.from_numpy(expected)).abs().max() < tolerance * np.abs(expected).max()
    assert_same(grads, expected_grads, rtol=tolerance)


def test_an_offset_of_the_wrong_shape_is_refused_with_the_shape_that_fits() -> None:
    p = problem(GEOMETRIES[0])
    with pytest.raises(ValueError, match=r"offset has shape \(2, 10, .*expected \(2, 12, "):
        module_of(p, modulated=False)(p.x, p.offset[:, :10])


def test_offsets_of_a_finer_level_are_read_as_the_compiled_kernel_reads_them() -> None:
    """DyHead hands v2 the offsets and mask of the next finer level; of each image the first values in memory count (GLIP issue 52)."""
    install()
    from mmcv.ops import ModulatedDeformConv2d

    generator = torch.Generator().manual_seed(0)
    layer = ModulatedDeformConv2d(4, 4, 3, padding=1, bias=False).double()
    x, fine_offset, fine_mask = (
        torch.randn(2, depth, side, side, generator=generator, dtype=torch.float64).requires_grad_()
        for depth, side in ((4, 5), (18, 10), (9, 10))
    )
    first = [t.flatten(1)[:, : d * 25].unflatten(1, (d, 5, 5)).detach().requires_grad_() for t, d in ((fine_offset, 18), (fine_mask, 9))]
    whole, cut = layer(x, fine_offset, fine_mask), layer(x, *first)
    assert torch.equal(whole, cut)
    (whole**2).sum().backward()
    (cut**2).sum().backward()
    for fine, part in zip((fine_offset, fine_mask), first, strict=True):
        count = part[0].numel()
        assert torch.equal(fine.grad.flatten(1)[:, :count], part.grad.flatten(1)) and not fine.grad.flatten(1)[:, count:].any()
