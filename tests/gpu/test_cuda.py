"""The same numbers on a GPU as on the CPU; skipped where there is none (`make gpu`)."""

import pytest
import torch

from salt_lab.models.operator import SALT
from salt_lab.ops.point_conv import point_conv
from salt_lab.testing.host_contract import TWO_OBJECTS, batch, build, one, small, total

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_point_convolution_agrees_with_the_cpu_forward_and_backward():
    torch.manual_seed(0)
    x, points, weight = torch.randn(2, 64, 20, 30), torch.randn(2, 9, 2, 20, 30) * 4, torch.randn(64, 64, 9) * 0.05
    grads = []
    for device in ("cpu", "cuda"):
        inputs = [t.to(device).detach().requires_grad_() for t in (x, points, weight)]
        out = point_conv(*inputs)
        out.square().mean().backward()
        grads.append([out.detach().cpu(), *(t.grad.cpu() for t in inputs)])
    for cpu, cuda in zip(*grads, strict=True):
        assert (cpu - cuda).norm() / cpu.norm() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_operator_under_autocast_stays_finite_with_points_in_float32(dtype):
    salt = SALT(64, num_levels=1).cuda()
    x = [torch.randn(2, 64, 25, 38, device="cuda") for _ in range(3)]
    with torch.autocast("cuda", dtype):
        aligned = salt(*x, 0)
    assert all(t.isfinite().all() for t in aligned)
    assert aligned.r_points_NK2HW.dtype == torch.float32


@pytest.mark.parametrize("host", ["atss", "fcos", "gfl", "salt_net"])
def test_every_host_has_the_cpus_losses_and_takes_a_step(host):
    model = build(small(host, enabled=True))
    images, samples = batch(TWO_OBJECTS)
    on_cpu = {k: one(v) for k, v in model.loss(images, samples).items()}
    model.cuda()
    losses = model.loss(images.cuda(), [s.cuda() for s in samples])
    for name, value in on_cpu.items():
        assert one(losses[name]) == pytest.approx(value, rel=2e-3, abs=1e-4), name
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
