"""A trial, really trained: recorded, checked against its toggles, resumed exactly."""

import gzip
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from salt_lab.data import fingerprint
from salt_lab.errors import TrialFailed, UserError
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial, trial_id
from salt_lab.train.trial import run_trial

pytestmark = pytest.mark.integration


def tiny(**changes):
    spec = {
        "host": "atss",
        "salt": {"enabled": True, "sdr_weight": 0.5},
        "backbone": {"name": "resnet18", "base_channels": 8},
        "channels": 64,
        "head_convs": 1,
        "data": {"train_images": 24, "val_images": 8, "image_size": 64, "classes": 2},
        "schedule": {"epochs": 2, "batch": 8, "image_size": [64, 64], "optimizer": "adamw", "lr": 1e-3, "warmup_iters": 2},
    }
    return Trial.model_validate(spec | changes)


def identity(trial):
    return trial_id(trial, fingerprint(trial.data))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trial that ran to its end without a stop: its store and record."""
    store = Store(tmp_path_factory.mktemp("whole"))
    return store, run_trial(tiny(), store, study="s", launch_id="l", threads=1)


def test_a_trial_leaves_its_whole_record(whole):
    store, record = whole
    assert record.state == "done"
    assert set(record.metrics) == {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}
    assert set(record.epochs) == {1, 2} and set(record.evals) == {1, 2}
    assert {"loss_cls", "loss_bbox", "loss_centerness", "loss_coarse", "loss_sdr"} <= set(record.epochs[1]["losses"])
    assert record.built["parameters"] > 1e5 and record.built["gflops"] > 0
    assert record.cost["train_seconds"] > 0 and record.cost["peak_memory_mb"] > 100
    assert record.cost["inference_ms"] > 0 and record.cost["train_images_per_second"] > 0
    folder = store.trial_dir(record.trial_id)
    assert {"config.py", "detections.json.gz", "train.log", "record.jsonl", "checkpoints"} <= {p.name for p in folder.iterdir()}


def test_the_record_says_what_was_really_built(whole):
    effective = whole[1].built["effective"]
    assert effective["host"] == "atss" and effective["salt.points"] == 9 and effective["salt.sdr_weight"] == 0.5
    assert effective["schedule.batch"] == 8 and effective["schedule.epochs"] == 2 and effective["backbone.base_channels"] == 8


def test_detections_are_in_cocos_form(whole):
    store, record = whole
    with gzip.open(store.trial_dir(record.trial_id) / "detections.json.gz", "rt") as file:
        rows = json.load(file)
    assert isinstance(rows, list)
    assert all({"image_id", "category_id", "bbox", "score"} == set(row) for row in rows)


def test_a_finished_trial_is_not_trained_again(whole):
    store, record = whole
    started = time.perf_counter()
    again = run_trial(tiny(), store, study="s", launch_id="other")
    assert again == record and time.perf_counter() - started < 2


def test_the_same_seed_gives_the_same_numbers(whole, tmp_path):
    again = run_trial(tiny(), Store(tmp_path), study="s", launch_id="l", threads=1)
    assert again.epochs[2]["losses"] == whole[1].epochs[2]["losses"]
    assert again.metrics == whole[1].metrics


WORKER = """
import sys
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train.trial import run_trial
run_trial(Trial.model_validate_json(sys.argv[1]), Store(sys.argv[2]), study="s", launch_id="l", threads=1)
"""


def test_sdr_begins_with_the_epoch_that_was_asked_for(tmp_path):
    trial = tiny(salt={"enabled": True, "sdr_weight": 0.5, "sdr_from_epoch": 2})
    record = run_trial(trial, Store(tmp_path), study="s", launch_id="l", device="cpu", threads=1)
    assert [epoch["losses"]["loss_sdr"] > 0 for epoch in record.epochs.values()] == [False, True]


@pytest.mark.slow
def test_a_killed_trial_resumes_and_ends_as_if_it_had_never_been_killed(whole, tmp_path):
    """SIGKILL after the first checkpoint; the second attempt trains the second epoch alone and ends with the same numbers."""
    store, name = Store(tmp_path), identity(tiny())
    worker = subprocess.Popen([sys.executable, "-W", "ignore", "-c", WORKER, tiny().model_dump_json(), str(tmp_path)], env=os.environ)
    pointer = store.trial_dir(name) / "checkpoints" / "last_checkpoint"
    deadline = time.monotonic() + 120
    while not pointer.exists() and time.monotonic() < deadline and worker.poll() is None:
        time.sleep(0.01)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert pointer.exists() and store.record(name).state == "interrupted"
    record = run_trial(tiny(), store, study="s", launch_id="l2", threads=1)
    assert record.state == "done" and record.attempt == 2
    starts = [line for line in store.journal(name).read() if line["event"] == "start"]
    assert starts[1]["resumed_epoch"] >= 1
    assert record.epochs[2]["losses"] == whole[1].epochs[2]["losses"]
    assert record.metrics == whole[1].metrics


def test_a_toggle_that_did_not_take_effect_stops_the_trial(tmp_path, monkeypatch):
    import salt_lab.compose.model as patches

    monkeypatch.setattr(patches, "patch_salt", lambda model, trial: None)
    monkeypatch.setattr("salt_lab.compose.patch_salt", lambda model, trial: None)
    store = Store(tmp_path)
    with pytest.raises(TrialFailed, match=r"salt.enabled is False, asked True"):
        run_trial(tiny(), store, study="s", launch_id="l", threads=1)
    record = store.record(identity(tiny()))
    assert record.state == "failed" and "salt.enabled" in record.reason


def test_a_loss_that_is_no_number_fails_the_trial_with_a_reason(tmp_path):
    schedule = tiny().schedule.model_dump() | {"lr": 1e12, "warmup_iters": 0, "optimizer": "sgd", "epochs": 1}
    store = Store(tmp_path)
    with pytest.raises(TrialFailed):
        run_trial(tiny(schedule=schedule), store, study="s", launch_id="l", threads=1)
    record = store.record(identity(tiny(schedule=schedule)))
    assert record.state == "failed" and record.reason


@pytest.mark.parametrize("host", ["fcos", "gfl", "salt_net"])
def test_every_other_host_trains_and_evaluates(host, tmp_path):
    record = run_trial(
        tiny(host=host, schedule=tiny().schedule.model_dump() | {"epochs": 1}), Store(tmp_path), study="s", launch_id="l", threads=1
    )
    assert record.state == "done" and not math.isnan(record.metrics["AP"])


def test_mixed_precision_without_a_gpu_is_refused_in_words_before_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    store = Store(tmp_path)
    trial = tiny(schedule={"epochs": 1, "batch": 8, "image_size": [64, 64], "amp": True})
    with pytest.raises(UserError, match=r"schedule.amp = true: .* needs a CUDA GPU.*schedule.amp=false"):
        run_trial(trial, store, study="s", launch_id="l", threads=1)
    record = store.record(identity(trial))
    assert record.state == "failed" and "schedule.amp" in record.reason and not record.epochs
