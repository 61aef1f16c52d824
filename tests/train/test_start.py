"""Starting a training from a whole detector's weights: through mmengine's Runner, whose own checkpoints are what people have."""

import pytest
import torch
from mmengine.config import Config

import salt_lab.train.resume  # noqa: F401  registers the hook that a composed config names
from salt_lab.compose import compose
from salt_lab.data import fingerprint, prepare
from salt_lab.errors import WeightsError
from salt_lab.models.weights_file import read_checkpoint
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial, trial_id
from salt_lab.spec.weights_file import foreign_classes
from salt_lab.train.libraries import load_libraries
from salt_lab.train.start import StartFromHook, check_load_from, take_load_from
from salt_lab.train.trial import run_trial

pytestmark = pytest.mark.integration


def tiny(**changes):
    spec = {
        "host": "atss",
        "salt": False,
        "backbone": {"name": "resnet18", "base_channels": 8},
        "channels": 64,
        "head_convs": 1,
        "data": {"train_images": 8, "val_images": 2, "image_size": 64, "classes": 2},
        "schedule": {"epochs": 1, "batch": 4, "image_size": [64, 64], "optimizer": "adamw", "lr": 1e-3, "warmup_iters": 0},
    }
    return Trial.model_validate(spec | changes)


@pytest.fixture(scope="module")
def runners_own(tmp_path_factory):
    """A checkpoint as mmengine's Runner leaves it, with optimiser, schedulers, log history and EMA; no hook of ours."""
    load_libraries()
    from mmengine.runner import Runner

    folder = tmp_path_factory.mktemp("runner")
    trial = tiny()
    config = compose(trial, prepare(trial.data, folder / "data"), folder)
    config.custom_hooks = [dict(type="EMAHook", momentum=0.5)]
    config.default_hooks.logger.interval = 1
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    config.experiment_name = "runners_own"
    runner = Runner.from_cfg(config)
    runner.train()
    return folder / "epoch_1.pth"


def test_a_real_runners_checkpoint_is_read_without_trust_and_holds_what_torch_alone_refuses(runners_own):
    assert torch.serialization.get_unsafe_globals_in_checkpoint(str(runners_own))
    assert foreign_classes(runners_own) == []
    content = read_checkpoint(runners_own)
    assert {"state_dict", "ema_state_dict", "optimizer", "message_hub", "meta"} <= content.keys()
    assert len(content["message_hub"]["log_scalars"]) > 0


def test_a_trial_with_salt_starts_from_the_plain_hosts_checkpoint_and_its_log_says_how(runners_own, tmp_path, monkeypatch):
    trial = tiny(salt=True, weights=str(runners_own))
    saved, seen = read_checkpoint(runners_own)["state_dict"], {}
    before_train = StartFromHook.before_train

    def look(self, runner):
        before_train(self, runner)
        seen.update({k: v.clone() for k, v in runner.model.state_dict().items()})

    monkeypatch.setattr(StartFromHook, "before_train", look)
    store = Store(tmp_path)
    record = run_trial(trial, store, study="s", launch_id="l", threads=1)
    assert record.state == "done"
    assert all(torch.equal(seen[k], v) for k, v in saved.items())
    assert seen.keys() - saved.keys() == {k for k in seen if k.startswith("bbox_head.salt.")}
    log = (store.trial_dir(trial_id(trial, fingerprint(trial.data))) / "train.log").read_text()
    assert "weights from epoch_1.pth" in log and "as initialised: bbox_head.salt" in log


def test_load_from_is_taken_on_a_start_and_left_alone_on_going_on(runners_own):
    for resume, hooks in ((False, 1), (True, 0)):
        settings = Config(dict(load_from=str(runners_own), resume=resume))
        assert len(take_load_from(settings)) == hooks and settings.load_from is None
    assert take_load_from(Config(dict(resume=False))) == []


def test_a_load_from_that_is_not_there_is_refused_with_config_and_key(tmp_path):
    with pytest.raises(WeightsError, match=r"c\.py: load_from = .*none\.pth: the weights file cannot be read"):
        check_load_from(Config(dict(load_from=str(tmp_path / "none.pth"))), "c.py")
    check_load_from(Config(dict(load_from=None)), "c.py")
