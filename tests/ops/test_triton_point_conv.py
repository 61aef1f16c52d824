"""The Triton kernels of point convolution against a float64 reference, in Triton's interpreter: on the CPU, no GPU is needed.

The interpreter is chosen when Triton is first imported, so the kernels' tests run in a process of their own, which one test here starts.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from salt_lab.errors import UserError
from salt_lab.ops import triton_launch
from salt_lab.ops.backends import MISSING, POINT_CONV_VARIABLE, PORTABLE, backends
from salt_lab.ops.point_conv import point_conv
from salt_lab.ops.triton_point_conv import HAS_TRITON

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed (pip install triton)")


def reference(x, points, weight):
    """The definition in float64, with floor's side of every kink: differentiable, no sampling function involved."""
    x, points, weight = x.double(), points.double(), weight.double()
    N, C, H, W = x.shape
    y = points[:, :, 0] + torch.arange(H)[:, None]
    z = points[:, :, 1] + torch.arange(W)
    reads = (y > -1) & (y < H) & (z > -1) & (z < W)
    y, z = torch.where(reads, y, 0.0), torch.where(reads, z, 0.0)
    top, left = y.detach().floor(), z.detach().floor()
    columns = 0
    for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, right in ((left, 1 - (z - left)), (left + 1, z - left)):
            inside = reads & (row >= 0) & (row < H) & (column >= 0) & (column < W)
            at = (row.clamp(0, H - 1) * W + column.clamp(0, W - 1)).long().flatten(1)
            read = x.flatten(2).gather(2, at[:, None].expand(N, C, -1)).view(N, C, *inside.shape[1:])
            columns = columns + read * (down * right * inside)[:, None]
    return torch.einsum("nckhw,ock->nohw", columns, weight)


def problem(N, C, O, K, H, W, dtype=torch.float32, spread=3.0):  # noqa: E741
    torch.manual_seed(N + C + O + K + H + W)
    inputs = torch.randn(N, C, H, W).to(dtype), torch.randn(N, K, 2, H, W) * spread, torch.randn(O, C, K).to(dtype)
    return tuple(each.requires_grad_() for each in inputs)


def agree(inputs, tolerance=2e-6, backend="triton"):
    """Result and all three gradients are the reference's, by relative norm."""
    exact = [each.detach().double().requires_grad_() for each in inputs]
    out, expected = point_conv(*inputs, backend), reference(*exact)
    upstream = torch.randn(out.shape).to(out.dtype)
    found, wanted = torch.autograd.grad(out, inputs, upstream), torch.autograd.grad(expected, exact, upstream.double())
    for name, ours, theirs in zip(("out", "x", "points", "weight"), (out, *found), (expected, *wanted), strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm().clamp(min=1e-12)
        assert ours.shape == theirs.shape and error < tolerance, f"{name}: {error:.1e}"
    assert out.dtype == inputs[0].dtype and [each.dtype for each in found] == [each.dtype for each in inputs]


def compile_for(capability, dtype, kind):
    """The kernel as a GPU of this compute capability would run it, for channels last maps of 256 channels; needs no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module("salt_lab.ops.triton_kernels"), triton_launch.KERNELS[kind])
    tiles = triton_launch.TILES[kind, {"bf16": 2, "fp32": 4}[dtype]]
    language = {"bf16": triton.language.bfloat16, "fp32": triton.language.float32}[dtype]
    constants = dict(C=256, O=256, CELLS=tiles.cells, BLOCK_C=tiles.inputs, BLOCK_O=tiles.outputs, stride_o=1, SCATTER=True, POINTS=True)
    constants |= dict(ROUND=language, FACTOR=language, PRECISION="ieee")
    pointers = dict(
        points_ptr="*fp32", grad_points_ptr="*fp32", partial_ptr="*fp32", shares_ptr="*fp32", order_ptr="*i64", starts_ptr="*i32"
    )
    pointers["grad_x_ptr"] = f"*{dtype}" if kind == "map" else "*fp32"
    kinds = {n: "constexpr" if n in constants else pointers.get(n, f"*{dtype}" if n.endswith("_ptr") else "i32") for n in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kinds) if n.endswith("_ptr") or n in ("stride_n", "stride_q")}
    source = ASTSource(fn=kernel, signature=kinds, constexprs={n: v for n, v in constants.items() if n in kinds}, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(num_warps=tiles.warps, num_stages=tiles.stages))


@needs_triton
class TestKernels:
    __test__ = INTERPRETED

    @pytest.mark.parametrize(
        ("N", "C", "O", "K", "H", "W"),
        [(2, 20, 18, 4, 5, 7), (1, 3, 5, 5, 1, 1), (2, 16, 16, 9, 6, 5), (1, 33, 7, 13, 3, 9), (2, 8, 40, 16, 4, 3), (1, 17, 1, 25, 5, 3)],
    )
    def test_result_and_gradients_are_those_of_the_definition(self, N, C, O, K, H, W):  # noqa: E741
        agree(problem(N, C, O, K, H, W))

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1.5e-2), (torch.float16, 1e-3)])
    def test_half_precision_rounds_factors_and_results_but_not_sums(self, dtype, tolerance):
        agree(problem(2, 20, 18, 5, 5, 7, dtype), tolerance)

    def test_channels_last_maps_give_channels_last_results_and_gradients(self):
        x, points, weight = problem(2, 20, 18, 4, 5, 7)
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
        agree((x, points, weight))
        out = point_conv(x, points, weight, "triton")
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert torch.autograd.grad(out.sum(), x)[0].is_contiguous(memory_format=torch.channels_last)

    def test_points_on_cells_and_borders_and_far_outside_read_what_the_definition_says(self):
        x, points, weight = problem(1, 4, 6, 9, 6, 5)
        with torch.no_grad():
            points.round_()
            points[:, 1], points[:, 2], points[:, 3] = 1e9, -1e9, 1e30
            points[:, 4, 0] = -1 - torch.arange(6.0)[:, None]  # exactly at -1: outside
            points[:, 5, 1] = 5 - torch.arange(5.0)  # exactly at W: outside
            points[:, 6, 0] = 5 - torch.arange(6.0)[:, None]  # the last row
            points[:, 7, 1] = -0.5 - torch.arange(5.0)  # half outside
        agree((x, points, weight))

    def test_points_that_are_no_numbers_read_zero_and_get_no_gradient(self):
        x, points, weight = problem(1, 4, 6, 4, 3, 5)
        with torch.no_grad():
            points[:, 1], points[:, 2, 1], points[:, 3, 0] = float("nan"), float("inf"), float("-inf")
        grads = torch.autograd.grad(point_conv(x, points, weight, "triton").sum(), (x, points, weight))
        assert all(each.isfinite().all() for each in grads) and grads[1][:, 1:].abs().max() == 0
        torch.testing.assert_close(point_conv(x, points, weight, "triton"), point_conv(x, points[:, :1], weight[..., :1], "portable"))

    @pytest.mark.parametrize("spread", [2.0, 0.0])
    def test_the_repeatable_gradient_of_the_map_is_the_same_gradient(self, spread):
        x, points, weight = problem(2, 20, 18, 5, 5, 7, spread=spread)
        if not spread:  # every cell of the map reads one corner cell
            points = -torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")).expand(2, 5, 2, 5, 7)
            points = (points + 0.25).requires_grad_()
        torch.use_deterministic_algorithms(True)
        try:
            agree((x, points, weight))
        finally:
            torch.use_deterministic_algorithms(False)

    def test_work_cut_into_many_small_tiles_adds_up_to_the_same(self, monkeypatch):
        small = {key: triton_launch.Tiles(16, 16, 16, 4, 1) for key in triton_launch.TILES}
        monkeypatch.setattr(triton_launch, "TILES", small)
        monkeypatch.setattr(triton_launch, "_processors", lambda x: 16)
        agree(problem(2, 19, 17, 4, 3, 7))
        torch.use_deterministic_algorithms(True)
        try:
            agree(problem(1, 17, 19, 4, 3, 6))
        finally:
            torch.use_deterministic_algorithms(False)

    def test_only_the_gradients_that_are_asked_for_are_made(self):
        for wanted in range(3):
            inputs = problem(1, 5, 3, 4, 4, 3)
            everything = torch.autograd.grad(point_conv(*inputs, "triton").square().sum(), inputs)
            fixed = [each.requires_grad_(i == wanted) for i, each in enumerate(each.detach() for each in inputs)]
            point_conv(*fixed, "triton").square().sum().backward()
            torch.testing.assert_close(fixed[wanted].grad, everything[wanted])

    def test_no_image_or_no_channel_gives_empty_results_and_zero_gradients(self):
        for sizes in ((0, 4, 6, 5, 3, 4), (2, 0, 6, 5, 3, 4), (2, 4, 6, 5, 0, 4)):
            inputs = problem(*sizes)
            out = point_conv(*inputs, "triton")
            assert out.shape == point_conv(*inputs, "portable").shape if sizes[4] else out.numel() == 0
            grads = torch.autograd.grad(out.sum(), inputs)
            assert out.abs().sum() == 0 and all(each.abs().sum() == 0 for each in grads)

    def test_autocast_makes_the_product_in_half_precision_and_leaves_points_alone(self):
        inputs = problem(1, 20, 18, 4, 5, 7)
        with torch.autocast("cpu", torch.bfloat16):
            out, portable = point_conv(*inputs, "triton"), point_conv(*inputs, "portable")
        assert out.dtype == portable.dtype == torch.bfloat16
        assert (out.float() - portable.float()).norm() / portable.float().norm() < 1.5e-2
        grads = torch.autograd.grad(out.float().sum(), inputs)
        assert all(each.dtype == torch.float32 for each in grads)

    def test_torch_knows_the_operator(self):
        torch.library.opcheck(torch.ops.salt_lab.point_conv.default, problem(1, 4, 3, 4, 2, 3))

    def test_torch_compile_sees_one_graph(self):
        inputs = problem(1, 5, 3, 4, 4, 3)
        compiled = torch.compile(lambda *each: point_conv(*each, "triton").relu(), fullgraph=True, backend="aot_eager")
        ours, theirs = (f(*inputs) for f in (compiled, lambda *each: point_conv(*each, "triton").relu()))
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(torch.autograd.grad(ours.sum(), inputs), torch.autograd.grad(theirs.sum(), inputs))

    def test_its_arithmetic_is_counted_like_the_portable_paths(self):
        inputs, counts = problem(1, 5, 3, 4, 4, 3), []
        for backend in ("triton", "portable"):
            with FlopCounterMode(display=False) as counter:
                point_conv(*inputs, backend).sum().backward()
            counts.append(counter.get_total_flops())
        assert counts[0] == counts[1] == 3 * 2 * 12 * 3 * 5 * 4

    def test_a_device_with_little_shared_memory_gets_smaller_tiles_and_they_are_remembered(self, monkeypatch):
        from triton.runtime.errors import OutOfResources

        tried = []

        class Kernel:
            def __getitem__(self, grid):
                def run(*numbers, **constants):
                    tried.append((constants["num_stages"], constants["BLOCK_O"]))
                    if tried[-1] != (1, 64):
                        raise OutOfResources(200_000, 100_000, "shared memory")

                return run

        kernels = importlib.import_module("salt_lab.ops.triton_kernels")
        monkeypatch.setattr(kernels, "forward_kernel", Kernel())
        monkeypatch.setattr(triton_launch, "_FITTING", {})
        inputs = problem(1, 4, 128, 4, 2, 3)
        point_conv(*inputs, "triton")
        point_conv(*inputs, "triton")
        assert tried == [(2, 128), (1, 128), (1, 64), (1, 64)]

    def test_tf32_is_used_only_where_torch_may_use_it(self):
        settings, found = torch.backends.cuda.matmul, {}
        before = settings.allow_tf32
        try:
            for settings.allow_tf32 in (False, True):
                found[settings.allow_tf32] = triton_launch._precision()
        finally:
            settings.allow_tf32 = before
        assert found == {False: "ieee", True: "tf32"}

    def test_types_without_a_kernel_are_named(self):
        x, points, weight = problem(1, 5, 3, 4, 4, 3)
        with pytest.raises(UserError, match="no kernel for torch.float64"):
            point_conv(x.double(), points, weight.double(), "triton")
        with pytest.raises(UserError, match=r"x is torch.float16 and weight torch.float32"):
            point_conv(x.half(), points, weight, "triton")


class TestChoice:
    __test__ = not INTERPRETED

    @needs_triton
    @pytest.mark.slow
    def test_the_kernels_pass_in_tritons_interpreter(self):
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", POINT_CONV_VARIABLE))}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(Path(__file__))]
        done = subprocess.run(
            command,
            env={**env, "TRITON_INTERPRET": "1"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    @needs_triton
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", sorted(triton_launch.KERNELS))
    @pytest.mark.parametrize("dtype", ["bf16", "fp32"])
    @pytest.mark.parametrize("capability", [80, 90])
    def test_every_kernel_compiles_for_ampere_and_hopper_at_256_channels(self, capability, dtype, kind, monkeypatch, tmp_path):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        compiled = compile_for(capability, dtype, kind)
        assert compiled.asm["cubin"] and compiled.metadata.shared <= {80: 163, 90: 227}[capability] * 1024

    def test_the_cpu_takes_the_portable_path_by_itself_and_the_kernels_by_no_means(self, monkeypatch):
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        inputs = problem(1, 5, 3, 4, 4, 3)
        assert torch.equal(point_conv(*inputs), point_conv(*inputs, "portable"))
        with pytest.raises(UserError, match="x is on 'cpu', not on a CUDA device. Choose the backend 'auto' or 'portable'"):
            point_conv(*inputs, "triton")

    def test_the_environment_decides_where_the_caller_does_not(self, monkeypatch):
        inputs = problem(1, 5, 3, 4, 4, 3)
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        monkeypatch.setenv(POINT_CONV_VARIABLE, "triton")
        with pytest.raises(UserError, match="not on a CUDA device"):
            point_conv(*inputs)
        assert point_conv(*inputs, "portable").shape == (1, 3, 4, 3)

    def test_a_backend_that_is_not_there_is_named_with_its_neighbour(self, monkeypatch):
        monkeypatch.setenv(POINT_CONV_VARIABLE, "trition")
        with pytest.raises(UserError, match=r"no backend named 'trition'. Did you mean 'triton'\?.*SALT_LAB_POINT_CONV"):
            point_conv(*problem(1, 5, 3, 4, 4, 3))

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
    @pytest.mark.parametrize(
        ("wanted", "backend", "note"),
        [("", PORTABLE, "SALT_LAB_POINT_CONV=auto"), ("auto", PORTABLE, "no CUDA device"), ("portable", PORTABLE, "in its interpreter"),
         ("triton", MISSING, "but no CUDA device"),
         ("fast", MISSING, "choose auto, triton, portable")],
    )  # fmt: skip
    def test_the_doctor_is_told_who_computes_and_why(self, wanted, backend, note, monkeypatch):
        monkeypatch.setenv(POINT_CONV_VARIABLE, wanted)
        row = next(each for each in backends() if each.op == "point_conv")
        assert row.backend == backend and note in row.note

    def test_importing_the_operator_imports_neither_the_kernels_nor_the_compiler(self):
        code = "import sys, salt_lab.ops.point_conv; print('salt_lab.ops.triton_kernels' in sys.modules, 'torch._dynamo' in sys.modules)"
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True
        )
        assert found.stdout.strip() == "False False"
