"""What surrounds the model: precision, clipping, running mean and learning-rate rule are in the composed configuration, and nowhere unasked."""

from pathlib import Path

import pytest

from salt_lab.compose import compose
from salt_lab.data import DatasetPaths
from salt_lab.errors import SpecError
from salt_lab.spec.trial import Trial

DATA = DatasetPaths(Path("t.json"), Path("v.json"), Path("train"), Path("val"), ("cat", "dog"))


def composed(world_size=1, host="atss", **schedule):
    spec = {"host": host, "backbone": {"name": "resnet18", "base_channels": 16}, "channels": 64, "schedule": schedule}
    return compose(Trial.model_validate(spec), DATA, world_size=world_size)


def test_nothing_extra_is_on_unless_asked():
    config = composed()
    assert config.optim_wrapper.type == "OptimWrapper" and config.optim_wrapper.clip_grad is None
    assert "custom_hooks" not in config and config.auto_scale_lr.enable is False
    assert config.optim_wrapper.optimizer.lr == 0.01


def test_each_toggle_moves_its_own_key_alone():
    assert composed(amp=True).optim_wrapper.type == "AmpOptimWrapper"
    assert composed(clip_grad=35).optim_wrapper.clip_grad == dict(max_norm=35, norm_type=2)
    assert composed(ema=0.0002).custom_hooks == [dict(type="RunningMeanHook", momentum=0.0002)]
    last = [dict(type="MemoryFormatHook", memory_format="channels_last")]
    assert composed(memory_format="channels_last").custom_hooks == last
    assert [hook["type"] for hook in composed(memory_format="channels_last", ema=0.1).custom_hooks] == [
        "RunningMeanHook",
        "MemoryFormatHook",
    ]
    for schedule in ({"amp": True}, {"clip_grad": 35}, {"ema": 0.0002}, {"memory_format": "channels_last"}):
        changed, plain = composed(**schedule).to_dict(), composed().to_dict()
        touched = {key for key in changed if changed[key] != plain.get(key)}
        assert touched == ({"optim_wrapper"} if {"amp", "clip_grad"} & set(schedule) else {"custom_hooks", "custom_imports"}), schedule


@pytest.mark.parametrize(("batch", "rate"), [(16, 0.01), (8, 0.005), (4, 0.0025), (32, 0.02)])
def test_the_rate_follows_the_batch_linearly_from_sixteen(batch, rate):
    config = composed(batch=batch, scale_lr=True)
    assert config.optim_wrapper.optimizer.lr == pytest.approx(rate)
    assert composed(batch=batch).optim_wrapper.optimizer.lr == 0.01


def test_a_scaled_rate_is_not_scaled_again_by_the_flag():
    """``--auto-scale-lr`` on a trial's written config starts from the batch that its rate is for."""
    config = composed(batch=4, scale_lr=True)
    assert config.auto_scale_lr == dict(enable=False, base_batch_size=4)
    assert config.train_dataloader.batch_size == 4


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_share_the_trials_batch(workers):
    config = composed(world_size=workers, batch=16)
    assert config.train_dataloader.batch_size * workers == 16
    assert config.auto_scale_lr.base_batch_size == 16


def test_a_batch_that_cannot_be_shared_out_equally_is_refused():
    with pytest.raises(SpecError, match=r"schedule\.batch = 12 cannot be shared out equally over 8 workers"):
        composed(world_size=8, batch=12)


def test_the_hosts_own_hooks_and_schedule_stay_out_of_a_trial():
    """RTMDet's config has a running mean and a change of pipeline of its own, which belong to its 300 epochs."""
    config = compose(Trial.model_validate({"host": "mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py"}), DATA)
    assert "custom_hooks" not in config and config.train_cfg.max_epochs == 12
