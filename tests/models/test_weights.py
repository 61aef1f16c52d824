"""Weights files: what is loaded, what is refused."""

import os
import pickle

import pytest
import torch

from salt_lab.errors import WeightsError
from salt_lab.models.weights import load_backbone, mobilenet_v2_names, read_weights


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/should-not-exist",)


def mobilenet():
    from mmdet.models.backbones import MobileNetV2

    return MobileNetV2(out_indices=(1, 2, 4, 6))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WeightsError, match="cannot be read as a weights file"):
        read_weights(tmp_path / "evil.pth")
    assert not os.path.exists("/tmp/should-not-exist")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut short"])
def test_a_broken_file_is_named_with_its_reason(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.pth: cannot be read"):
        read_weights(tmp_path / "broken.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="no such weights file"):
        read_weights(tmp_path / "none.pth")


def test_torchvisions_mobilenet_weights_fill_every_tensor_of_the_backbone(shared):
    loaded, fresh, unused = load_backbone(mobilenet(), shared / "data" / "mobilenet_v2_imagenet.pth")
    assert fresh == 0 and unused == 0 and loaded > 250


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


def test_another_networks_weights_are_refused(tmp_path):
    torch.save({"layer9.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="is it another backbone's"):
        load_backbone(mobilenet(), tmp_path / "other.pth")


def test_another_width_is_refused_with_both_shapes(tmp_path):
    state = {k: v[:1] if k == "conv1.conv.weight" else v for k, v in mobilenet().state_dict().items()}
    torch.save(state, tmp_path / "narrow.pth")
    with pytest.raises(WeightsError, match=r"conv1.conv.weight has shape \(1, 3, 3, 3\), the backbone needs \(32, 3, 3, 3\)"):
        load_backbone(mobilenet(), tmp_path / "narrow.pth")
