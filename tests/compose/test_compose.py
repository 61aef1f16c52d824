"""A trial becomes a configuration: every toggle is in it, and nothing else moves."""

from pathlib import Path

import pytest
from mmengine.config import Config

from salt_lab.compose import compose
from salt_lab.data import DatasetPaths
from salt_lab.spec.trial import Trial

DATA = DatasetPaths(Path("t.json"), Path("v.json"), Path("train"), Path("val"), ("cat", "dog"))


def trial(**changes):
    return Trial.model_validate({"host": "atss", "backbone": {"name": "resnet18", "base_channels": 16}, "channels": 64, **changes})


def changed(a, b):
    """Dotted keys in which two configurations differ."""

    def flat(section, prefix=""):
        if hasattr(section, "items"):
            return {k2: v for k, v1 in section.items() for k2, v in flat(v1, f"{prefix}{k}.").items()}
        return {prefix[:-1]: section}

    left, right = flat(a), flat(b)
    return {k for k in left.keys() | right.keys() if left.get(k) != right.get(k)}


def test_the_seed_moves_the_seeds_alone():
    assert changed(compose(trial(seed=0), DATA), compose(trial(seed=1), DATA)) == {"randomness.seed", "train_dataloader.sampler.seed"}


def test_the_operator_moves_the_head_alone():
    moved = changed(compose(trial(), DATA), compose(trial(salt=True), DATA))
    assert moved == {f"model.bbox_head.{k}" for k in ("type", "salt.num_points", "salt.long_skip", "salt.coarse_weight", "salt.sdr_weight")}


def test_classes_come_from_the_data():
    config = compose(trial(), DATA)
    assert config.model.bbox_head.num_classes == 2
    assert config.train_dataloader.dataset.metainfo.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("backbone", "channels"), [("resnet18", [64, 128, 256, 512]), ("resnet50", [256, 512, 1024, 2048]), ("mobilenet_v2", [24, 32, 96, 320])]
)
def test_the_neck_expects_what_the_backbone_gives(backbone, channels):
    assert compose(trial(backbone=backbone)).model.neck.in_channels == channels


def test_without_weights_nothing_is_frozen_and_with_weights_mmdets_habit_holds():
    fresh = compose(trial(backbone="resnet18")).model.backbone
    assert (fresh.frozen_stages, fresh.norm_eval) == (-1, False)
    pretrained = compose(trial(backbone={"name": "resnet18", "init": "w.pth"})).model.backbone
    assert (pretrained.frozen_stages, pretrained.norm_eval) == (1, True)
    assert pretrained.init_cfg == dict(type="BackboneWeights", checkpoint="w.pth")


def test_fcos_keeps_the_caffe_pixels_only_with_the_weights_that_want_them():
    theirs = compose(trial(host="fcos", backbone={"name": "resnet50", "init": "host"})).model.data_preprocessor
    ours = compose(trial(host="fcos")).model.data_preprocessor
    assert theirs.std == [1.0, 1.0, 1.0] and theirs.bgr_to_rgb is False
    assert ours.std == [58.395, 57.12, 57.375] and ours.bgr_to_rgb is True


def test_a_step_schedule_drops_where_it_says_and_cosine_never():
    step = compose(trial(schedule=dict(epochs=24)), DATA).param_scheduler[-1]
    assert step["milestones"] == [16, 22]
    assert compose(trial(schedule=dict(epochs=24, decay="cosine")), DATA).param_scheduler[-1]["type"] == "CosineAnnealingLR"


def test_fcos_keeps_its_doubled_bias_rate():
    config = compose(trial(host="fcos", schedule="1x"), DATA)
    assert config.optim_wrapper.paramwise_cfg == dict(bias_lr_mult=2.0, bias_decay_mult=0.0)


def test_salt_net_has_the_released_models_three_convolutions():
    assert compose(trial(host="salt_net", salt=True)).model.bbox_head.stacked_convs == 3
    assert compose(trial(host="atss", salt=True)).model.bbox_head.stacked_convs == 4


@pytest.mark.parametrize(("host", "weight"), [("fcos", 0.5), ("atss", 1.0), ("gfl", 1.0), ("salt_net", 1.0)])
def test_the_coarse_weight_is_the_hosts_published_one_unless_said(host, weight):
    assert compose(trial(host=host, salt=True)).model.bbox_head.salt.coarse_weight == weight
    assert compose(trial(host=host, salt=dict(enabled=True, coarse_weight=0.25))).model.bbox_head.salt.coarse_weight == 0.25


def test_a_written_configuration_reads_back_the_same(tmp_path):
    config = compose(trial(salt=True), DATA, tmp_path)
    config.dump(tmp_path / "config.py")
    assert changed(Config.fromfile(tmp_path / "config.py", import_custom_modules=False), config) == set()
