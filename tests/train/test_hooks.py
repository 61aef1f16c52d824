"""Hooks: what they tell the recorder, and what they stop."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from salt_lab.errors import TrialFailed
from salt_lab.record.recorder import MemoryRecorder
from salt_lab.train.hooks import LOOK_EVERY, HeartbeatHook, PlainCheckpointHook, RecordHook, ReseedHook, finite_or_none


def runner(epoch=0, iteration=0):
    return SimpleNamespace(epoch=epoch, iter=iteration, _resume=True, optim_wrapper=SimpleNamespace(get_lr=lambda: {"lr": [0.01]}))


def recording(expected=frozenset()):
    recorder = MemoryRecorder()
    recorder.start(trial={}, study="s", launch_id="l", data_fingerprint="d", provenance={})
    return recorder, RecordHook(recorder, expected)


def test_an_epoch_is_told_as_the_mean_of_its_steps():
    recorder, hook = recording()
    hook.before_train_epoch(runner())
    for step, loss in enumerate((1.0, 3.0)):
        hook.after_train_iter(runner(iteration=step), step, {"inputs": [0, 0, 0]}, {"loss": torch.tensor(loss), "grad_norm": 9})
    hook.after_train_epoch(runner())
    epoch = recorder.record().epochs[1]
    assert epoch["losses"] == {"loss": 2.0} and epoch["lr"] == 0.01
    assert epoch["images_per_second"] == pytest.approx(6 / epoch["seconds"])


def test_a_loss_that_should_be_there_and_is_not_stops_the_trial_at_the_first_step():
    _, hook = recording(frozenset({"loss_coarse", "loss_sdr"}))
    hook.before_train_epoch(runner())
    with pytest.raises(
        TrialFailed, match=r"computes the added losses \['loss_coarse'\], its toggles ask for \['loss_coarse', 'loss_sdr'\]"
    ):
        hook.after_train_iter(runner(), 0, None, {"loss_cls": 1.0, "loss_coarse": 1.0})


def test_a_loss_that_is_no_number_stops_the_trial_and_says_what_to_try():
    _, hook = recording()
    hook.before_train_epoch(runner())
    hook.after_train_iter(runner(), 0, None, {"loss": float("nan")})
    with pytest.raises(TrialFailed, match=r"no number any more in epoch 1.*schedule\.lr"):
        hook.after_train_epoch(runner())


def test_a_loss_that_is_no_number_is_noticed_within_so_many_steps():
    _, hook = recording()
    hook.before_train_epoch(runner(1))
    for step in range(LOOK_EVERY - 1):
        hook.after_train_iter(runner(1, step), step, None, {"loss": torch.tensor(float("inf") if step == 3 else 1.0)})
    with pytest.raises(TrialFailed, match=rf"in epoch 2 \(seen after its step {LOOK_EVERY}\).*schedule\.lr"):
        hook.after_train_iter(runner(1, LOOK_EVERY), LOOK_EVERY, None, {"loss": torch.tensor(1.0)})


def test_a_state_with_a_loss_that_is_no_number_is_not_kept():
    _, hook = recording()
    hook.before_train_epoch(runner())
    hook.after_train_iter(runner(), 0, None, {"loss": torch.tensor(float("nan"))})
    with pytest.raises(TrialFailed, match=r"no number any more in epoch 1 \(seen after its step 1\)"):
        hook.before_save_checkpoint(runner(), {})


def test_an_epoch_that_was_left_amid_is_told_as_if_it_had_not_been():
    recorder, hook = recording()
    whole, checkpoint = ((1.0, 3.0), (5.0, 7.0)), {}
    for attempt, losses in enumerate(whole):
        if attempt:
            hook = RecordHook(recorder, frozenset())
            hook.after_load_checkpoint(runner(), checkpoint)
        hook.before_train_epoch(runner())
        for step, loss in enumerate(losses):
            hook.after_train_iter(runner(iteration=2 * attempt + step), step, {"inputs": [0, 0]}, {"loss": torch.tensor(loss)})
        if not attempt:
            hook.before_save_checkpoint(runner(), checkpoint)
    hook.after_train_epoch(runner())
    epoch = recorder.record().epochs[1]
    assert epoch["losses"] == {"loss": 4.0} and epoch["images_per_second"] == pytest.approx(8 / epoch["seconds"])
    after = {}
    hook.before_save_checkpoint(runner(), after)
    assert after == {}, "an epoch's end has no sums to keep"


def test_a_heartbeat_is_touched_while_steps_and_evaluation_get_on_and_not_too_often(tmp_path):
    file = tmp_path / "heartbeat"
    hook, seldom = HeartbeatHook(file, seconds=0.0), HeartbeatHook(tmp_path / "seldom", seconds=60.0)
    for beat in (lambda h: h.before_run(None), lambda h: h.after_train_iter(None, 0), lambda h: h.after_val_iter(None, 0)):
        for each in (hook, seldom):
            beat(each)
        assert file.is_file()
        os.utime(file, (0, 0))
        os.utime(seldom.file, (0, 0))
        hook.beat()
        seldom.beat()
        assert file.stat().st_mtime > 1e9 and seldom.file.stat().st_mtime == 0


def test_a_heartbeat_that_cannot_be_written_stops_nothing(tmp_path):
    HeartbeatHook(tmp_path / "absent" / "heartbeat").beat()


def test_an_epochs_randomness_depends_on_seed_and_epoch_alone():
    draws = []
    for seed, epoch in ((0, 3), (0, 3), (0, 4), (1, 3)):
        np.random.rand(5)  # noqa: NPY002 - the generator that mmcv draws augmentations from
        ReseedHook(seed).before_train_epoch(runner(epoch))
        draws.append((float(np.random.rand()), float(torch.rand(1))))  # noqa: NPY002
    assert draws[0] == draws[1] and len(set(draws)) == 3


def test_checkpoints_keep_no_log_history():
    checkpoint = {"state_dict": {}, "message_hub": {"log_scalars": {"loss": object()}, "runtime_info": {"x": 1}, "resumed_keys": {}}}
    PlainCheckpointHook().before_save_checkpoint(None, checkpoint)
    assert checkpoint["message_hub"] == {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}


def test_what_cannot_be_measured_is_none():
    assert finite_or_none({"AP": 1.5, "APl": float("nan")}) == {"AP": 1.5, "APl": None}
