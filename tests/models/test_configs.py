"""The mmdet-style configs of SALT-Net: the published recipe, and a dry run."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from salt_lab.testing.host_contract import TWO_OBJECTS, batch, total
from salt_lab.train.infer import strip_init
from salt_lab.train.libraries import load_libraries

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
ONE_X, TWO_X = "salt_net_r50_fpn_1x_coco.py", "salt_net_r50_fpn_ms-2x_coco.py"


def config(name):
    load_libraries()
    return Config.fromfile(CONFIGS / name)


@pytest.mark.parametrize("name", [ONE_X, TWO_X])
def test_it_trains_on_train2017_and_evaluates_on_val2017(name):
    settings = config(name)
    assert settings.train_dataloader.dataset.ann_file == "annotations/instances_train2017.json"
    assert settings.val_dataloader.dataset.ann_file == "annotations/instances_val2017.json"


@pytest.mark.parametrize(("name", "epochs", "drops"), [(ONE_X, 12, [8, 11]), (TWO_X, 24, [16, 22])])
def test_the_schedule_is_the_published_one(name, epochs, drops):
    settings = config(name)
    assert settings.train_cfg.max_epochs == epochs
    assert settings.param_scheduler[-1].milestones == drops
    optimiser = settings.optim_wrapper.optimizer
    assert (optimiser.type, optimiser.lr, optimiser.momentum, optimiser.weight_decay) == ("SGD", 0.01, 0.9, 1e-4)
    assert settings.train_dataloader.batch_size * 8 == settings.auto_scale_lr.base_batch_size == 16


def test_the_2x_config_draws_the_short_side_from_480_to_960():
    resize = config(TWO_X).train_dataloader.dataset.pipeline[2]
    assert resize == dict(type="RandomResize", scale=[(1333, 480), (1333, 960)], keep_ratio=True)
    assert config(ONE_X).train_dataloader.dataset.pipeline[2].scale == (1333, 800)


@pytest.mark.parametrize("name", [ONE_X, TWO_X])
def test_the_model_builds_and_takes_a_step(name):
    from mmdet.registry import MODELS

    model = MODELS.build(strip_init(config(name).model)).train()
    head = model.bbox_head
    assert len(head.cls_convs) == 3 and head.salt.num_points == 9 and head.salt.long_skip and head.sdr_weight == 0
    loss = total(model.loss(*batch(TWO_OBJECTS)))
    loss.backward()
    assert torch.isfinite(loss)
