"""Released SALT-Net weights under our names."""

import pytest
import torch

from salt_lab.errors import WeightsError
from salt_lab.models.convert import RENAMED, convert_checkpoint, convert_state
from salt_lab.testing.host_contract import build, small


def released_state():
    """Our own model's weights under the released code's names, with its 3x3 kernels: what a released checkpoint looks like."""
    back = {ours: theirs for theirs, ours in RENAMED.items()}
    state = {}
    for key, value in build(small("salt_net", enabled=True)).state_dict().items():
        name = key.removeprefix("bbox_head.")
        if name != key:
            start = max((ours for ours in back if name.startswith(ours)), key=len, default=None)
            name = back[start] + name[len(start) :] if start else name
            if name in ("salt_cls_conv.conv.weight", "salt_reg_conv.conv.weight"):
                value = value.unflatten(2, (3, 3))
            key = "bbox_head." + name
        state[key] = value
    return state


def test_a_released_state_becomes_exactly_our_models():
    ours = build(small("salt_net", enabled=True)).state_dict()
    converted = convert_state(released_state())
    assert converted.keys() == ours.keys()
    assert all(torch.equal(converted[k], ours[k]) for k in ours)


def test_a_checkpoint_file_is_converted_and_loads(tmp_path):
    source, target = tmp_path / "released.pth", tmp_path / "ours.pth"
    torch.save({"state_dict": released_state(), "meta": {}}, source)
    count = convert_checkpoint(source, target)
    model = build(small("salt_net", enabled=True))
    loaded = torch.load(target, weights_only=True)["state_dict"]
    assert count == len(loaded)
    model.load_state_dict(loaded, strict=True)


def test_nothing_is_overwritten(tmp_path):
    source, target = tmp_path / "released.pth", tmp_path / "ours.pth"
    torch.save(released_state(), source)
    target.write_text("precious")
    with pytest.raises(WeightsError, match="nothing is overwritten"):
        convert_checkpoint(source, target)
    assert target.read_text() == "precious"


def test_another_models_weights_are_refused(tmp_path):
    torch.save({"backbone.conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="is it a SALT-Net checkpoint"):
        convert_checkpoint(tmp_path / "other.pth", tmp_path / "out.pth")
