"""A study on an embedded Ray, stopped by Ctrl-C, and by a kill that nobody can prepare for. (SIGTERM is in the executor contract.)"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from salt_lab.record.store import Store
from salt_lab.schedule.preflight import jobs_of
from salt_lab.spec.study import load_study
from salt_lab.testing.fake_trial import HANGS, SLOW

pytestmark = [pytest.mark.integration]

STUDY = """
question: what is left when it is stopped?
base: {data: {train_images: 2, val_images: 2, image_size: 32}, schedule: {epochs: 3, image_size: [32, 32]}}
axes: {host: [atss, gfl]}
"""
DRIVER = """
import sys
from salt_lab.record.store import Store
from salt_lab.schedule.launch import run_study
from salt_lab.schedule.ray_executor import RayExecutor
from salt_lab.spec.study import load_study
from salt_lab.testing.executor_contract import FAKE
study, store, seeds = sys.argv[1:]
try:
    run_study(load_study(study, [f"seeds={seeds}"]), Store(store), RayExecutor("local", trial_fn=FAKE))
except KeyboardInterrupt as stop:
    print(f"stopped by {stop}")
    sys.exit(130)
"""


class Driver:
    """A study in a process group of its own, as a shell's foreground job is, with every process that it has started."""

    def __init__(self, root: Path, seeds: list[int]) -> None:
        study = root / "study.yaml"
        study.write_text(STUDY)
        self.store = Store(root / "runs")
        self.jobs = jobs_of(load_study(study, [f"seeds={seeds}"]).trials())
        self.output = root / "output.txt"
        command = [sys.executable, "-c", DRIVER, str(study), str(self.store.root), str(seeds)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        self.family: set[psutil.Process] = set()

    def states(self) -> list[str]:
        return [self.store.record(job.trial_id).state for job in self.jobs]

    def wait_until_trained(self, number: int) -> None:
        """Until ``number`` trials have trained an epoch."""
        deadline = time.monotonic() + 90
        while sum(bool(self.store.record(job.trial_id).epochs) for job in self.jobs) < number:
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.2)
        self.family = {psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)}

    def left_over(self, seconds: float, word: str = "") -> list[str]:
        """Names with ``word`` in them of the processes of the family that are still there after at most ``seconds``."""
        deadline = time.monotonic() + seconds
        while (names := [name for name in map(_name, self.family) if name and word in name]) and time.monotonic() < deadline:
            time.sleep(0.2)
        return names

    def end(self) -> None:
        """Whatever happened in the test: none of the driver's processes may survive it."""
        for process in {*self.family, *self._children()}:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait(10)

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []


def _name(process: psutil.Process) -> str | None:
    """The name of a process; None when it is gone."""
    try:
        return process.name() if process.is_running() and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


@pytest.fixture
def start(tmp_path):
    pytest.importorskip("ray")
    drivers = []

    def begin(seeds):
        drivers.append(Driver(tmp_path, seeds))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.end()


def test_ctrl_c_ends_it_within_seconds_leaves_no_process_and_the_journals_say_interrupted(start):
    driver = start([HANGS, 1])
    driver.wait_until_trained(2)
    began = time.monotonic()
    os.killpg(driver.process.pid, signal.SIGINT)  # as a terminal does: every process of the foreground group gets it
    assert driver.process.wait(30) == 130, driver.output.read_text()
    assert time.monotonic() - began < 10
    assert driver.left_over(5) == []
    states = driver.states()
    assert "interrupted" in states and set(states) <= {"interrupted", "done", "new"}
    assert all(
        "stopped by" in driver.store.record(j.trial_id).reason for j, s in zip(driver.jobs, states, strict=True) if s == "interrupted"
    )
    output = driver.output.read_text()
    assert "interrupted" in output and "Traceback" not in output


def test_after_a_kill_only_unfinished_trials_are_run_and_from_their_last_epoch(start):
    killed = start([SLOW, 1])
    killed.wait_until_trained(2)
    deadline = time.monotonic() + 60
    while "done" not in killed.states() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.process.kill()
    killed.process.wait(10)
    assert killed.left_over(20, "TrialActor") == [], "the workers of a killed driver go on training"  # Ray's own processes take a minute
    before = {job.trial_id: killed.store.record(job.trial_id) for job in killed.jobs}
    finished = [trial_id for trial_id, record in before.items() if record.state == "done"]
    assert 0 < len(finished) < len(before)

    again = start([SLOW, 1])
    assert again.process.wait(90) == 0, again.output.read_text()
    assert again.states() == ["done"] * len(again.jobs)
    for trial_id, record in before.items():
        starts = [line for line in again.store.journal(trial_id).read() if line["event"] == "start"]
        assert len(starts) == max(1, record.attempt + (record.state != "done"))
        assert starts[-1]["resumed_epoch"] == (0 if trial_id in finished else max(record.epochs, default=0))
    assert f"reused {len(finished)}" in again.output.read_text()
