"""Starting backbones and whole hosts from the files that people have: what is loaded, what is left out, what is refused."""

import pytest
import torch

from salt_lab.errors import WeightsError
from salt_lab.models.weight_names import MOBILENET_V2_BLOCKS, mobilenet_v2_names, timm_mobilenet_v2_names, todays_names
from salt_lab.models.weights import NO_SUCH_PART, load_backbone, load_host, read_weights
from salt_lab.testing.host_contract import build, small
from salt_lab.train.libraries import load_libraries

#: timm's mobilenetv2_100: names and shapes of stem, head and the blocks with and without expansion (timm 1.0.31)
TIMM = {
    "conv_stem.weight": (32, 3, 3, 3),
    "bn1.running_var": (32,),
    "blocks.0.0.conv_dw.weight": (32, 1, 3, 3),
    "blocks.0.0.bn1.weight": (32,),
    "blocks.0.0.conv_pw.weight": (16, 32, 1, 1),
    "blocks.0.0.bn2.weight": (16,),
    "blocks.1.0.conv_pw.weight": (96, 16, 1, 1),
    "blocks.1.0.bn1.weight": (96,),
    "blocks.1.0.conv_dw.weight": (96, 1, 3, 3),
    "blocks.1.0.bn2.weight": (96,),
    "blocks.1.0.conv_pwl.weight": (24, 96, 1, 1),
    "blocks.1.0.bn3.weight": (24,),
    "blocks.6.0.conv_pwl.weight": (320, 960, 1, 1),
    "conv_head.weight": (1280, 320, 1, 1),
    "bn2.running_mean": (1280,),
}


def mobilenet():
    load_libraries()
    from mmdet.models.backbones import MobileNetV2

    return MobileNetV2(out_indices=(1, 2, 4, 6))


def resnet(depth=18, width=8):
    load_libraries()
    from mmdet.models.backbones import ResNet

    torch.manual_seed(depth)
    return ResNet(depth, base_channels=width, stem_channels=width)


def timm_state(ours):
    """A MobileNetV2 of mmdet under timm's names, made the other way round: name by name of timm's naming rules."""
    parts = {"expand_conv": ("conv_pw", "bn1"), "depthwise_conv": ("conv_dw", "bn2"), "linear_conv": ("conv_pwl", "bn3")}
    first = {"depthwise_conv": ("conv_dw", "bn1"), "linear_conv": ("conv_pw", "bn2")}
    state = {"classifier.weight": torch.zeros(1000, 1280)}
    for name, value in ours.items():
        at, *rest, leaf = name.split(".")
        is_norm = rest[-1] == "bn"
        if at in ("conv1", "conv2"):
            state[f"{('conv_stem', 'bn1', 'conv_head', 'bn2')[2 * (at == 'conv2') + is_norm]}.{leaf}"] = value
        else:
            names = (first if at == "layer1" else parts)[rest[1]]
            state[f"blocks.{int(at[5:]) - 1}.{rest[0]}.{names[is_norm]}.{leaf}"] = value
    return state


def save(state, path):
    torch.save(state, path)
    return path


def assert_equal(module, state):
    own = module.state_dict()
    assert own.keys() == state.keys() and all(torch.equal(own[k], state[k]) for k in own)


# Backbones


def test_torchvisions_mobilenet_weights_fill_every_tensor_of_the_backbone(shared):
    result = load_backbone(mobilenet(), shared / "data" / "mobilenet_v2_imagenet.pth")
    assert not result.new and not result.skipped and len(result.loaded) > 250


def test_timms_mobilenet_weights_fill_every_tensor_and_its_classifier_is_left_out(tmp_path):
    source, target = mobilenet(), mobilenet()
    for value in source.state_dict().values():
        value.copy_(torch.rand(value.shape) if value.is_floating_point() else torch.ones_like(value))
    result = load_backbone(target, save(timm_state(source.state_dict()), tmp_path / "timm.pth"))
    assert not result.new and result.skipped == {"classifier.weight": NO_SUCH_PART}
    assert_equal(target, source.state_dict())


def test_timms_own_names_and_shapes_are_those_of_our_backbone():
    own = mobilenet().state_dict()
    renamed = timm_mobilenet_v2_names({name: torch.zeros(shape) for name, shape in TIMM.items()})
    assert {name: value.shape for name, value in renamed.items()} == {name: own[name].shape for name in renamed}
    assert TIMM.keys() <= timm_state(own).keys()


@pytest.mark.parametrize(
    ("depth", "prefix"), [(18, ""), (34, ""), (50, ""), (101, ""), (18, "module."), (50, "backbone."), (18, "module.backbone.")]
)
def test_a_resnet_has_one_set_of_names_in_torchvision_timm_and_mmdet(tmp_path, depth, prefix):
    """torchvision writes conv1, bn1, layerL.B.convN, layerL.B.bnN, layerL.B.downsample.0/1 and a classifier fc."""
    source, target = resnet(depth), resnet(depth)
    state = {prefix + k: torch.rand_like(v) if v.is_floating_point() else v for k, v in source.state_dict().items()}
    last = "layer4.0.bn3.weight" if depth >= 50 else "layer4.0.bn2.weight"
    assert {prefix + name for name in ("conv1.weight", "layer2.0.downsample.1.running_var", last)} <= state.keys()
    result = load_backbone(target, save({"state_dict": state | {"fc.weight": torch.zeros(1000, 8)}}, tmp_path / "resnet.pth"))
    assert not result.new and list(result.skipped) == ["fc.weight"]
    assert_equal(target, {k.removeprefix(prefix): v for k, v in state.items()})


def test_names_of_the_expansion_less_first_block_are_told_apart():
    state = {f"features.1.conv.{k}": torch.zeros(1) for k in ("0.0.weight", "0.1.bias", "1.weight", "2.bias")}
    state |= {f"features.2.conv.{k}": torch.zeros(1) for k in ("0.0.weight", "1.1.bias", "2.weight", "3.bias")}
    assert set(mobilenet_v2_names(state)) == {
        "layer1.0.depthwise_conv.conv.weight",
        "layer1.0.depthwise_conv.bn.bias",
        "layer1.0.linear_conv.conv.weight",
        "layer1.0.linear_conv.bn.bias",
        "layer2.0.expand_conv.conv.weight",
        "layer2.0.depthwise_conv.bn.bias",
        "layer2.0.linear_conv.conv.weight",
        "layer2.0.linear_conv.bn.bias",
    }
    assert sum(MOBILENET_V2_BLOCKS) == 17


def test_the_whole_detectors_checkpoint_starts_its_backbone(tmp_path):
    detector = build(small("atss", enabled=False))
    path = save({"state_dict": detector.state_dict(), "meta": {"CLASSES": ("a",)}}, tmp_path / "atss.pth")
    target = build(small("gfl", enabled=False)).backbone
    result = load_backbone(target, path)
    assert not result.new and "bbox_head.atss_cls.weight" in result.skipped
    assert_equal(target, detector.backbone.state_dict())


def test_another_networks_weights_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"only 0 of the backbone's 2\d\d tensors .* is it another backbone's"):
        load_backbone(mobilenet(), save({"layer9.weight": torch.zeros(3)}, tmp_path / "other.pth"))


def test_another_width_is_refused_with_both_shapes(tmp_path):
    state = {k: v[:1] if k == "conv1.conv.weight" else v for k, v in mobilenet().state_dict().items()}
    with pytest.raises(WeightsError, match=r"conv1.conv.weight has shape \(1, 3, 3, 3\), the backbone needs \(32, 3, 3, 3\)"):
        load_backbone(mobilenet(), save(state, tmp_path / "narrow.pth"))


# Whole hosts


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """mmdet's ATSS for 80 classes, as its model zoo would hand it out, and its weights."""
    model = build(small("atss", enabled=False))
    state = {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    for part in ("weight", "bias"):
        state[f"bbox_head.atss_cls.{part}"] = torch.rand(80, *state[f"bbox_head.atss_cls.{part}"].shape[1:])
    return save({"state_dict": state, "meta": {"config": "..."}}, tmp_path_factory.mktemp("zoo") / "atss_r18.pth"), state


def test_a_zoo_checkpoint_starts_its_host_with_salt_and_the_operator_stays_fresh(zoo):
    path, state = zoo
    model = build(small("atss", enabled=True))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    result = load_host(model, path)
    after = model.state_dict()
    assert all(torch.equal(after[k], state[k]) for k in result.loaded)
    assert all(torch.equal(after[k], before[k]) for k in result.new)
    fresh = {k for k in result.new if not k.startswith("bbox_head.salt.")}
    assert fresh == {"bbox_head.atss_cls.weight", "bbox_head.atss_cls.bias"} == set(result.skipped)
    assert set(after) == set(result.loaded) | set(result.new) | {k for k in after if k.endswith("num_batches_tracked")}


def test_the_report_says_in_words_what_was_loaded_skipped_and_new(zoo):
    text = load_host(build(small("atss", enabled=True)), zoo[0]).report()
    assert "backbone.conv1 1" in text.splitlines()[0]
    assert "bbox_head.atss_cls.weight (80, 64, 3, 3) in the file, (3, 64, 3, 3) in the model" in text.splitlines()[1]
    assert "bbox_head.salt" in text.splitlines()[2] and "bbox_head.atss_cls 2" in text.splitlines()[2]


def test_the_host_without_salt_and_with_as_many_classes_is_filled_completely(tmp_path):
    source, target = build(small("atss", enabled=False)), build(small("atss", enabled=False))
    state = {f"module.{k}": torch.rand_like(v) if v.is_floating_point() else v for k, v in source.state_dict().items()}
    result = load_host(target, save(state, tmp_path / "ddp.pth"))
    assert not result.new and not result.skipped
    assert_equal(target, {k.removeprefix("module."): v for k, v in state.items()})


def test_another_hosts_checkpoint_gives_what_the_two_share(zoo):
    result = load_host(build(small("gfl", enabled=False)), zoo[0])
    assert any(k.startswith("bbox_head.cls_convs") for k in result.loaded)
    assert {k.split(".")[1] for k in result.new if k.startswith("bbox_head.")} == {"gfl_cls", "gfl_reg", "integral"}
    assert result.skipped["bbox_head.atss_centerness.weight"] == NO_SUCH_PART


def test_a_backbones_own_file_is_no_hosts_file_and_the_error_says_where_it_belongs(tmp_path):
    path = save(resnet(18).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(WeightsError, match="backbone's own file goes into backbone.init"):
        load_host(build(small("atss", enabled=True)), path)


def test_a_host_of_another_width_is_refused_with_an_example_and_left_alone(zoo, tmp_path):
    wide = {k: torch.cat([v, v]) if k.startswith("backbone.") and v.dim() else v for k, v in zoo[1].items()}
    model = build(small("atss", enabled=True))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"e.g. backbone.bn1.bias is \(\d+,\) in the file, \(\d+,\) in the model"):
        load_host(model, save(wide, tmp_path / "wide.pth"))
    assert_equal(model, before)


def test_names_of_mmdets_earlier_versions_are_understood():
    old = ("bbox_head.fcos_cls.weight", "bbox_head.fcos_centerness.bias", "backbone.layer2.0.conv2_offset.weight", "neck.x")
    new = {
        "bbox_head.conv_cls.weight",
        "bbox_head.conv_centerness.bias",
        "backbone.layer2.0.conv2.conv_offset.weight",
        "neck.x",
    }
    assert set(todays_names(dict.fromkeys(old, torch.zeros(1)))) == new


def test_of_timms_training_checkpoint_the_running_mean_is_taken(tmp_path):
    path = save({"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"module.a": torch.ones(1)}}, tmp_path / "timm.pth")
    assert read_weights(path)["a"] == 1


def test_of_mmengines_checkpoint_the_running_mean_is_in_the_state_dict_itself(tmp_path):
    """EMAHook swaps on saving: ``ema_state_dict`` holds what the mean is taken of."""
    path = save({"ema_state_dict": {"module.a": torch.zeros(1)}, "state_dict": {"a": torch.ones(1)}}, tmp_path / "mm.pth")
    assert read_weights(path)["a"] == 1
