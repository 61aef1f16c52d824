"""A tiny study, a results folder that is not there yet, and the command line run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from salt_lab.cli.main import cli

STUDY = """\
question: Does the test pass?
base:
  backbone: {name: resnet18, base_channels: 16}
  channels: 32
  data: {kind: marks, train_images: 4, val_images: 2, image_size: 64}
  schedule: {epochs: 2, batch: 2, image_size: [64, 64], optimizer: adamw, lr: 0.002}
axes:
  host: [fcos, atss]
  salt.enabled: [false, true]
seeds: [0]
compare:
  baseline: {salt.enabled: false}
"""
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run the command line as its users do: errors become lines and exit codes."""
    return lambda *words: CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store, server or cluster of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("SALT_LAB_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "SALT_LAB_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four cells of one seed on eight-image data."""
    path = tmp_path / "experiments" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(STUDY)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A results folder that nobody has made yet."""
    return tmp_path / "results"


@pytest.fixture
def coco(tmp_path: Path) -> dict[str, Path]:
    """A COCO data set of two images per split: ``train``, ``val`` (files) and ``images`` (folder)."""
    import cv2
    import numpy as np

    images = tmp_path / "images"
    images.mkdir()
    paths = {"images": images}
    for split, first in (("train", 1), ("val", 3)):
        names = [f"{number}.png" for number in (first, first + 1)]
        for name in names:
            cv2.imwrite(str(images / name), np.full((40, 60, 3), 128, np.uint8))
        content = {
            "images": [{"id": first + i, "file_name": name, "width": 60, "height": 40} for i, name in enumerate(names)],
            "annotations": [
                {"id": first + i, "image_id": first + i, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
                for i in range(2)
            ],
            "categories": [{"id": 1, "name": "cell"}],
        }
        paths[split] = tmp_path / f"{split}.json"
        paths[split].write_text(json.dumps(content))
    return paths


@pytest.fixture
def fake_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that train nothing and write the journal of one that did (seeds from 1001 on mean trouble)."""
    from salt_lab.testing.fake_trial import fake_trial

    monkeypatch.setattr("salt_lab.train.trial.run_trial", fake_trial)
