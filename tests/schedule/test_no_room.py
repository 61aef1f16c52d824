"""A disk without room for a trial's last line: the study goes on, and the record says what happened as soon as there is room."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import subprocess

import pytest
from rich.console import Console

from salt_lab.record.journal import Journal
from salt_lab.record.store import Store
from salt_lab.schedule.executor import SerialExecutor, run_job
from salt_lab.schedule.launch import run_study
from salt_lab.schedule.ray_worker import Surroundings, TrialWorker
from salt_lab.spec.study import load_study
from salt_lab.testing.executor_contract import FAKE, make_job, no_tick
from salt_lab.testing.fake_trial import fake_trial


class Disk:
    """Journals have no room while it is ``full``, or for events of one kind."""

    def __init__(self, monkeypatch):
        self.full, self.none_for = False, b""
        write = Journal._write

        def on_this_disk(journal, line):
            if self.full or (self.none_for and self.none_for in line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(journal, line)

        monkeypatch.setattr(Journal, "_write", on_this_disk)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def run(store, trial_fn, *jobs):
    SerialExecutor(trial_fn=trial_fn, patience=0).run(jobs, store, "s", "l", no_tick)
    return [store.record(job.trial_id) for job in jobs]


def test_the_next_trials_run_and_the_first_ones_end_is_written_once_there_is_room(tmp_path, disk):
    store, jobs = Store(tmp_path), [make_job(seed) for seed in (1, 2)]
    seen = []

    def trial(trial, store, **where):
        if trial.seed == 2:  # whoever watches made room
            seen.append(store.record(jobs[0].trial_id).state)
            disk.full = False
        try:
            return fake_trial(trial, store, **where)
        finally:
            disk.full = trial.seed == 1

    disk.none_for = b'"done"'
    first, second = run(store, trial, *jobs)
    assert seen == ["interrupted"], "until then it reads as one whose process vanished: it can go on"
    assert first.state == "failed" and "cannot record 'done': No space left on device" in first.reason
    assert "Free space" in first.reason and "then run again" in first.reason
    assert second.state == "failed", "it had no room for its own last word, but for that of its failure"
    disk.none_for = b""
    assert [record.state for record in run(store, FAKE, *jobs)] == ["done", "done"]
    assert [record.attempt for record in (store.record(job.trial_id) for job in jobs)] == [2, 2]


def test_a_trial_that_could_not_even_start_is_not_started_again_and_again(tmp_path, disk):
    store, job, calls = Store(tmp_path), make_job(1), []

    def trial(trial, store, **where):
        calls.append(1)
        return fake_trial(trial, store, **where)

    disk.full = True
    (record,) = run(store, trial, job)
    assert len(calls) == 1 and record.state == "new"
    disk.full = False
    assert run(store, FAKE, job)[0].state == "done"


def test_the_first_reason_stands(tmp_path, disk):
    store, job, owing = Store(tmp_path), make_job(1), []

    def trial(trial, store, **where):
        disk.full = True
        raise ValueError("the cause")

    assert run_job(trial, job, store, patience=0, owing=owing, study="s", launch_id="l") == "failed"
    (closing,) = owing
    assert closing.owes and closing.unsaid_reason == "ValueError: the cause" and not closing.settle()
    disk.full = False
    assert closing.settle() and closing.settle() and not closing.owes
    assert store.record(job.trial_id).reason == "ValueError: the cause"
    assert [line["event"] for line in store.journal(job.trial_id).read()] == ["start", "failed"]


def test_a_worker_process_says_aloud_what_it_had_no_room_to_write(tmp_path, disk):
    job = make_job(1)
    worker = TrialWorker(Surroundings.of([job], 1), trial_fn=FAKE)
    disk.full = True
    outcome = worker.run(job, tmp_path, {"study": "s", "launch_id": "l"})
    assert outcome.state == "failed" and outcome.reason.startswith(str(tmp_path)) and "No space left on device" in outcome.reason


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file):
    """Until nothing fits any more."""
    for size in (2**20, 2**9):
        with contextlib.suppress(OSError), file.open("ab", buffering=0) as filler:
            while filler.write(bytes(size)):
                pass


def test_a_study_on_a_disk_that_really_fills_up_goes_on_when_there_is_room_again(tmp_path, small_disk):
    (tmp_path / "study.yaml").write_text("base: {host: atss, data: {train_images: 2, val_images: 2, image_size: 32}}\nseeds: [1, 2, 3]\n")
    study, store, console = load_study(tmp_path / "study.yaml"), Store(small_disk / "runs"), Console(file=io.StringIO(), width=300)
    filler = small_disk / "filler"

    def trial(trial, store, **where):
        if trial.seed == 1:
            fill(filler)
        if trial.seed == 3:
            filler.unlink()
        return fake_trial(trial, store, **where)

    result = run_study(study, store, SerialExecutor(trial_fn=trial, patience=0), console=console)
    assert (result.failed, result.done) == (2, 1)
    reasons = [record.reason for record in map(store.record, store.trial_ids()) if record.state == "failed"]
    assert len(reasons) == 2 and all("No space left on device" in reason or "disk is full" in reason for reason in reasons)
    assert run_study(study, store, SerialExecutor(trial_fn=FAKE, patience=0), console=console).done == 2
