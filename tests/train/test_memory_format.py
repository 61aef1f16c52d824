"""Channels last: the same numbers to rounding for every host, the same weights, the same files."""

import copy

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from salt_lab.spec.parts import HOSTS, SALT_HOSTS
from salt_lab.testing.host_models import TWO_OBJECTS, batch, build, small, total
from salt_lab.train.libraries import load_libraries
from salt_lab.train.memory_format import MemoryFormatHook, arrange, arrange_optimizer

load_libraries()


QUICK = ("fcos", "atss", "gfl")


def channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def step(model, pixels, samples):
    """Losses of one batch and the gradient of every parameter."""
    data = model.data_preprocessor({"inputs": list(pixels), "data_samples": copy.deepcopy(samples)}, True)
    losses = model(**data, mode="loss")
    total(losses).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def length(tensors):
    return sum(float(each.square().sum()) for each in tensors) ** 0.5


@pytest.mark.parametrize("host", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in HOSTS])
def test_every_host_learns_the_same_from_channels_that_lie_last(host):
    """Batch norm is frozen: in training, over a handful of values a channel, it makes rounding a thousand times as large."""
    salt = {"enabled": True} if host in SALT_HOSTS else {}
    plain = build(small(host, **salt))
    plain.backbone.eval()
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD asks for it
    moved = copy.deepcopy(plain)
    arrange(moved)
    pixels, samples = batch(TWO_OBJECTS)
    wanted, found = (step(model, pixels, samples) for model in (plain, moved))
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-6)
    assert found[1].keys() == wanted[1].keys()
    assert length(found[1][name] - grad for name, grad in wanted[1].items()) < 1e-3 * length(wanted[1].values())


def test_kernels_and_images_are_moved_and_parameters_stay_the_same_objects():
    model = build(small("atss", enabled=True))
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    arrange(model)
    arrange(model)
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0] and torch.equal(parameter, before[name][1])
    assert channels_last(model.backbone.layer1[0].conv1.weight) and channels_last(model.bbox_head.cls_convs[0].conv.weight)
    assert len(model.data_preprocessor._forward_hooks) == 1
    inputs = model.data_preprocessor({"inputs": [torch.rand(3, 40, 56)] * 2, "data_samples": []}, False)["inputs"]
    assert channels_last(inputs) and inputs.shape == (2, 3, 64, 64)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimiser_that_goes_on_from_a_file_takes_the_same_step(kind):
    """A fused AdamW walks weights and state side by side in memory: state in another order would be another weight's."""
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {"fused": True}
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3)
    moved = copy.deepcopy(plain)
    first, second = (kind(model.parameters(), lr=0.1, **options) for model in (plain, moved))
    x = torch.randn(2, 4, 8, 8)
    plain(x).square().sum().backward()
    first.step()
    moved.load_state_dict(plain.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    arrange(moved)
    arrange_optimizer(second)
    for model, optimizer in ((plain, first), (moved, second)):
        optimizer.zero_grad()
        model(x.contiguous(memory_format=torch.channels_last if model is moved else torch.contiguous_format)).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(moved.weight, plain.weight, rtol=1e-4, atol=1e-6)
    assert all(value.stride() == moved.weight.stride() for value in second.state[moved.weight].values() if value.dim() == 4)


def test_a_checkpoint_holds_contiguous_tensors_whatever_the_model_has():
    model = nn.Sequential(nn.Conv2d(4, 6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    arrange(model)
    model(torch.randn(1, 4, 8, 8)).sum().backward()
    optimizer.step()
    checkpoint = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "meta": {"epoch": 1}}
    MemoryFormatHook().before_save_checkpoint(None, checkpoint)
    kept, momentum = checkpoint["state_dict"]["0.weight"], checkpoint["optimizer"]["state"][0]["momentum_buffer"]
    assert kept.is_contiguous() and momentum.is_contiguous() and torch.equal(kept, model[0].weight)
    assert channels_last(model[0].weight) and checkpoint["state_dict"]._metadata, "the model itself and the versions are as they were"
