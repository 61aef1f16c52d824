"""What every set of kernels of point convolution keeps, whatever device it is for: subclass :class:`PointConvContract` and name the backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from salt_lab.ops.point_conv import point_conv


def reference(x: Tensor, points: Tensor, weight: Tensor) -> Tensor:
    """The definition in float64, with floor's side of every kink: differentiable, no sampling function involved."""
    x, points, weight = x.double(), points.double(), weight.double()
    N, C, H, W = x.shape
    y = points[:, :, 0] + torch.arange(H)[:, None]
    z = points[:, :, 1] + torch.arange(W)
    reads = (y > -1) & (y < H) & (z > -1) & (z < W)
    y, z = torch.where(reads, y, 0.0), torch.where(reads, z, 0.0)
    top, left = y.detach().floor(), z.detach().floor()
    columns: Any = 0
    for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, right in ((left, 1 - (z - left)), (left + 1, z - left)):
            inside = reads & (row >= 0) & (row < H) & (column >= 0) & (column < W)
            at = (row.clamp(0, H - 1) * W + column.clamp(0, W - 1)).long().flatten(1)
            read = x.flatten(2).gather(2, at[:, None].expand(N, C, -1)).view(N, C, *inside.shape[1:])
            columns = columns + read * (down * right * inside)[:, None]
    return torch.einsum("nckhw,ock->nohw", columns, weight)


def problem(N: int, C: int, O: int, K: int, H: int, W: int, dtype: torch.dtype = torch.float32, spread: float = 3.0) -> Any:  # noqa: E741
    """Map, points and weight, random and always the same for a size; points spread over so many cells."""
    torch.manual_seed(N + C + O + K + H + W)
    inputs = torch.randn(N, C, H, W).to(dtype), torch.randn(N, K, 2, H, W) * spread, torch.randn(O, C, K).to(dtype)
    return inputs[0].requires_grad_(), inputs[1].requires_grad_(), inputs[2].requires_grad_()


def agree(inputs: Any, backend: str, tolerance: float = 2e-6) -> None:
    """Result and all three gradients are the reference's, by relative norm."""
    exact = [each.detach().double().requires_grad_() for each in inputs]
    out, expected = _conv(inputs, backend), reference(*exact)
    upstream = torch.randn(out.shape).to(out.dtype)
    found, wanted = torch.autograd.grad(out, inputs, upstream), torch.autograd.grad(expected, exact, upstream.double())
    for name, ours, theirs in zip(("out", "x", "points", "weight"), (out, *found), (expected, *wanted), strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm().clamp(min=1e-12)
        assert ours.shape == theirs.shape and error < tolerance, f"{name}: {error:.1e}"
    assert out.dtype == inputs[0].dtype and [each.dtype for each in found] == [each.dtype for each in inputs]


def _conv(inputs: Any, backend: str) -> Tensor:
    x, points, weight = inputs
    return point_conv(x, points, weight, backend)


class PointConvContract:
    """Against the definition in float64, and as an operator that torch knows."""

    backend = "name it"

    @pytest.mark.parametrize(
        ("N", "C", "O", "K", "H", "W"),
        [(2, 20, 18, 4, 5, 7), (1, 3, 5, 5, 1, 1), (2, 16, 16, 9, 6, 5), (1, 33, 7, 13, 3, 9), (2, 8, 40, 16, 4, 3), (1, 17, 1, 25, 5, 3)],
    )
    def test_result_and_gradients_are_those_of_the_definition(self, N: int, C: int, O: int, K: int, H: int, W: int) -> None:  # noqa: E741
        agree(problem(N, C, O, K, H, W), self.backend)

    def test_channels_last_maps_give_channels_last_results_and_gradients(self) -> None:
        x, points, weight = problem(2, 20, 18, 4, 5, 7)
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
        agree((x, points, weight), self.backend)
        out = point_conv(x, points, weight, self.backend)
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert torch.autograd.grad(out.sum(), x)[0].is_contiguous(memory_format=torch.channels_last)

    def test_points_on_cells_and_borders_and_far_outside_read_what_the_definition_says(self) -> None:
        x, points, weight = problem(1, 4, 6, 9, 6, 5)
        with torch.no_grad():
            points.round_()
            points[:, 1], points[:, 2], points[:, 3] = 1e9, -1e9, 1e30
            points[:, 4, 0] = -1 - torch.arange(6.0)[:, None]  # exactly at -1: outside
            points[:, 5, 1] = 5 - torch.arange(5.0)  # exactly at W: outside
            points[:, 6, 0] = 5 - torch.arange(6.0)[:, None]  # the last row
            points[:, 7, 1] = -0.5 - torch.arange(5.0)  # half outside
        agree((x, points, weight), self.backend)

    def test_points_that_are_no_numbers_read_zero_and_get_no_gradient(self) -> None:
        x, points, weight = problem(1, 4, 6, 4, 3, 5)
        with torch.no_grad():
            points[:, 1], points[:, 2, 1], points[:, 3, 0] = float("nan"), float("inf"), float("-inf")
        grads = torch.autograd.grad(point_conv(x, points, weight, self.backend).sum(), (x, points, weight))
        assert all(each.isfinite().all() for each in grads) and grads[1][:, 1:].abs().max() == 0
        torch.testing.assert_close(point_conv(x, points, weight, self.backend), point_conv(x, points[:, :1], weight[..., :1], "portable"))

    def test_only_the_gradients_that_are_asked_for_are_made(self) -> None:
        for wanted in range(3):
            inputs: Any = problem(1, 5, 3, 4, 4, 3)
            everything = torch.autograd.grad(_conv(inputs, self.backend).square().sum(), inputs)
            fixed: Any = [each.requires_grad_(i == wanted) for i, each in enumerate(each.detach() for each in inputs)]
            _conv(fixed, self.backend).square().sum().backward()
            torch.testing.assert_close(fixed[wanted].grad, everything[wanted])

    def test_no_image_or_no_channel_gives_empty_results_and_zero_gradients(self) -> None:
        for sizes in ((0, 4, 6, 5, 3, 4), (2, 0, 6, 5, 3, 4), (2, 4, 6, 5, 0, 4)):
            inputs: Any = problem(*sizes)
            out = _conv(inputs, self.backend)
            assert out.shape == _conv(inputs, "portable").shape if sizes[4] else out.numel() == 0
            grads = torch.autograd.grad(out.sum(), inputs)
            assert out.abs().sum() == 0 and all(each.abs().sum() == 0 for each in grads)

    def test_torch_knows_the_operator(self) -> None:
        torch.library.opcheck(torch.ops.salt_lab.point_conv.default, problem(1, 4, 3, 4, 2, 3))

    def test_torch_compile_sees_one_graph(self) -> None:
        inputs: Any = problem(1, 5, 3, 4, 4, 3)
        compiled = torch.compile(lambda *each: _conv(each, self.backend).relu(), fullgraph=True, backend="aot_eager")
        ours, theirs = (f(*inputs) for f in (compiled, lambda *each: _conv(each, self.backend).relu()))
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(torch.autograd.grad(ours.sum(), inputs), torch.autograd.grad(theirs.sum(), inputs))

    def test_its_arithmetic_is_counted_like_the_portable_paths(self) -> None:
        counts: list[int] = []
        inputs: Any = problem(1, 5, 3, 4, 4, 3)
        for backend in (self.backend, "portable"):
            with FlopCounterMode(display=False) as counter:
                _conv(inputs, backend).sum().backward()
            counts.append(counter.get_total_flops())
        assert counts[0] == counts[1] == 3 * 2 * 12 * 3 * 5 * 4
