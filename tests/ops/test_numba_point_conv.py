"""The CPU's kernels of point convolution: what every kernel keeps, and what threads and chunks of columns must not change."""

import multiprocessing

import pytest
import torch

from salt_lab.errors import UserError
from salt_lab.ops import fused_point_conv, numba_launch
from salt_lab.ops.backends import backends
from salt_lab.ops.point_conv import point_conv
from salt_lab.testing.point_conv_contract import PointConvContract, agree, problem

NO_NUMBA = fused_point_conv.why_not_numba(torch.device("cpu"))
pytestmark = pytest.mark.skipif(NO_NUMBA is not None, reason=str(NO_NUMBA))


def everything(inputs, backend="numba"):
    out = point_conv(*inputs, backend)
    return (out, *torch.autograd.grad(out.square().sum(), inputs))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class TestKernels(PointConvContract):
    backend = "numba"

    def test_double_precision_is_computed_in_double_precision(self):
        agree(problem(2, 5, 6, 9, 6, 5, torch.float64), self.backend, 2e-7)  # the points' gradient is float32, as they are

    def test_the_portable_path_agrees_at_the_width_of_a_real_head(self):
        inputs = problem(2, 64, 64, 9, 13, 17)
        for ours, theirs in zip(everything(inputs), everything(inputs, "portable"), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.detach().abs().max()))


def test_the_same_inputs_give_the_same_bits_twice():
    inputs = problem(2, 32, 32, 9, 9, 11)
    for once, again in zip(everything(inputs), everything(inputs), strict=True):
        assert torch.equal(once, again)


def test_threads_change_no_more_than_rounding(threads):
    inputs = problem(2, 96, 32, 9, 20, 23)
    threads(1)
    alone = everything(inputs)
    threads(3)
    for ours, theirs in zip(everything(inputs), alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.detach().abs().max()))


def test_columns_cut_into_many_chunks_add_up_to_the_same(monkeypatch):
    monkeypatch.setattr(numba_launch, "CHUNK_NUMBERS", 7 * 4 * 5)  # seven cells at a time: neither rows nor images end with a chunk
    agree(problem(2, 5, 3, 4, 3, 8), "numba")


def test_columns_of_the_whole_map_are_never_in_memory(monkeypatch):
    made, make = [], torch.Tensor.new_empty

    def counted(self, *size, **options):
        made.append(make(self, *size, **options))
        return made[-1]

    monkeypatch.setattr(torch.Tensor, "new_empty", counted)
    with torch.no_grad():
        point_conv(*problem(1, 64, 8, 25, 100, 50), "numba")
    assert made and max(each.numel() for each in made) <= numba_launch.CHUNK_NUMBERS < 64 * 25 * 100 * 50


def test_the_cpu_takes_its_kernels_by_itself_and_an_exported_graph_does_not(monkeypatch):
    monkeypatch.delenv("SALT_LAB_POINT_CONV", raising=False)
    inputs = problem(1, 5, 3, 4, 4, 3)
    assert torch.equal(point_conv(*inputs), point_conv(*inputs, "numba"))
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert torch.equal(point_conv(*inputs), point_conv(*inputs, "portable"))


def test_half_precision_takes_the_portable_path_and_the_kernels_say_why():
    x, points, weight = problem(1, 5, 3, 4, 4, 3, torch.bfloat16)
    assert torch.equal(point_conv(x, points, weight, "auto"), point_conv(x, points, weight, "portable"))
    with pytest.raises(UserError, match=r"numba kernels cannot be used: no kernel for torch.bfloat16.*float32, float64 are"):
        point_conv(x, points, weight, "numba")


def test_an_infinite_feature_at_the_edge_is_read_as_the_portable_path_reads_it():
    x, points, weight = torch.ones(1, 4, 3, 3), torch.zeros(1, 4, 2, 3, 3), torch.rand(2, 4, 4)
    x[..., 0], points[:, :, 0], points[:, :, 1] = float("inf"), 0.25, -0.5
    torch.testing.assert_close(point_conv(x, points, weight, "numba"), point_conv(x, points, weight, "portable"))


def test_a_forked_process_computes_with_threads_of_its_own(threads):
    threads(2)
    point_conv(*problem(2, 64, 8, 4, 20, 23), "numba")  # starts this process's threads
    child = multiprocessing.get_context("fork").Process(target=numba_launch._side_by_side, args=(128, 1, lambda part, first, last: None))
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_a_numba_that_does_not_load_leaves_the_portable_path_and_the_doctor_says_why(monkeypatch):
    monkeypatch.setattr(fused_point_conv, "_numba_fails", lambda: "numba does not load (ImportError: needs NumPy 2.4)")
    inputs = problem(1, 5, 3, 4, 4, 3)
    assert torch.equal(point_conv(*inputs), point_conv(*inputs, "portable"))
    assert "needs NumPy 2.4" in next(row for row in backends() if row.op == "point_conv").note
