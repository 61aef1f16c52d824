"""Released SALT-Net weights under our names."""

from fractions import Fraction

import pytest
import torch
from click.testing import CliRunner

from salt_lab.cli.convert import command
from salt_lab.errors import WeightsError
from salt_lab.models.convert import RENAMED, convert_checkpoint, convert_state
from salt_lab.models.weights import load_host, read_weights
from salt_lab.spec.weights_file import TRUST_VARIABLE
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


def test_a_released_checkpoint_is_read_under_our_names_without_converting_it_first(tmp_path):
    """So test, infer and a trial's weights take it as it is; also from DistributedDataParallel."""
    torch.save({"state_dict": {f"module.{k}": v for k, v in released_state().items()}, "meta": {}}, tmp_path / "released.pth")
    ours = build(small("salt_net", enabled=True)).state_dict()
    state = read_weights(tmp_path / "released.pth")
    assert state.keys() == ours.keys() and all(torch.equal(state[k], ours[k]) for k in ours)


def test_a_released_checkpoint_starts_our_model_completely(tmp_path):
    state = {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in released_state().items()}
    torch.save({"state_dict": state}, tmp_path / "released.pth")
    model = build(small("salt_net", enabled=True))
    result = load_host(model, tmp_path / "released.pth")
    assert not result.new and not result.skipped
    assert torch.equal(model.bbox_head.salt.cls_align.weight, state["bbox_head.salt_cls_conv.conv.weight"].flatten(2))


def test_the_command_writes_safetensors_that_read_back_alike(tmp_path):
    source, target = tmp_path / "released.pth", tmp_path / "ours.safetensors"
    torch.save(released_state(), source)
    done = CliRunner().invoke(command, [str(source), str(target)])
    assert done.exit_code == 0, done.output
    assert target.read_bytes()[8:9] == b"{"
    ours, back = read_weights(source), read_weights(target)
    assert ours.keys() == back.keys() and all(torch.equal(ours[k], back[k]) for k in ours)


def test_the_users_word_is_for_one_command_only(tmp_path, monkeypatch):
    """A checkpoint with a class of its author's: refused, let in by --trust-checkpoint, refused again afterwards."""
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    source = tmp_path / "strange.pth"
    torch.save({"state_dict": released_state(), "meta": Fraction(1, 2)}, source)
    for flags, target, lets_in in (([], "a", False), (["--trust-checkpoint"], "b", True), ([], "c", False)):
        done = CliRunner().invoke(command, [str(source), str(tmp_path / target), *flags])
        assert (done.exit_code == 0) == lets_in
        assert lets_in or "fractions.Fraction" in str(done.exception)
    assert (tmp_path / "b").is_file() and not (tmp_path / "c").exists()
