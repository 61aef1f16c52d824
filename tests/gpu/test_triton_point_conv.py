"""The Triton kernels on a GPU: as exact as in the interpreter, repeatable when asked, small in memory, compiled; skipped where there is no GPU."""

import pytest
import torch

from salt_lab.ops.fused_point_conv import HAS_TRITON
from salt_lab.ops.point_conv import point_conv

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed (pip install triton)"),
]
#: Relative error of result and gradients by type: rounding of the factors, not of the sums.
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def problem(N, C, O, K, H, W, dtype=torch.float32, spread=4.0):  # noqa: E741
    torch.manual_seed(N + C + O + K + H + W)
    scale = (C * K) ** -0.5
    inputs = torch.randn(N, C, H, W).to(dtype), torch.randn(N, K, 2, H, W) * spread, (torch.randn(O, C, K) * scale).to(dtype)
    return tuple(each.cuda().requires_grad_() for each in inputs)


def gradients(inputs, backend, upstream):
    out = point_conv(*inputs, backend)
    return (out.detach(), *torch.autograd.grad(out, inputs, upstream.to(out)))


def errors(inputs):
    """Relative error of result and gradients against the portable path in float64 on the CPU."""
    upstream = torch.randn(inputs[0].shape[0], inputs[2].shape[0], *inputs[0].shape[2:])
    exact = tuple(each.detach().cpu().double().requires_grad_() for each in inputs)
    rounded = upstream.to(inputs[0].dtype)
    ours, theirs = gradients(inputs, "triton", rounded), gradients(exact, "portable", rounded)
    return [float((a.cpu().double() - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(
    ("N", "C", "O", "K", "H", "W"),
    [
        (2, 256, 256, 9, 25, 42),
        (2, 256, 256, 9, 7, 11),
        (3, 20, 18, 4, 5, 7),
        (1, 33, 70, 13, 30, 9),
        (2, 48, 40, 16, 17, 33),
        (1, 17, 1, 25, 5, 3),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_result_and_gradients_are_those_of_float64(N, C, O, K, H, W, dtype, channels_last):  # noqa: E741
    inputs = problem(N, C, O, K, H, W, dtype)
    if channels_last:
        inputs = (inputs[0].detach().to(memory_format=torch.channels_last).requires_grad_(), *inputs[1:])
    assert max(errors(inputs)) < TOLERANCE[dtype]


@pytest.mark.parametrize("spread", [0.0, 1e3])
def test_points_on_cells_and_far_outside_read_as_in_the_portable_path(spread):
    x, points, weight = problem(1, 32, 32, 9, 20, 30, spread=spread)
    ours, theirs = (point_conv(x, points.round(), weight, backend) for backend in ("triton", "portable"))
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_repeatable_gradients_are_equal_to_the_last_bit_and_right(dtype):
    inputs = problem(2, 64, 64, 9, 25, 42, dtype, spread=8.0)
    upstream = torch.randn(2, 64, 25, 42)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (gradients(inputs, "triton", upstream) for _ in range(2))
        assert max(errors(inputs)) < TOLERANCE[dtype]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_kernels_are_what_a_gpu_uses_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("SALT_LAB_POINT_CONV", raising=False)
    inputs = problem(2, 64, 64, 9, 25, 42)
    assert "salt_lab_point_conv" in type(point_conv(*inputs, "auto").grad_fn).__name__.lower()
    assert "salt_lab_point_conv" not in type(point_conv(*inputs, "portable").grad_fn).__name__.lower()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_compiled_layer_under_autocast_has_the_uncompiled_layers_numbers(dtype):
    def layer(x, points, weight):
        with torch.autocast("cuda", dtype):
            return torch.nn.functional.group_norm(point_conv(x, points, weight, "auto"), 32).relu().float()

    inputs, results = problem(2, 64, 64, 9, 25, 42), []
    for each in (layer, torch.compile(layer, fullgraph=True)):
        out = each(*inputs)
        results.append((out, *torch.autograd.grad(out.square().mean(), inputs)))
    for plain, fast in zip(*results, strict=True):
        assert (plain - fast).norm() < 2e-2 * plain.norm()


def test_forward_and_backward_take_at_most_half_the_portable_paths_memory():
    inputs = problem(2, 256, 256, 9, 100, 167, torch.bfloat16)
    upstream, peaks = torch.randn(2, 256, 100, 167, device="cuda"), {}
    for backend in ("triton", "portable"):
        gradients(inputs, backend, upstream)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradients(inputs, backend, upstream)
        peaks[backend] = torch.cuda.max_memory_allocated() - before
    assert peaks["triton"] <= 0.5 * peaks["portable"], peaks
