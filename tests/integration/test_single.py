"""Single models: train a config, test its checkpoint, look at images with it."""

import json
import math

import numpy as np
import pytest
import torch

from salt_lab.compose import compose
from salt_lab.data import prepare
from salt_lab.errors import DataError, UserError, WeightsError
from salt_lab.spec.trial import Trial
from salt_lab.train.infer import Inferencer
from salt_lab.train.single import evaluate_config, train_config

pytestmark = pytest.mark.integration

SPEC = {
    "host": "gfl",
    "salt": True,
    "backbone": {"name": "resnet18", "base_channels": 8},
    "channels": 64,
    "head_convs": 1,
    "data": {"train_images": 16, "val_images": 4, "image_size": 64, "classes": 2},
    "schedule": {"epochs": 1, "batch": 8, "image_size": [64, 64], "optimizer": "adamw", "lr": 1e-3, "warmup_iters": 0},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config file, its checkpoint, its data and its work folder."""
    folder = tmp_path_factory.mktemp("single")
    trial = Trial.model_validate(SPEC)
    data = prepare(trial.data, folder / "data")
    compose(trial, data).dump(folder / "config.py")
    checkpoint = train_config(str(folder / "config.py"), folder / "work", 0, {})
    return folder / "config.py", checkpoint, data, folder


def test_training_a_config_leaves_a_checkpoint_of_plain_tensors(trained):
    loaded = torch.load(trained[1], weights_only=True)
    assert "state_dict" in loaded and "optimizer" in loaded


def test_a_checkpoint_is_tested_into_the_twelve_numbers(trained):
    config, checkpoint, _, folder = trained
    numbers = evaluate_config(str(config), str(checkpoint), folder / "dets.json")
    assert len(numbers) == 12 and not math.isnan(numbers["AP"])
    assert isinstance(json.loads((folder / "dets.json").read_text()), list)


def test_each_boxs_points_surround_the_location_it_came_from(trained):
    """The coarse box of a detection holds all its R-points, and four of them lie on its sides."""
    config, checkpoint, data, _ = trained
    result = Inferencer(str(config), str(checkpoint), device="cpu")(str(sorted(data.val_images.glob("*.png"))[0]))
    M = len(result.scores_N)
    if M == 0:
        pytest.skip("one epoch found nothing on this image")
    assert result.r_points.shape == result.c_points.shape == (M, 9, 2)
    x1, y1, x2, y2 = result.coarse_N4.T
    x, y = result.r_points[..., 0], result.r_points[..., 1]
    slack = 1e-2
    assert ((x >= x1[:, None] - slack) & (x <= x2[:, None] + slack) & (y >= y1[:, None] - slack) & (y <= y2[:, None] + slack)).all()
    np.testing.assert_allclose(x[:, 3], x1, atol=slack)
    np.testing.assert_allclose(y[:, 1], y1, atol=slack)
    np.testing.assert_allclose(x[:, 5], x2, atol=slack)
    np.testing.assert_allclose(y[:, 7], y2, atol=slack)


def test_two_workers_train_as_one_command(trained, tmp_path):
    """torchrun with two gloo workers on this CPU: each takes half of the images."""
    checkpoint = train_config(str(trained[0]), tmp_path / "two", 2, {})
    assert checkpoint.is_file()


def test_a_file_that_is_no_picture_is_named(trained, tmp_path):
    (tmp_path / "not.png").write_text("words")
    with pytest.raises(UserError, match=r"not\.png: cannot be read as a picture"):
        Inferencer(str(trained[0]), str(trained[1]), device="cpu")(str(tmp_path / "not.png"))


def test_weights_of_another_model_do_not_load(trained, tmp_path):
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not fit the config"):
        Inferencer(str(trained[0]), str(tmp_path / "other.pth"))


def test_missing_data_is_said_before_anything_is_built(trained, tmp_path):
    with pytest.raises(DataError, match=r"train_dataloader.dataset.ann_file = .*: no such file"):
        train_config(str(trained[0]), tmp_path, 0, {"train_dataloader.dataset.ann_file": str(tmp_path / "none.json")})


def test_an_unknown_override_names_the_nearest_key(trained, tmp_path):
    with pytest.raises(UserError, match="train_cfg"):
        train_config(str(trained[0]), tmp_path, 0, {"train_cgf.max_epochs": 3})
