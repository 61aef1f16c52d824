"""The size of a checkpoint is known before there is one."""

from __future__ import annotations

import pytest

from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train import weigh as room
from salt_lab.train.libraries import load_libraries
from salt_lab.train.weigh import weigh, weight_of

SMALL = {"host": "fcos", "backbone": {"name": "resnet18", "base_channels": 8}, "channels": 64, "head_convs": 1}


@pytest.fixture(scope="module", autouse=True)
def libraries():
    load_libraries()


def small(**schedule):
    return Trial.model_validate({**SMALL, "schedule": schedule})


def test_adamw_keeps_two_numbers_a_weight_and_sgd_one_and_a_running_mean_one_more_model():
    sgd, adamw, averaged = (weight_of(small(**each)) for each in ({"optimizer": "sgd"}, {"optimizer": "adamw"}, {"ema": 0.001}))
    assert sgd.weights == adamw.weights == averaged.weights
    assert 1.9 < sgd.checkpoint / sgd.weights < 2 and 2.8 < adamw.checkpoint / adamw.weights < 3
    assert averaged.checkpoint == sgd.checkpoint + sgd.weights


def test_a_model_that_cannot_be_built_has_no_size_and_the_trial_tells_why_itself(monkeypatch):
    monkeypatch.setattr(room.sys, "executable", "/bin/false")
    assert weigh([small()]) is None


@pytest.mark.slow
def test_a_real_checkpoint_is_as_large_as_its_models_weights_and_the_optimisers_state_foretell(tmp_path):
    from salt_lab.data import fingerprint
    from salt_lab.spec.trial import trial_id
    from salt_lab.train.trial import run_trial

    data = {"train_images": 8, "val_images": 2, "image_size": 64, "classes": 6}
    plan = {"epochs": 1, "batch": 8, "image_size": [64, 64], "optimizer": "adamw", "ema": 0.001}
    trial, store = Trial.model_validate({**SMALL, "data": data, "schedule": plan}), Store(tmp_path)
    (foretold,) = weigh([trial]) or ()
    run_trial(trial, store, study="s", launch_id="l", threads=1, device="cpu")
    file = store.trial_dir(trial_id(trial, fingerprint(trial.data))) / "checkpoints" / "epoch_1.pth"
    assert file.stat().st_size == pytest.approx(foretold.checkpoint, rel=0.1)
