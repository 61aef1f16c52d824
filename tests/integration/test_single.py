"""Single models: train a config, test its checkpoint, look at images with it."""

import json
import math
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from salt_lab.compose import compose
from salt_lab.data import prepare
from salt_lab.errors import DataError, TrialFailed, UserError, WeightsError
from salt_lab.evaluate.metric import LabCocoMetric
from salt_lab.spec.trial import Trial
from salt_lab.train import together
from salt_lab.train.infer import Inferencer
from salt_lab.train.single import evaluate_config, train_config

pytestmark = pytest.mark.integration

SPEC = {
    "host": "gfl",
    "salt": True,
    "backbone": {"name": "resnet18", "base_channels": 8},
    "channels": 64,
    "head_convs": 1,
    "data": {"train_images": 16, "val_images": 5, "image_size": 64, "classes": 2},
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


def test_two_workers_train_as_one_command(trained, tmp_path, monkeypatch):
    """torchrun with two gloo workers on this CPU: each takes half of the images."""
    monkeypatch.chdir(tmp_path)
    checkpoint = train_config(str(trained[0]), tmp_path / "two", 2, {}, scale_lr=True)
    assert checkpoint.is_file()
    group = torch.load(checkpoint, weights_only=True)["optimizer"]["param_groups"][0]
    assert group["initial_lr"] == pytest.approx(2e-3)  # 8 images on each of two workers, where the config's rate is for 8


EVERYTHING = {"model.test_cfg.score_thr": 0.0}


def test_two_workers_measure_what_one_does_and_no_image_twice(trained, tmp_path, monkeypatch):
    """Five images on two workers: the sampler gives one worker an image again to fill up."""
    monkeypatch.chdir(tmp_path)
    config, checkpoint, data, _ = trained
    one = evaluate_config(str(config), str(checkpoint), tmp_path / "one.json", EVERYTHING)
    two = evaluate_config(str(config), str(checkpoint), tmp_path / "two.json", EVERYTHING, gpus=2)
    assert two == pytest.approx(one, nan_ok=True)
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert {row["image_id"] for row in first} == {image["id"] for image in json.loads(data.val_json.read_text())["images"]}
    assert second == first


def without_ground_truth(data, folder):
    """An annotation file as COCO's image_info_test-dev2017.json: images and categories."""
    content = json.loads(data.val_json.read_text())
    path = folder / "image_info_test-dev2017.json"
    path.write_text(json.dumps({key: content[key] for key in ("images", "categories")}))
    return path


def test_images_without_ground_truth_give_a_file_for_cocos_server(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, checkpoint, data, _ = trained
    overrides = EVERYTHING | {"test_dataloader.dataset.ann_file": str(without_ground_truth(data, tmp_path))}
    out = tmp_path / "detections_test-dev2017_tiny_results.json"
    assert evaluate_config(str(config), str(checkpoint), out, overrides, format_only=True) == {}
    rows = json.loads(out.read_text())
    assert rows and all(set(row) == {"image_id", "category_id", "bbox", "score"} for row in rows)
    with zipfile.ZipFile(out.with_suffix(".zip")) as archive:
        assert archive.namelist() == [out.name] and json.loads(archive.read(out.name)) == rows
    evaluate_config(str(config), str(checkpoint), tmp_path / "measured.json", EVERYTHING)
    assert rows == json.loads((tmp_path / "measured.json").read_text())


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (None, r"give its name, --out detections_test-dev2017_config_results\.json"),
        ("results.json", r"results\.json: COCO's server takes .*name it .*detections_test-dev2017_config_results\.json"),
    ],
)
def test_a_result_file_that_the_server_would_refuse_is_refused_before_anything_runs(trained, tmp_path, out, said):
    config, checkpoint, data, _ = trained
    overrides = {"test_dataloader.dataset.ann_file": str(without_ground_truth(data, tmp_path))}
    with pytest.raises(UserError, match=said):
        evaluate_config(str(config), str(checkpoint), out and tmp_path / out, overrides, format_only=True)


def test_without_ground_truth_nothing_can_be_measured_and_the_error_says_what_can(trained, tmp_path):
    config, checkpoint, data, _ = trained
    with pytest.raises(DataError, match=r"image_info_test-dev2017\.json: no annotations to measure against; add --format-only"):
        evaluate_config(str(config), str(checkpoint), None, {"test_dataloader.dataset.ann_file": str(without_ground_truth(data, tmp_path))})


def test_a_workers_error_in_the_labs_own_words_arrives(trained, tmp_path, monkeypatch):
    """The worker here is this process, in torchrun's place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "0")

    def torchrun(command, check):
        return SimpleNamespace(returncode=together.main(Path(command[-1])))

    monkeypatch.setattr(together, "subprocess", SimpleNamespace(run=torchrun))
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth: does not fit the config"):
        evaluate_config(str(trained[0]), str(tmp_path / "other.pth"), None, gpus=2)


def test_workers_that_die_are_said_to_have(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(together, "subprocess", SimpleNamespace(run=lambda command, check: SimpleNamespace(returncode=-9)))
    with pytest.raises(TrialFailed, match=r"config\.py: training on 2 workers ended with exit code -9"):
        train_config(str(trained[0]), tmp_path / "work", 2, {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can compute in mixed precision")
class TestMixedPrecisionWithoutAGpu:
    def test_the_flag_is_refused_before_anything_is_built(self, trained, tmp_path):
        with pytest.raises(UserError, match=r"--amp: mixed precision computes in float16, which needs a CUDA GPU.*leave --amp out"):
            train_config(str(trained[0]), tmp_path / "work", 0, {}, amp=True)
        assert not (tmp_path / "work").exists()

    def test_a_config_that_asks_for_it_is_refused_with_the_key_to_change(self, trained, tmp_path):
        with pytest.raises(UserError, match=r"optim_wrapper\.type = AmpOptimWrapper.*optim_wrapper\.type=OptimWrapper"):
            train_config(str(trained[0]), tmp_path / "work", 0, {"optim_wrapper.type": "AmpOptimWrapper"})


def test_a_config_that_does_not_say_what_its_rate_is_for_cannot_be_scaled(trained, tmp_path):
    with pytest.raises(UserError, match=r"no auto_scale_lr\.base_batch_size"):
        train_config(str(trained[0]), tmp_path, 0, {"auto_scale_lr": None}, scale_lr=True)


def test_labels_mean_the_categories_that_the_data_section_names(tmp_path):
    """mmdet numbers the labels in the file's order, and only the classes asked for."""
    names = {7: "cat", 3: "dog", 5: "bird"}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0}],
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    metric = LabCocoMetric(str(tmp_path / "truth.json"))
    metric.dataset_meta = {"classes": ("cat", "bird")}
    found = {"bboxes": torch.tensor([[10.0, 10, 40, 40]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}
    metric.process(None, [{"img_id": 1, "pred_instances": found}])
    assert metric.evaluate(1)["AP"] == pytest.approx(100)


def test_a_file_that_is_no_picture_is_named(trained, tmp_path):
    (tmp_path / "not.png").write_text("words")
    with pytest.raises(UserError, match=r"not\.png: cannot be read as a picture"):
        Inferencer(str(trained[0]), str(trained[1]), device="cpu")(str(tmp_path / "not.png"))


def test_weights_of_another_model_do_not_load(trained, tmp_path):
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not fit the config"):
        Inferencer(str(trained[0]), str(tmp_path / "other.pth"))


def test_a_missing_load_from_is_said_before_anything_is_built(trained, tmp_path):
    with pytest.raises(WeightsError, match=r"load_from = .*none\.pth"):
        train_config(str(trained[0]), tmp_path / "work", 0, {"load_from": str(tmp_path / "none.pth")})
    assert not (tmp_path / "work").exists()


def test_training_starts_from_load_from_and_later_goes_on_from_its_own(trained, tmp_path):
    """At a rate of next to nothing the weights stay those of ``load_from``; the second call trains the second epoch, not from there."""
    config, checkpoint, _, _ = trained
    still = {"load_from": str(checkpoint), "optim_wrapper.optimizer.lr": 1e-12, "optim_wrapper.optimizer.weight_decay": 0.0}
    first = train_config(str(config), tmp_path / "work", 0, still)
    given, kept = (torch.load(path, weights_only=True)["state_dict"]["bbox_head.gfl_reg.weight"] for path in (checkpoint, first))
    torch.testing.assert_close(kept, given)
    second = train_config(str(config), tmp_path / "work", 0, still | {"train_cfg.max_epochs": 2})
    assert second.name == "epoch_2.pth" and torch.load(second, weights_only=True)["meta"]["iter"] == 4


def test_missing_data_is_said_before_anything_is_built(trained, tmp_path):
    with pytest.raises(DataError, match=r"train_dataloader.dataset.ann_file = .*: no such file"):
        train_config(str(trained[0]), tmp_path, 0, {"train_dataloader.dataset.ann_file": str(tmp_path / "none.json")})


def test_an_unknown_override_names_the_nearest_key(trained, tmp_path):
    with pytest.raises(UserError, match="train_cfg"):
        train_config(str(trained[0]), tmp_path, 0, {"train_cgf.max_epochs": 3})
