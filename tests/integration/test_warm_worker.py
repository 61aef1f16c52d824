"""A warm worker's next trial is the trial of a fresh process, bit for bit; and a trial of several workers is the same on Ray as without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from salt_lab.data import fingerprint
from salt_lab.record.store import Store
from salt_lab.schedule.executor import Job
from salt_lab.spec.trial import Trial, trial_id

pytestmark = [pytest.mark.integration]

TINY = {
    "backbone": {"name": "resnet18", "base_channels": 8},
    "channels": 32,
    "data": {"kind": "marks", "train_images": 8, "val_images": 4, "image_size": 128},
    "schedule": {"epochs": 2, "batch": 4, "image_size": [128, 128], "optimizer": "adamw", "lr": 0.001, "warmup_iters": 2},
}
#: Leaves as much behind as a trial can: another host, with SALT, another rate, a running mean of the weights, and a failure half way.
MESSY = {**TINY, "host": "gfl", "salt": True, "schedule": {**TINY["schedule"], "ema": 0.01, "lr": 0.01}, "seed": 7}
WORKER = """
import json, sys
from pathlib import Path
from salt_lab.data import fingerprint
from salt_lab.schedule.executor import Job
from salt_lab.schedule.ray_worker import Surroundings, TrialWorker
from salt_lab.spec.trial import Trial, trial_id

root, disturb, *trials = sys.argv[1:]
worker = TrialWorker(Surroundings.of([], 1))
where = {"study": "s", "launch_id": "l", "threads": 1, "device": "cpu", "gpus": 0}
for text in trials:
    trial = Trial.model_validate_json(text)
    print(worker.run(Job(trial, trial_id(trial, fingerprint(trial.data))), Path(root), where).state)
    if disturb == "yes":  # as a careless library would
        import torch, random, os
        torch.rand(3), random.random()
"""


def job_of(values):
    trial = Trial.model_validate(values)
    return Job(trial, trial_id(trial, fingerprint(trial.data)))


def run_in_one_process(root, *trials, disturb="no"):
    """Run the trials one after the other in a process of their own; how each ended."""
    command = [sys.executable, "-W", "ignore", "-c", WORKER, str(root), disturb, *(json.dumps(values) for values in trials)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


def told(store, job):
    """What the record says that cannot depend on how long it took."""
    record = store.record(job.trial_id)
    losses = {epoch: content["losses"] for epoch, content in record.epochs.items()}
    return losses, {epoch: content["metrics"] for epoch, content in record.evals.items()}, record.metrics, record.built


def weights(store, job):
    import torch

    folder = store.trial_dir(job.trial_id) / "checkpoints"
    return torch.load(folder / "epoch_2.pth", map_location="cpu", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_the_second_trial_of_a_warm_worker_is_bit_for_bit_that_of_a_fresh_process(tmp_path):
    warm, fresh, job = Store(tmp_path / "warm"), Store(tmp_path / "fresh"), job_of(TINY)
    assert run_in_one_process(warm.root, MESSY, TINY, disturb="yes") == ["done", "done"]
    assert run_in_one_process(fresh.root, TINY) == ["done"]
    assert told(warm, job) == told(fresh, job)
    one, other = weights(warm, job), weights(fresh, job)
    assert one.keys() == other.keys() and all(bool((one[name] == other[name]).all()) for name in one)
    assert "gfl" not in (warm.trial_dir(job.trial_id) / "train.log").read_text(), "two trials share a log"


def test_what_a_trial_changes_outside_itself_is_put_back(tmp_path, monkeypatch):
    import multiprocessing
    import signal
    import time

    import torch
    from mmengine.logging import MessageHub, MMLogger

    from salt_lab.train.fresh import as_in_a_fresh_process

    before = (os.getcwd(), torch.get_default_dtype(), torch.get_num_threads(), signal.getsignal(signal.SIGTERM), torch.get_rng_state())
    with as_in_a_fresh_process():
        logger = MMLogger.get_instance("left", log_file=str(tmp_path / "left.log"))
        MessageHub.get_instance("left").update_info("key", 1)
        os.environ["SALT_LAB_LEFT"] = "yes"
        os.chdir(tmp_path)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(before[2] + 1)
        torch.backends.cudnn.benchmark = True
        torch.rand(5)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        loader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        loader.start()
    after = (os.getcwd(), torch.get_default_dtype(), torch.get_num_threads(), signal.getsignal(signal.SIGTERM))
    assert after == before[:4] and torch.equal(torch.get_rng_state(), before[4])
    assert not torch.backends.cudnn.benchmark and "SALT_LAB_LEFT" not in os.environ
    assert not MMLogger.check_instance_created("left") and not MessageHub.check_instance_created("left")
    assert all(handler.stream is None for handler in logger.handlers if hasattr(handler, "baseFilename"))
    assert not loader.is_alive()


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores")
def test_two_workers_train_the_same_trial_on_ray_as_without_it(tmp_path):
    pytest.importorskip("ray")
    from salt_lab.schedule.executor import SerialExecutor
    from salt_lab.schedule.ray_executor import RayExecutor
    from salt_lab.spec.resources import Resources

    team, jobs = Resources(workers=2, gpus=0), [job_of(TINY), job_of({**TINY, "seed": 1})]
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    SerialExecutor(1, team).run(jobs[:1], here, "s", "l", lambda: None)
    RayExecutor("local", team).run(jobs, there, "s", "l", lambda: None)
    assert [there.record(job.trial_id).state for job in jobs] == ["done", "done"], "the second one with the same, warm workers"
    assert told(here, jobs[0]) == told(there, jobs[0])
    assert there.record(jobs[0].trial_id).resources == {"workers": 2, "cpus": 1, "gpus": 0}
    assert Path(there.trial_dir(jobs[1].trial_id) / "detections.json.gz").is_file()
