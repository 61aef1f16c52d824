"""One process at a time, and death lets go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from salt_lab.record import Store, TrialBusy

ID = "0123456789ab"
HOLDER = """
import sys, time
from salt_lab.record import Store
with Store(sys.argv[1]).lock(sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""
#: Holds the lock and forks, as a data loader does; the child outlives it.
FORKING_HOLDER = """
import os, sys, time
from salt_lab.record import Store
with Store(sys.argv[1]).lock(sys.argv[2]):
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)  # it is there, and has let go of what it must not keep
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


def holder(store: Store, program: str = HOLDER) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", program, str(store.root), ID], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_locked_trial_refuses_a_second_process_and_says_who_has_it(tmp_path):
    store = Store(tmp_path)
    process, _ = holder(store)
    try:
        assert store.is_running(ID)
        with pytest.raises(TrialBusy, match=f"trial {ID} is being run by process {process.pid} .*Wait for it"), store.lock(ID):
            pytest.fail("two holders")
    finally:
        end(process)


def test_killing_the_holder_frees_the_trial(tmp_path):
    store = Store(tmp_path)
    process, _ = holder(store)
    end(process)
    assert not store.is_running(ID)
    with store.lock(ID):
        assert store.is_running(ID)
    assert not store.is_running(ID)


def test_a_data_loaders_worker_that_outlives_the_killed_trial_does_not_keep_it_locked(tmp_path):
    store = Store(tmp_path)
    process, child = holder(store, FORKING_HOLDER)
    try:
        assert store.is_running(ID)
        end(process)
        os.kill(int(child), 0)  # still there
        assert not store.is_running(ID)
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_fork_that_ends_does_not_free_the_trial_of_its_parent(tmp_path):
    store = Store(tmp_path)
    with store.lock(ID):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert store.is_running(ID)


def test_asking_whether_a_trial_runs_makes_no_folders(tmp_path):
    assert not Store(tmp_path / "runs").is_running(ID)
    assert not (tmp_path / "runs").exists()


def test_a_reader_that_probes_the_lock_does_not_keep_a_trial_from_starting(tmp_path):
    import fcntl
    import threading

    store = Store(tmp_path)
    with store.lock(ID):
        pass
    probe = os.open(store.trial_dir(ID) / "lock", os.O_RDONLY)
    fcntl.flock(probe, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [probe]).start()
    with store.lock(ID):
        assert store.is_running(ID)
