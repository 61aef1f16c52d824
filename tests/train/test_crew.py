"""Processes started together: what they are told, how they end, and that none is left."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from salt_lab.train import crew
from salt_lab.train.crew import Crew

pytestmark = pytest.mark.integration

TASKS = """
import os, signal, time
from pathlib import Path
from salt_lab.errors import DataError

def tell(*, rank, workers, line, folder):
    Path(folder, f"{rank}").write_text(f"{rank} of {workers}, inherited {os.environ['SALT_LAB_INHERITED'] != ''}")

def die(*, rank, workers, line, folder):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    while line.news is None:
        time.sleep(0.01)
    Path(folder, f"{rank}").write_text(line.news)

def complain(*, rank, workers, line, folder):
    if rank == 1:
        raise DataError("no pictures")
    wait(rank=rank, workers=workers, line=line, folder=folder)

def wait(*, rank, workers, line, folder):
    Path(folder, f"{rank}").write_text(str(os.getpid()))
    time.sleep(600)

def leave(*, rank, workers, line, folder):
    try:
        wait(rank=rank, workers=workers, line=line, folder=folder)
    except KeyboardInterrupt as stop:
        Path(folder, f"left {rank}").write_text(str(stop))
        raise
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Make a crew of two for one of the tasks above; they write into ``tmp_path``."""
    (tmp_path / "crew_tasks.py").write_text(TASKS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return lambda task, **more: Crew(f"crew_tasks:{task}", {"folder": str(tmp_path)}, 2, tmp_path / "log", **more)


def written(folder, *names):
    """What the processes wrote, once they have."""
    deadline = time.monotonic() + 60
    while not all((folder / name).is_file() and (folder / name).read_text() for name in names) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [(folder / name).read_text() for name in names]


def test_each_worker_knows_its_rank_and_the_first_inherits_the_door(start, tmp_path):
    read, write = os.pipe()
    with start("tell", for_first=read) as crew:
        assert crew.watch() == [0, 0] and crew.lost() is None
    os.close(read), os.close(write)
    assert written(tmp_path, "0", "1") == ["0 of 2, inherited True", "1 of 2, inherited False"]


def test_the_others_are_told_which_worker_died_of_what(start, tmp_path):
    with start("die") as crew:
        assert crew.watch() == [0, -signal.SIGKILL]
        assert crew.lost() == "worker 1 of 2 was killed by SIGKILL" and not crew.errors()
    assert written(tmp_path, "0") == ["worker 1 of 2 was killed by SIGKILL"]


def test_an_error_in_the_labs_own_words_arrives_and_one_that_hangs_is_ended(start, monkeypatch):
    monkeypatch.setattr(crew, "GRACE_SECONDS", 0.2)
    with start("complain") as workers:
        assert workers.watch() == [-signal.SIGKILL, 2]
        assert workers.errors() == [("DataError", "no pictures")] and workers.lost() is None


def test_asked_to_leave_they_say_goodbye(start, tmp_path):
    with start("leave") as crew:
        written(tmp_path, "0", "1")
        crew.leave()
        assert crew.watch() == [0, 0]
    assert written(tmp_path, "left 0", "left 1") == ["SIGTERM", "SIGTERM"]


def test_no_worker_outlives_its_crew(start, tmp_path):
    with start("wait") as crew:
        pids = [int(pid) for pid in written(tmp_path, "0", "1")]
    assert all(process.returncode == -signal.SIGKILL for process in crew.processes)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_whose_crew_was_killed_ends_by_itself(tmp_path, monkeypatch):
    """The pipe closes when the one that held it is gone."""
    (tmp_path / "crew_tasks.py").write_text(TASKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = subprocess.Popen([sys.executable, "-m", "salt_lab.train.crew", "0"], stdin=subprocess.PIPE, text=True)
    order = {"task": "crew_tasks:wait", "arguments": {"folder": str(tmp_path)}, "workers": 1, "errors": str(tmp_path)}
    print(json.dumps(order), file=worker.stdin, flush=True)
    written(tmp_path, "0")
    worker.stdin.close()
    assert worker.wait(10) == 3
