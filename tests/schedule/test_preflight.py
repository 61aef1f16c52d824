"""What is known to be wrong with a study's weights files before anything starts, and without torch."""

import subprocess
import sys

import pytest

from salt_lab.errors import WeightsError
from salt_lab.schedule.preflight import check_all_weights, check_weights
from salt_lab.spec.trial import Trial
from salt_lab.spec.weights_file import TRUST_VARIABLE


class Strange:
    """A class that only this test knows."""


@pytest.fixture
def strange(tmp_path):
    import torch

    torch.save({"state_dict": {"a": torch.ones(1)}, "config": Strange()}, tmp_path / "strange.pth")
    return tmp_path / "strange.pth"


def test_whole_files_of_every_format_pass(tmp_path):
    import torch
    from safetensors.torch import save_file

    state = {"conv1.weight": torch.ones(2)}
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "s.safetensors")
    for name in ("new.pth", "old.pth", "s.safetensors"):
        check_weights(tmp_path / name)
        check_all_weights([Trial(weights=str(tmp_path / name), backbone={"name": "resnet18", "init": str(tmp_path / name)})])


def test_the_error_names_the_field_and_what_to_do(tmp_path):
    with pytest.raises(
        WeightsError,
        match=r"weights = '.*none\.pth': the weights file cannot be read \(No such file.*\)\. Correct weights, or set it to null",
    ):
        check_all_weights([Trial(), Trial(weights=str(tmp_path / "none.pth"))])
    with pytest.raises(WeightsError, match=r"backbone\.init = '.*none\.pth': the weights file .*\. Correct backbone\.init"):
        check_all_weights([Trial(backbone={"name": "resnet18", "init": str(tmp_path / "none.pth")})])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "saved web page"),
        (b"version https://git-lfs.github.com/spec/v1", "not a file of torch.save"),
        (b"PK\x03\x04cut", "cut short"),
        (b"\x80\x02}q\x00", "damaged"),
    ],
)
def test_a_damaged_file_is_told_from_a_whole_one(tmp_path, content, complaint):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=f"weights = .*{complaint}"):
        check_weights(tmp_path / "w.pth", "weights")


def test_a_class_in_the_pickle_is_named_before_anything_starts_and_the_users_word_lets_it_pass(strange, monkeypatch):
    with pytest.raises(WeightsError, match=rf"weights = '.*': it holds more .*\.Strange; .*{TRUST_VARIABLE}=1"):
        check_weights(strange, "weights")
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    check_weights(strange, "weights")


def test_the_look_imports_no_torch(strange):
    script = (
        "import sys; from pathlib import Path; from salt_lab.spec.weights_file import whats_wrong\n"
        f"assert 'Strange' in whats_wrong(Path({str(strange)!r})); assert not {{'torch', 'numpy', 'mmengine'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
