"""The arithmetic of a model: hand counts of single layers, and rules that a comparison of detectors needs."""

from __future__ import annotations

import importlib
import json
import resource
import time
import warnings

import pytest
import torch
from torch import Tensor, nn

from salt_lab.spec.trial import Trial
from salt_lab.testing.host_contract import build, small
from salt_lab.train.flops import gflops, gflops_once, multiply_adds
from salt_lab.train.libraries import load_libraries

N, C, OUT, H, W = 2, 8, 16, 10, 12
CONV_3X3 = N * H * W * 9 * C * OUT


@pytest.fixture(scope="module", autouse=True)
def libraries():
    load_libraries()


def count(module: nn.Module, *shapes: tuple[int, ...]) -> int:
    return multiply_adds(module, lambda m: m(*(torch.zeros(shape) for shape in (shapes or ((N, C, H, W),)))))


# --- hand counts, one layer each ---


def test_a_convolution_is_its_output_times_its_taps():
    assert count(nn.Conv2d(C, OUT, 3, padding=1)) == CONV_3X3
    assert count(nn.Conv2d(C, OUT, 3, padding=1, stride=2, bias=False)) == CONV_3X3 // 4
    assert count(nn.Conv2d(C, OUT, 1)) == N * H * W * C * OUT
    assert count(nn.Conv2d(C, C, 3, padding=1, groups=C)) == N * H * W * 9 * C


def test_a_linear_layer_is_a_matrix_product():
    assert count(nn.Linear(C, OUT), (N, C)) == N * C * OUT


def test_point_convolution_with_nine_points_counts_as_a_3x3_convolution():
    from salt_lab.models.operator import PointConvLayer

    for points in (5, 9, 16):
        counted = count(PointConvLayer(32, points), (N, 32, H, W), (N, points, 2, H, W))
        assert counted == N * H * W * points * 32 * 32
    assert count(nn.Conv2d(32, 32, 3, padding=1), (N, 32, H, W)) == N * H * W * 9 * 32 * 32


def test_a_deformable_convolution_counts_as_the_convolution_and_that_of_its_offsets():
    from mmcv.ops import DeformConv2dPack

    offsets = N * H * W * 9 * C * (2 * 9)
    assert count(DeformConv2dPack(C, OUT, 3, padding=1)) == CONV_3X3 + offsets
    assert count(DeformConv2dPack(C, OUT, 3, padding=1, groups=2, deform_groups=4)) == CONV_3X3 // 2 + 4 * offsets


def test_a_modulated_deformable_convolution_counts_its_masks_prediction_too():
    from mmcv.ops import ModulatedDeformConv2dPack

    offsets_and_mask = N * H * W * 9 * C * (3 * 9)
    assert count(ModulatedDeformConv2dPack(C, OUT, 3, padding=1)) == CONV_3X3 + offsets_and_mask


def test_a_deformable_convolution_called_as_a_function_is_counted():
    """TOOD does so."""
    from mmcv.ops import deform_conv2d

    class Sampling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return deform_conv2d(x, x.new_zeros(N, 2, H, W), x.new_ones(C, 1, 1, 1), 1, 0, 1, C, 1)

    assert count(Sampling()) == N * H * W * C


def test_what_has_no_multiply_adds_of_that_kind_costs_nothing():
    assert count(nn.Sequential(nn.BatchNorm2d(C), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.GroupNorm(2, C))) == 0


# --- compiled ops, and models that cannot run on empty tensors ---


class Reading(nn.Module):
    """A layer whose work depends on what is in the picture, before a deformable convolution."""

    def __init__(self) -> None:
        super().__init__()
        from mmcv.ops import ModulatedDeformConv2dPack

        self.conv = ModulatedDeformConv2dPack(C, OUT, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if float(x.sum()) == 0 else x


def test_a_model_that_reads_values_is_really_run_and_counted_the_same():
    assert count(Reading()) == CONV_3X3 + N * H * W * 9 * C * 27


@pytest.mark.parametrize("layer", ["DeformConv2dPack", "ModulatedDeformConv2dPack"])
@pytest.mark.parametrize("really", [False, True])
def test_an_op_that_torch_cannot_see_into_counts_the_same(layer, really, monkeypatch):
    """A compiled op: torch's counter sees nothing of it."""
    import mmcv.ops

    home, name = {
        "DeformConv2dPack": ("mmcv.ops.deform_conv", "deform_conv_forward"),
        "ModulatedDeformConv2dPack": ("mmcv.ops.modulated_deform_conv", "modulated_deform_conv_forward"),
    }[layer]
    module = getattr(mmcv.ops, layer)(C, OUT, 3, padding=1)
    wrapped = nn.Sequential(Sum(), module) if really else module
    expected = count(wrapped)
    monkeypatch.setattr(importlib.import_module(home).ext_module, name, lambda *args, **options: None)
    assert count(wrapped) == expected > CONV_3X3


class Sum(nn.Module):
    """Reads its input, which no empty tensor allows."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) == 0 else -x


def test_after_counting_the_ops_are_the_old_ones():
    from mmcv.ops import DeformConv2dPack

    ops = importlib.import_module("mmcv.ops.deform_conv").ext_module
    before = ops.deform_conv_forward
    layer = DeformConv2dPack(C, OUT, 3, padding=1)
    count(layer)
    with pytest.raises(ZeroDivisionError):
        multiply_adds(layer, lambda m: 1 // 0)
    assert ops.deform_conv_forward is before
    assert layer(torch.ones(N, C, H, W)).abs().sum() > 0


# --- whole detectors ---


def full(host: str, **backbone) -> nn.Module:
    """mmdet's own model of the host, ResNet-50, untrained, 80 classes."""
    from mmdet.registry import MODELS

    from salt_lab.compose.hosts import mmdet_config

    model = mmdet_config(host).model
    model.backbone.init_cfg = None
    model.backbone.update(backbone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS.build(model)


@pytest.fixture(scope="module")
def benchmark(script):
    """``benchmarks/flops.py``, which is no package."""
    return script("benchmarks/flops.py")


@pytest.mark.parametrize(("host", "digits"), [("retinanet_9_anchors", 2), ("fcos_plain", 3), ("atss", 0)])
def test_published_counts_are_met_to_their_last_digit_by_their_own_rules_and_within_half_a_percent_by_ours(benchmark, host, digits):
    """Theirs add biases, batch norm, ReLU and pooling: our count is the published one without these."""
    published, model = benchmark.PUBLISHED[host], benchmark.model_of(host, salt=False)
    size = (published.height, published.width)
    assert round(benchmark.mmcv1_gflops(model, *size), digits) == published.gflops
    counted = gflops(model, *size)
    assert 0.995 * published.gflops < counted < published.gflops


def test_the_committed_counts_are_those_of_today(benchmark, repository):
    rows = json.loads((repository / "benchmarks" / "results" / "flops" / "flops.json").read_text())["rows"]
    committed = {(row["host"], row["salt"]): row["gflops"] for row in rows}
    for salt in (False, True):
        assert gflops(benchmark.model_of("gfl", salt), benchmark.HEIGHT, benchmark.WIDTH) == committed["gfl", salt]


def test_adding_deformable_convolutions_never_makes_the_count_fall():
    name, dcn = "atss/atss_r50_fpn_1x_coco.py", dict(type="DCNv2", deform_groups=1, fallback_on_stride=False)
    plain, v2 = (gflops(full(name, **extra), 256, 320) for extra in ({}, dict(dcn=dcn, stage_with_dcn=(False, True, True, True))))
    assert v2 > plain


def test_counting_a_full_size_model_takes_no_memory_for_its_maps_and_no_time():
    model = full("atss/atss_r50_fpn_1x_coco.py")
    gflops(model, 64, 64)  # imports
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert gflops(model, 800, 1333) > 200
    assert time.process_time() - started < 3  # really run it is 200 x 10^9 multiply-adds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB; the first map alone is 64 MiB


def test_the_operator_costs_what_its_layers_cost():
    """Two hidden convolutions, three predictors, two point convolutions, on every cell of the pyramid."""
    plain, salt = (gflops(build(small("atss", **toggles)), 64, 64) for toggles in ({}, {"enabled": True}))
    cells = sum(side * side for side in (8, 4, 2, 1, 1))
    channels, points = 64, 9
    predictors = 9 * channels * (4 + (2 * points - 4) + 2 * points)
    assert (salt - plain) * 1e9 == pytest.approx(cells * (4 * 9 * channels**2 + predictors))


def test_counting_leaves_the_model_its_mode_and_its_weights():
    model = build(small("atss", enabled=True))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    gflops(model, 64, 96)
    assert torch.equal(torch.rand(1), expected), "counting used up randomness"
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any("Fake" in type(value).__name__ for module in model.modules() for value in vars(module).values())


def test_a_model_wrapped_for_several_workers_counts_as_itself():
    model = build(Trial.model_validate(small("gfl").model_dump()))
    wrapper = nn.Module()
    wrapper.module = model
    assert gflops(wrapper, 64, 64) == gflops(model, 64, 64) > 0


def test_a_model_that_cannot_be_run_on_an_image_alone_has_no_count_but_a_reason():
    with pytest.warns(UserWarning, match="GFLOPs not counted: TypeError"):
        assert gflops(nn.Conv2d(3, 3, 1), 64, 64) is None


# --- counted once, and without a trace ---


def test_a_config_and_size_are_counted_once_in_a_process(monkeypatch):
    counted = []
    monkeypatch.setattr("salt_lab.train.flops._COUNTED", {})
    monkeypatch.setattr("salt_lab.train.flops.gflops", lambda model, height, width: counted.append((model, height, width)) or float(height))
    configs = [{"type": "A", "neck": {"channels": channels}} for channels in (32, 64)]
    found = [gflops_once(config, model, height, 128) for model in ("seed 0", "seed 1") for config in configs for height in (64, 96)]
    assert found == [64, 96, 64, 96] * 2 and len(counted) == 4
    assert all(model == "seed 0" for model, *_ in counted)


def test_a_model_that_cannot_be_counted_is_tried_again_so_that_each_trials_log_says_why(monkeypatch):
    monkeypatch.setattr("salt_lab.train.flops._COUNTED", {})
    for _ in range(2):
        with pytest.warns(UserWarning, match="GFLOPs not counted"):
            assert gflops_once({"type": "A"}, nn.Conv2d(3, 3, 3), 64, 64) is None


def test_counting_draws_no_random_number_so_training_starts_from_the_same_weights_with_and_without_it():
    class Draws(nn.Conv2d):
        def forward(self, pixels, samples=None):
            return super().forward(pixels + torch.rand(()).item())  # reads a value: it is really run

    model, before = Draws(3, 4, 3), torch.get_rng_state()
    assert gflops(model, 8, 8) == 6 * 6 * 4 * 9 * 3 / 1e9
    assert torch.equal(before, torch.get_rng_state())
