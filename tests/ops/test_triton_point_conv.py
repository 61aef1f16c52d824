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

from salt_lab.errors import UserError
from salt_lab.ops import triton_launch
from salt_lab.ops.backends import MISSING, NUMBA, POINT_CONV_VARIABLE, PORTABLE, backends
from salt_lab.ops.fused_point_conv import HAS_TRITON
from salt_lab.ops.point_conv import point_conv
from salt_lab.testing.point_conv_contract import PointConvContract, agree, problem

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed (pip install triton)")


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
class TestKernels(PointConvContract):
    __test__ = INTERPRETED
    backend = "triton"

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1.5e-2), (torch.float16, 1e-3)])
    def test_half_precision_rounds_factors_and_results_but_not_sums(self, dtype, tolerance):
        agree(problem(2, 20, 18, 5, 5, 7, dtype), "triton", tolerance)

    @pytest.mark.parametrize("spread", [2.0, 0.0])
    def test_the_repeatable_gradient_of_the_map_is_the_same_gradient(self, spread):
        x, points, weight = problem(2, 20, 18, 5, 5, 7, spread=spread)
        if not spread:  # every cell of the map reads one corner cell
            points = -torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")).expand(2, 5, 2, 5, 7)
            points = (points + 0.25).requires_grad_()
        torch.use_deterministic_algorithms(True)
        try:
            agree((x, points, weight), "triton")
        finally:
            torch.use_deterministic_algorithms(False)

    def test_work_cut_into_many_small_tiles_adds_up_to_the_same(self, monkeypatch):
        small = {key: triton_launch.Tiles(16, 16, 16, 4, 1) for key in triton_launch.TILES}
        monkeypatch.setattr(triton_launch, "TILES", small)
        monkeypatch.setattr(triton_launch, "_processors", lambda x: 16)
        agree(problem(2, 19, 17, 4, 3, 7), "triton")
        torch.use_deterministic_algorithms(True)
        try:
            agree(problem(1, 17, 19, 4, 3, 6), "triton")
        finally:
            torch.use_deterministic_algorithms(False)

    def test_autocast_makes_the_product_in_half_precision_and_leaves_points_alone(self):
        inputs = problem(1, 20, 18, 4, 5, 7)
        with torch.autocast("cpu", torch.bfloat16):
            out, portable = point_conv(*inputs, "triton"), point_conv(*inputs, "portable")
        assert out.dtype == portable.dtype == torch.bfloat16
        assert (out.float() - portable.float()).norm() / portable.float().norm() < 1.5e-2
        grads = torch.autograd.grad(out.float().sum(), inputs)
        assert all(each.dtype == torch.float32 for each in grads)

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

    def test_the_cpu_takes_tritons_kernels_by_no_means(self, monkeypatch):
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        inputs = problem(1, 5, 3, 4, 4, 3)
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
        [("", NUMBA, "SALT_LAB_POINT_CONV=portable"), ("auto", NUMBA, "never in memory"), ("portable", PORTABLE, "SALT_LAB_POINT_CONV=auto"),
         ("triton", MISSING, "but no CUDA device"),
         ("fast", MISSING, "choose auto, numba, triton, portable")],
    )  # fmt: skip
    def test_the_doctor_is_told_who_computes_and_why(self, wanted, backend, note, monkeypatch):
        monkeypatch.setenv(POINT_CONV_VARIABLE, wanted)
        row = next(each for each in backends() if each.op == "point_conv")
        assert row.backend == backend and note in row.note

    def test_importing_the_operator_imports_neither_the_kernels_nor_a_compiler(self):
        code = "import sys, salt_lab.ops.point_conv; print({'salt_lab.ops.triton_kernels', 'torch._dynamo', 'numba'} & set(sys.modules))"
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True
        )
        assert found.stdout.strip() == "set()"
