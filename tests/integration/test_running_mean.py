"""A trial with a running mean of its weights: the mean is what is evaluated and kept, and a stop changes nothing."""

import gzip
import json

import pytest
import torch

from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train.hooks import RecordHook
from salt_lab.train.single import evaluate_config
from salt_lab.train.trial import run_trial

pytestmark = pytest.mark.integration

MOMENTUM = 0.3
SPEC = {
    "host": "gfl",
    "salt": True,
    "backbone": {"name": "resnet18", "base_channels": 8},
    "channels": 64,
    "head_convs": 1,
    "data": {"train_images": 16, "val_images": 4, "image_size": 64, "classes": 2},
    "schedule": {"epochs": 2, "batch": 4, "image_size": [64, 64], "optimizer": "adamw", "lr": 2e-3, "warmup_iters": 0, "ema": MOMENTUM},
}


def run(store, **schedule):
    trial = Trial.model_validate(SPEC | {"schedule": SPEC["schedule"] | schedule})
    record = run_trial(trial, store, study="s", launch_id="l", threads=1)
    return record, store.trial_dir(record.trial_id)


def checkpoint(folder):
    return torch.load(folder / "checkpoints" / "epoch_2.pth", weights_only=True)


def detections(folder):
    with gzip.open(folder / "detections.json.gz", "rt") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trial that ran to its end: its record and folder."""
    return run(Store(tmp_path_factory.mktemp("whole")))


def test_the_mean_starts_at_the_first_steps_weights_and_follows_with_its_momentum(tmp_path, monkeypatch):
    """Four steps: the mean that the checkpoint keeps is the recurrence over the weights after each of them."""
    steps = []

    def note(self, runner, batch_idx, data_batch=None, outputs=None):
        steps.append(runner.model.bbox_head.gfl_cls.weight.detach().clone())

    monkeypatch.setattr(RecordHook, "after_train_iter", note)
    monkeypatch.setattr(RecordHook, "after_train_epoch", lambda self, runner: None)
    _, folder = run(Store(tmp_path), epochs=1, eval_every=0)
    mean = steps[0]
    for weight in steps[1:]:
        mean = (1 - MOMENTUM) * mean + MOMENTUM * weight
    kept = torch.load(folder / "checkpoints" / "epoch_1.pth", weights_only=True)
    torch.testing.assert_close(kept["state_dict"]["bbox_head.gfl_cls.weight"], mean)
    torch.testing.assert_close(kept["ema_state_dict"]["module.bbox_head.gfl_cls.weight"], steps[-1])


def test_what_was_evaluated_is_the_mean_and_not_the_learnt_weights(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record, folder = whole
    kept = checkpoint(folder)
    learnt = {key.removeprefix("module."): value for key, value in kept["ema_state_dict"].items() if key != "steps"}
    torch.save({"state_dict": learnt}, tmp_path / "learnt.pth")
    numbers = evaluate_config(str(folder / "config.py"), str(folder / "checkpoints" / "epoch_2.pth"), tmp_path / "mean.json")
    evaluate_config(str(folder / "config.py"), str(tmp_path / "learnt.pth"), tmp_path / "learnt.json")
    assert detections(folder) == json.loads((tmp_path / "mean.json").read_text()) != json.loads((tmp_path / "learnt.json").read_text())
    assert numbers["AP"] == record.metrics["AP"]


@pytest.mark.parametrize("stop", [pytest.param("before_train_epoch", marks=pytest.mark.slow), "before_val_epoch"])
def test_a_stopped_trial_ends_as_one_that_was_never_stopped(whole, stop, tmp_path, monkeypatch):
    """Stopped as the second epoch begins, and between its end and its evaluation."""
    store, original = Store(tmp_path), getattr(RecordHook, stop)

    def interrupt(self, runner):
        if runner.epoch == (1 if stop == "before_train_epoch" else 2):
            raise KeyboardInterrupt
        original(self, runner)

    with monkeypatch.context() as patched:
        patched.setattr(RecordHook, stop, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(store)
    record, folder = run(store)
    assert record.attempt == 2 and record.metrics == whole[0].metrics and record.epochs[2]["losses"] == whole[0].epochs[2]["losses"]
    ours, theirs = checkpoint(folder), checkpoint(whole[1])
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in theirs[part]), part
    assert detections(folder) == detections(whole[1])
