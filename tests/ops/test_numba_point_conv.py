"""The CPU's kernels of point convolution: what every kernel keeps, and what threads and chunks of columns must not change."""

import pytest
import torch

from salt_lab.errors import UserError
from salt_lab.ops import fused_point_conv, numba_launch
from salt_lab.ops.point_conv import point_conv
from salt_lab.testing.point_conv_contract import PointConvContract, agree, problem

pytestmark = pytest.mark.skipif(not fused_point_conv.HAS_NUMBA, reason="numba is not installed (pip install numba)")


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
