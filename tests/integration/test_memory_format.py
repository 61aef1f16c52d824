"""A trial with ``memory_format: channels_last``: the contiguous one's losses to rounding, the same kind of files, and a stop changes nothing."""

import pytest
import torch

from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train.hooks import RecordHook
from salt_lab.train.single import evaluate_config
from salt_lab.train.trial import run_trial

pytestmark = pytest.mark.integration

SPEC = {
    "host": "gfl",
    "salt": True,
    "backbone": {"name": "resnet18", "base_channels": 8, "frozen_stages": 0},
    "channels": 64,
    "head_convs": 1,
    "data": {"train_images": 16, "val_images": 4, "image_size": 64, "classes": 2},
    "schedule": {"epochs": 2, "batch": 4, "image_size": [64, 64], "optimizer": "adamw", "lr": 1e-4, "warmup_iters": 0, "ema": 0.3},
}


def run(store, memory_format="channels_last"):
    trial = Trial.model_validate(SPEC | {"schedule": SPEC["schedule"] | {"memory_format": memory_format}})
    record = run_trial(trial, store, study="s", launch_id="l", threads=1)
    return record, store.trial_dir(record.trial_id)


def checkpoint(folder):
    return torch.load(folder / "checkpoints" / "epoch_2.pth", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trial that ran to its end: its record and folder."""
    return run(Store(tmp_path_factory.mktemp("whole")))


def test_its_losses_are_those_of_the_contiguous_trial_and_its_record_says_what_it_was(whole, tmp_path):
    plain, folder = run(Store(tmp_path), "contiguous")
    record, ours = whole
    assert record.trial_id != plain.trial_id
    assert [each.built["effective"]["schedule.memory_format"] for each in (record, plain)] == ["channels_last", "contiguous"]
    for name, loss in plain.epochs[1]["losses"].items():
        assert record.epochs[1]["losses"][name] == pytest.approx(loss, rel=2e-3), name
    kept, theirs = (checkpoint(each) for each in (ours, folder))
    for part in ("state_dict", "ema_state_dict"):
        assert kept[part].keys() == theirs[part].keys()
        assert all(value.is_contiguous() and value.shape == theirs[part][name].shape for name, value in kept[part].items())


def test_a_stopped_trial_ends_as_one_that_was_never_stopped(whole, tmp_path, monkeypatch):
    store, original = Store(tmp_path), RecordHook.before_train_epoch

    def interrupt(self, runner):
        if runner.epoch == 1:
            raise KeyboardInterrupt
        original(self, runner)

    with monkeypatch.context() as patched:
        patched.setattr(RecordHook, "before_train_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(store)
    record, folder = run(store)
    assert record.attempt == 2 and record.metrics == whole[0].metrics and record.epochs[2]["losses"] == whole[0].epochs[2]["losses"]
    ours, theirs = checkpoint(folder), checkpoint(whole[1])
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in theirs[part]), part


def test_its_written_config_measures_its_checkpoint_again(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record, folder = whole
    seen = []
    forward = torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda self, x: seen.append(x.stride()) or forward(self, x))
    numbers = evaluate_config(str(folder / "config.py"), str(folder / "checkpoints" / "epoch_2.pth"), None)
    assert numbers["AP"] == record.metrics["AP"] and seen[0][1] == 1, "the first convolution reads images whose channels lie side by side"
