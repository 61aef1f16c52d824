"""A trial of two workers over gloo: what it learns, what its record says, and what is left when one of them dies.

The same images come in the same order as with one worker: the sampler deals each batch out card by card. What differs is the order in which
sums are rounded, in the normalisers and in the gradient, a few units in the seventh digit a step.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from salt_lab.data import fingerprint
from salt_lab.errors import SpecError, UserError
from salt_lab.record.store import Store, TrialBusy
from salt_lab.spec.trial import Trial, trial_id
from salt_lab.train import gang
from salt_lab.train.meeting import listen
from salt_lab.train.trial import run_trial, workers_of

pytestmark = pytest.mark.integration
HERE = {"study": "s", "launch_id": "l", "threads": 1, "device": "cpu"}


def tiny(**changes):
    """Batch norm frozen and nothing left to chance, so that the number of workers cannot matter."""
    schedule = {"epochs": 1, "batch": 8, "image_size": [64, 64], "optimizer": "sgd", "lr": 0.01, "warmup_iters": 0, "flip": 0.0}
    spec = {
        "host": "atss",
        "salt": True,
        "backbone": {"name": "resnet18", "base_channels": 8, "batch_norm": changes.pop("batch_norm", "frozen")},
        "channels": 64,
        "head_convs": 1,
        "data": {"train_images": changes.pop("images", 24), "val_images": 5, "image_size": 64, "classes": 2},
        "schedule": schedule | changes,
    }
    return Trial.model_validate(spec)


def lively(**changes):
    """Batch norm learns and pictures are flipped: what a resumed trial has to get right for each worker."""
    return tiny(images=96, epochs=2, batch_norm="train", flip=0.5, optimizer="adamw", lr=1e-3, **changes)


def identity(trial):
    return trial_id(trial, fingerprint(trial.data))


def detections(store, name):
    with gzip.open(store.trial_dir(name) / "detections.json.gz", "rt") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same trial on one worker and on two: (store, record) of each."""
    stores = [Store(tmp_path_factory.mktemp(name)) for name in ("one", "two")]
    return [(store, run_trial(tiny(), store, **HERE, workers=workers)) for store, workers in zip(stores, (1, 2), strict=True)]


def test_two_workers_learn_what_one_learns_from_the_same_batches(both):
    one, two = (record for _, record in both)
    assert two.epochs[1]["losses"] == pytest.approx(one.epochs[1]["losses"], rel=1e-5)
    assert two.metrics == pytest.approx(one.metrics, abs=0.1)


def test_the_record_says_on_what_the_trial_ran_and_is_otherwise_that_of_one_worker(both):
    one, two = (record for _, record in both)
    assert one.resources == {"workers": 1, "cpus": 1, "gpus": 0} and two.resources == {"workers": 2, "cpus": 1, "gpus": 0}
    assert two.trial_id == one.trial_id and two.built["effective"] == one.built["effective"]
    assert two.state == "done" and set(two.cost) == set(one.cost)


def test_each_event_is_written_once_and_each_image_evaluated_once(both):
    store, record = both[1]
    assert [line["event"] for line in store.journal(record.trial_id).read()] == ["start", "built", "epoch", "eval", "done"]
    rows = detections(store, record.trial_id)
    assert len({json.dumps(row) for row in rows}) == len(rows)


def test_a_batch_that_cannot_be_shared_out_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(SpecError, match=r"schedule\.batch = 8 cannot be shared out equally over 3 workers"):
        run_trial(tiny(), Store(tmp_path), **HERE, workers=3)
    assert not Store(tmp_path).trial_ids()


def test_more_workers_than_gpus_are_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match="workers = 2: each needs a GPU of its own, and this machine has 1"):
        gang.check_gpus(2, None)
    gang.check_gpus(2, "cpu")


def test_a_whole_number_of_gpus_is_as_many_workers():
    assert [workers_of(0), workers_of(0.5), workers_of(1), workers_of(8), workers_of(0, 2), workers_of(2, 2)] == [1, 1, 1, 8, 2, 2]
    with pytest.raises(UserError, match="gpus = 8 and workers = 2"):
        workers_of(8, 2)


def test_a_trial_that_another_process_runs_is_busy_before_workers_start(tmp_path, monkeypatch):
    monkeypatch.setattr("salt_lab.train.crew.Crew.__enter__", lambda crew: pytest.fail("started"))
    store = Store(tmp_path)
    with store.lock(identity(tiny())), pytest.raises(TrialBusy):
        run_trial(tiny(), store, **HERE, workers=2)


DRIVER = """
import sys
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train.trial import run_trial
import signal
signal.signal(signal.SIGTERM, signal.default_int_handler)
run_trial(Trial.model_validate_json(sys.argv[1]), Store(sys.argv[2]), study="s", launch_id="l", threads=1, device="cpu", workers=2)
"""


def children(pid):
    """The workers of a process, by rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == pid and b"salt_lab.train.crew" in words:
            found[int(words[-2])] = int(entry.name)
    return found


def alive(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found
    return found


def started(trial, store):
    """A driver of two workers whose first epoch is trained and whose second has begun: the process, and its workers."""
    driver = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", DRIVER, trial.model_dump_json(), str(store.root)], env=os.environ, stderr=subprocess.DEVNULL
    )
    until(lambda: 1 in store.record(identity(trial)).evals or driver.poll() is not None)
    time.sleep(0.3)
    return driver, children(driver.pid)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The lively trial on two workers, never stopped."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    return store, run_trial(lively(), store, **HERE, workers=2)


def assert_same_end(store, undisturbed):
    """Losses and detections of the last epoch, and the weights, are those of the undisturbed trial, to the last bit."""
    name, (whole, record) = identity(lively()), undisturbed
    mine = store.record(name)
    assert mine.state == "done" and mine.epochs[2]["losses"] == record.epochs[2]["losses"] and mine.metrics == record.metrics
    assert detections(store, name) == detections(whole, name)
    ours, theirs = (
        torch.load(each.trial_dir(name) / "checkpoints" / "epoch_2.pth", weights_only=True)["state_dict"] for each in (store, whole)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def kill(store, victim):
    """Start the lively trial, kill a worker amid its second epoch, and see all end within seconds. Its record."""
    driver, workers = started(lively(), store)
    os.kill(workers[victim], signal.SIGKILL)
    killed = time.monotonic()
    assert driver.wait(60) != 0 and time.monotonic() - killed < 30
    assert not any(map(alive, workers.values())) and not store.is_running(identity(lively()))
    record = store.record(identity(lively()))
    assert record.state == "interrupted" and f"worker {victim} of 2 was killed by SIGKILL" in record.reason
    return record


@pytest.mark.slow
def test_when_the_recording_worker_is_killed_all_end_within_seconds_and_the_record_says_why(tmp_path):
    assert 1 in kill(Store(tmp_path), 0).epochs


@pytest.mark.slow
def test_when_another_worker_is_killed_all_end_within_seconds_and_the_next_run_goes_on_exactly(undisturbed, tmp_path):
    store = Store(tmp_path)
    record = kill(store, 1)
    run_trial(lively(), store, **HERE, workers=2)
    starts = [line for line in store.journal(record.trial_id).read() if line["event"] == "start"]
    assert [start["resumed_epoch"] for start in starts] == [0, 1]
    assert_same_end(store, undisturbed)


@pytest.mark.slow
def test_asked_to_leave_the_workers_checkpoint_amid_the_epoch_and_the_next_run_goes_on_exactly(undisturbed, tmp_path):
    store, name = Store(tmp_path), identity(lively())
    driver, workers = started(lively(), store)
    driver.send_signal(signal.SIGTERM)
    driver.wait(60)
    record = store.record(name)
    assert not any(map(alive, workers.values())) and record.state == "interrupted" and "SIGTERM: stopped after step" in record.reason
    run_trial(lively(), store, **HERE, workers=2)
    assert_same_end(store, undisturbed)


@pytest.mark.slow
def test_workers_do_not_outlive_the_one_that_started_them(tmp_path):
    store, name = Store(tmp_path), identity(lively())
    driver, workers = started(lively(), store)
    driver.kill()
    driver.wait()
    until(lambda: not any(map(alive, workers.values())) and not store.is_running(name), 20)
    assert store.record(name).state == "interrupted"


RANK = """
import sys
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
import salt_lab.train.gang as gang
from salt_lab.train.meeting import take_over
rank = int(sys.argv[3])
if rank == 0:
    take_over(int(sys.argv[5]))
else:
    from salt_lab.train.hooks import RecordHook
    whole = RecordHook.after_train_iter
    def spoilt(self, runner, batch_idx, data_batch=None, outputs=None):
        whole(self, runner, batch_idx, data_batch, {**outputs, "loss_cls": float("nan")})
    RecordHook.after_train_iter = spoilt
print(gang.run_rank(Trial.model_validate_json(sys.argv[1]), Store(sys.argv[2]), rank=rank, workers=2, address="127.0.0.1",
      port=int(sys.argv[4]), study="s", launch_id="l", threads=1, device="cpu"))
"""


@pytest.mark.slow
def test_a_loss_that_is_no_number_on_one_worker_ends_all_with_the_reason(tmp_path):
    """Nobody but the workers here, as on a cluster: each is started by itself."""
    store = Store(tmp_path)
    with listen("127.0.0.1") as door:
        port = str(door.getsockname()[1])
        words = [sys.executable, "-W", "ignore", "-c", RANK, tiny().model_dump_json(), str(tmp_path)]
        ranks = [
            subprocess.Popen([*words, str(rank), port, str(door.fileno())], pass_fds=(door.fileno(),), stderr=subprocess.PIPE, text=True)
            for rank in (0, 1)
        ]
        said = [rank.communicate(timeout=300)[1] for rank in ranks]
    record = store.record(identity(tiny()))
    assert all(rank.returncode for rank in ranks) and all("no number any more in epoch 1" in text for text in said)
    assert record.state == "failed" and record.reason.startswith("worker 1 of 2: the loss is no number any more in epoch 1")
    assert "_check_finite" in store.journal(record.trial_id).read()[-1]["traceback_tail"]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_learn_what_one_learns_from_the_same_batches(tmp_path):
    place = HERE | {"device": None}
    one, two = (run_trial(tiny(), Store(tmp_path / str(gpus)), **place, gpus=gpus) for gpus in (1, 2))
    assert two.resources == {"workers": 2, "cpus": 1, "gpus": 2}
    assert two.epochs[1]["losses"] == pytest.approx(one.epochs[1]["losses"], rel=1e-2)
