"""Trials that are stopped, killed, or run out of disk amid an epoch: nothing that was recorded is lost, and they go on exactly."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from mmcv.transforms import LoadImageFromFile

from salt_lab.data import fingerprint
from salt_lab.errors import StoreError, TrialFailed
from salt_lab.record.store import Store
from salt_lab.schedule.interrupts import signals_as_interrupt
from salt_lab.spec.trial import Trial, trial_id
from salt_lab.train.hooks import RecordHook
from salt_lab.train.resume import ExactCheckpointHook
from salt_lab.train.trial import run_trial

pytestmark = pytest.mark.integration

SCHEDULE = {"epochs": 2, "batch": 4, "image_size": [64, 64], "optimizer": "adamw", "lr": 2e-3, "warmup_iters": 5, "ema": 0.3, "flip": 0.5}
SPEC = {
    "host": "gfl",
    "salt": True,
    "backbone": {"name": "resnet18", "base_channels": 8},
    "channels": 64,
    "head_convs": 1,
    "data": {"train_images": 16, "val_images": 4, "image_size": 64, "classes": 2},
    "schedule": SCHEDULE,
}
STEPS = 4


@pytest.fixture(autouse=True)
def _pictures_from_their_files(monkeypatch):
    """So that it can be counted which of them are read."""
    monkeypatch.setenv("SALT_LAB_DECODED_GB", "0")


def trial(**schedule):
    return Trial.model_validate(SPEC | {"schedule": SCHEDULE | schedule})


def run(store, **schedule):
    record = run_trial(trial(**schedule), store, study="s", launch_id="l", threads=1)
    return record, store.trial_dir(record.trial_id)


def name_of(**schedule):
    return trial_id(trial(**schedule), fingerprint(trial().data))


def starts(store, name):
    return [line for line in store.journal(name).read() if line["event"] == "start"]


def at_step(monkeypatch, step, do):
    """Call ``do`` in the middle of a step (from 1, over all epochs): after its loss, before what follows it."""
    original = RecordHook.after_train_iter

    def spy(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == step:
            do()
        original(self, runner, batch_idx, data_batch, outputs)

    monkeypatch.setattr(RecordHook, "after_train_iter", spy)


def pictures(monkeypatch):
    """The pictures that are read, in order."""
    read, original = [], LoadImageFromFile.transform

    def spy(self, results):
        read.append(results["img_path"])
        return original(self, results)

    monkeypatch.setattr(LoadImageFromFile, "transform", spy)
    return read


def files(folder):
    return {path.name for path in folder.iterdir() if path.is_file()}


def same_end(ours, theirs):
    """Losses, numbers, detections and every tensor of the last checkpoint agree to the bit."""
    (record, folder), (whole, reference) = ours, theirs
    assert record.state == "done" and record.metrics == whole.metrics
    assert {e: x["losses"] for e, x in record.epochs.items()} == {e: x["losses"] for e, x in whole.epochs.items()}
    assert {e: x["metrics"] for e, x in record.evals.items()} == {e: x["metrics"] for e, x in whole.evals.items()}
    assert detections(folder) == detections(reference)
    assert tensors(folder) == tensors(reference)


def tensors(folder):
    """Model, running mean and optimiser of the last checkpoint, as bytes."""
    kept = torch.load(folder / "checkpoints" / "epoch_2.pth", weights_only=True)
    named = {f"{part}.{key}": value for part in ("state_dict", "ema_state_dict") for key, value in kept[part].items()}
    for index, state in kept["optimizer"]["state"].items():
        named |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    return {key: value.numpy().tobytes() for key, value in named.items()}


def detections(folder):
    with gzip.open(folder / "detections.json.gz", "rt") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trial that ran to its end without a stop: its record and folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SALT_LAB_DECODED_GB", "0")
        return run(Store(tmp_path_factory.mktemp("whole")))


def test_sigterm_amid_an_epoch_keeps_the_step_and_the_trial_goes_on_exactly(whole, tmp_path, monkeypatch):
    """A real signal in the middle of step 2 of epoch 2; afterwards only the pictures of steps 3 and 4 are read."""
    store, name = Store(tmp_path), name_of()
    checkpoints = store.trial_dir(name) / "checkpoints"
    with monkeypatch.context() as patched, signals_as_interrupt() as interrupt:
        at_step(patched, STEPS + 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt, match="SIGTERM: stopped after step 2 of epoch 2; run again to go on from there"):
            run(store)
    assert interrupt.signal_name is None, "the training took the signal, so nobody threw it into the middle of the step"
    record = store.record(name)
    assert record.state == "interrupted" and "SIGTERM" in record.reason and set(record.epochs) == {1}
    assert files(checkpoints) == {"epoch_1.pth", "epoch_1_step_2.pth", "last_checkpoint"}
    read = pictures(monkeypatch)
    ended = run(store)
    assert len([path for path in read if "/train/" in path]) == 2 * 4, "those of two steps"
    assert starts(store, name)[1]["resumed_epoch"] == 1 and starts(store, name)[1]["resumed_step"] == 2
    same_end(ended, whole)


def test_a_signal_in_an_epochs_last_step_is_heeded_after_the_epoch_and_its_evaluation_is_made_up_for(whole, tmp_path, monkeypatch):
    store, name = Store(tmp_path), name_of()
    with monkeypatch.context() as patched, signals_as_interrupt():
        at_step(patched, STEPS, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt, match="SIGTERM: stopped after epoch 1"):
            run(store)
    assert set(store.record(name).epochs) == {1} and not store.record(name).evals
    same_end(run(store), whole)


def test_the_second_signal_leaves_at_once(tmp_path, monkeypatch):
    store, name = Store(tmp_path), name_of()

    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(monkeypatch, 2, twice)
    with signals_as_interrupt() as interrupt, pytest.raises(KeyboardInterrupt, match="SIGINT"):
        run(store)
    assert interrupt.signal_name == "SIGINT" and store.record(name).state == "interrupted"
    assert not list((store.trial_dir(name) / "checkpoints").glob("*.pth"))


@pytest.mark.slow
def test_a_killed_trial_loses_no_more_than_the_minutes_between_checkpoints(whole, tmp_path, monkeypatch):
    """SIGKILL amid an epoch (here: an error that nobody foresaw), with a checkpoint after every step."""
    store, name = Store(tmp_path), name_of()
    with monkeypatch.context() as patched:
        patched.setattr("salt_lab.compose.run.CHECKPOINT_MINUTES", 0.0)

        def die():
            raise SystemExit

        at_step(patched, STEPS + 3, die)
        with pytest.raises(SystemExit):
            run(store)
    assert store.record(name).state == "interrupted"
    ended = run(store)
    assert starts(store, name)[1]["resumed_step"] == 2
    same_end(ended, whole)


@pytest.mark.slow
def test_with_a_damaged_last_checkpoint_the_one_before_is_used_and_the_record_says_so(whole, tmp_path, monkeypatch):
    store, name = Store(tmp_path), name_of()
    with monkeypatch.context() as patched, signals_as_interrupt():
        at_step(patched, STEPS + 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(store)
    last = store.trial_dir(name) / "checkpoints" / "epoch_1_step_2.pth"
    last.write_bytes(last.read_bytes()[:-1000])
    ended = run(store)
    again = starts(store, name)[1]
    assert again["resumed_epoch"] == 1 and "resumed_step" not in again
    assert again["note"].startswith("epoch_1_step_2.pth is damaged or cut short") and again["note"].endswith("goes on from epoch_1.pth")
    same_end(ended, whole)


@pytest.mark.slow
def test_without_a_readable_checkpoint_it_starts_from_scratch_and_says_so(whole, tmp_path, monkeypatch):
    store, name = Store(tmp_path), name_of()
    with monkeypatch.context() as patched, signals_as_interrupt():
        at_step(patched, STEPS + 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            run(store)
    for path in (store.trial_dir(name) / "checkpoints").glob("*.pth"):
        path.write_bytes(b"")
    ended = run(store)
    again = starts(store, name)[1]
    assert again["resumed_epoch"] == 0 and again["note"].endswith("no checkpoint can be read, starts from scratch")
    same_end(ended, whole)
    assert not list((ended[1] / "checkpoints").glob("*.damaged"))


@pytest.mark.slow
def test_loader_processes_bring_the_same_pictures_in_the_same_order(tmp_path, monkeypatch):
    """Two loader processes, a SIGTERM to the whole process group, which they let pass."""
    seen = {}

    def note(self, runner, batch_idx, data_batch=None, outputs=None):
        seen.setdefault(store.root.name, {})[runner.iter] = [sample.img_path for sample in data_batch["data_samples"]]
        if store.root.name == "stopped" and runner.iter + 1 == STEPS + 2 and store.record(name_of()).attempt == 1:
            for worker in runner.train_dataloader._iterator._workers:
                os.kill(worker.pid, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    monkeypatch.setattr("salt_lab.train.session._loader_workers", lambda: 2)
    monkeypatch.setattr(RecordHook, "after_train_iter", note)
    monkeypatch.setattr(RecordHook, "after_train_epoch", lambda self, runner: None)
    monkeypatch.setattr("salt_lab.train.session._finish", lambda *_: None)
    for folder in ("whole", "stopped"):
        store = Store(tmp_path / folder)
        if folder == "stopped":
            with signals_as_interrupt(), pytest.raises(KeyboardInterrupt, match="SIGTERM: stopped after step 2 of epoch 2"):
                run(store)
        run(store)
    assert len(seen["whole"]) == 2 * STEPS
    relative = {name: {i: [os.path.basename(p) for p in paths] for i, paths in steps.items()} for name, steps in seen.items()}
    assert relative["stopped"] == relative["whole"]


WORKER = """
import sys
from salt_lab.record.store import Store
from salt_lab.schedule.interrupts import signals_as_interrupt
from salt_lab.spec.trial import Trial
from salt_lab.train.trial import run_trial
with signals_as_interrupt():
    run_trial(Trial.model_validate_json(sys.argv[1]), Store(sys.argv[2]), study="s", launch_id="l", threads=1)
"""


@pytest.mark.slow
def test_sigterm_from_outside_at_any_moment_leaves_a_trial_that_goes_on(whole, tmp_path):
    """A process of its own, stopped at two moments that nobody chose to the step; it leaves within seconds each time."""
    store, name = Store(tmp_path), name_of()

    def built():
        return any(line["event"] == "built" for line in store.journal(name).read())

    for moment in (built, (store.trial_dir(name) / "checkpoints" / "epoch_1.pth").is_file):
        worker = subprocess.Popen([sys.executable, "-W", "ignore", "-c", WORKER, trial().model_dump_json(), str(tmp_path)])
        deadline = time.monotonic() + 300
        while not moment() and worker.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        asked = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        worker.wait(timeout=60)
        assert time.monotonic() - asked < 30
        assert store.record(name).state in ("interrupted", "done")
    same_end(run(store), whole)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for the data and two checkpoints, but not three."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, leave):
    """Leave so many bytes free."""
    disk = os.statvfs(folder)
    with (folder / "filler").open("wb") as file:
        file.write(bytes(max(0, disk.f_bavail * disk.f_frsize - leave)))


@pytest.mark.slow
def test_a_full_disk_fails_the_trial_with_a_reason_and_spoils_nothing(whole, small_disk, monkeypatch):
    """A file system that fills up amid epoch 2: the reason names the folder; with room again, the trial goes on to the same end."""
    store, name = Store(small_disk), name_of()
    folder = store.trial_dir(name)
    with monkeypatch.context() as patched:
        at_step(patched, STEPS + 2, lambda: fill(small_disk, 300_000))
        with pytest.raises(TrialFailed, match=rf"{folder / 'checkpoints'}: cannot write the checkpoint epoch_2.pth: .*Free space"):
            run(store)
    record = store.record(name)
    assert record.state == "failed" and str(folder / "checkpoints") in record.reason
    assert files(folder / "checkpoints") == {"epoch_1.pth", "last_checkpoint"}
    (small_disk / "filler").unlink()
    ended = run(store)
    assert starts(store, name)[1]["resumed_epoch"] == 1
    same_end(ended, whole)


@pytest.mark.slow
def test_a_disk_without_room_for_a_line_keeps_every_line_before_it(whole, small_disk, monkeypatch):
    """Not a block is left, from step 2 of epoch 2 on: what the journal had it keeps, whatever else still fits into its last block."""
    store, name = Store(small_disk), name_of()
    lines = []

    def nothing_left():
        lines.extend(store.journal(name).read())
        fill(small_disk, 0)

    with monkeypatch.context() as patched:
        at_step(patched, STEPS + 2, nothing_left)
        with pytest.raises((StoreError, TrialFailed), match=rf"{store.trial_dir(name)}.*(No space left on device|disk is full).*run again"):
            run(store)
    assert store.journal(name).read()[: len(lines)] == lines and store.record(name).state in ("interrupted", "failed")
    (small_disk / "filler").unlink()
    same_end(run(store), whole)


@pytest.mark.slow
def test_best_and_last_keeps_the_weights_that_were_evaluated_best(whole, tmp_path, monkeypatch):
    from salt_lab.record.journal import write_json

    store = Store(tmp_path)
    launch = {"launch_id": "l", "time": 0.0, "retention": {"checkpoints": "best_and_last"}, "trials": []}
    write_json(store.study_dir("s") / "launches" / "l.json", launch)
    aps = iter((30.0, 20.0))
    original = RecordHook.after_val_epoch
    monkeypatch.setattr(
        RecordHook, "after_val_epoch", lambda self, runner, metrics=None: original(self, runner, metrics | {"AP": next(aps)})
    )
    means = {}

    def keep(self, runner):
        means[runner.epoch] = {key: value.clone() for key, value in runner.model.state_dict().items()}

    monkeypatch.setattr(ExactCheckpointHook, "before_val_iter", lambda self, runner, **_: keep(self, runner))
    _, folder = run(store)
    assert files(folder / "checkpoints") == {"best_epoch_1.pth", "epoch_2.pth", "last_checkpoint"}
    best = torch.load(folder / "checkpoints" / "best_epoch_1.pth", weights_only=True)
    assert set(best) == {"meta", "state_dict", "message_hub"}
    assert all(torch.equal(best["state_dict"][key], value) for key, value in means[1].items())
    assert (folder / "detections.json.gz").is_file()
