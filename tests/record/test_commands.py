"""What is printed to go on with can be pasted: same study, same overrides, same results folder, quoted for a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from salt_lab.record.commands import command_for
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (path := tmp_path / "my study.yaml").write_text("name: s\nbase: {salt: true}")
    return path


def test_a_shell_reads_overrides_and_folders_with_spaces_as_they_were(file: Path, tmp_path: Path) -> None:
    study = load_study(file, ["axes={host: [fcos, atss]}", "seeds=[0, 1]"])
    words = shlex.split(command_for("calibrate", study, Store(tmp_path / "a b")))
    assert words == ["salt-lab", "calibrate", str(file), "axes={host: [fcos, atss]}", "seeds=[0, 1]", "--store", str(tmp_path / "a b")]


def test_the_default_folder_goes_without_saying(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALT_LAB_STORE", str(tmp_path / "mine"))
    assert shlex.split(command_for("table", load_study(file), Store(tmp_path / "mine"))) == ["salt-lab", "table", str(file)]


def test_a_new_override_takes_the_place_of_the_one_with_its_key(file: Path, tmp_path: Path) -> None:
    study = load_study(file, ["seeds=[5]", "host=gfl"])
    words = shlex.split(command_for("run", study, Store(tmp_path), "seeds=[5,6]"))
    assert words[3:-2] == ["host=gfl", "seeds=[5,6]"]


def test_what_trains_for_looks_trains_in_the_folder_around_them(file: Path, tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    looks = Store(tmp_path).looks
    data = ["data.train=/t.json", "data.val=/test.json", "data.val_images=/new", "data.images=/i"]
    study = load_study(file, data)
    assert shlex.split(command_for("run", study, looks))[3:] == ["data.train=/t.json", "data.images=/i", "--store", str(tmp_path)]
    assert shlex.split(command_for("table", study, looks))[3:] == [*data, "--store", str(looks.root)]
