"""A launch with a time limit ends in order when its time is over: what trains keeps a checkpoint, what waits is not started."""

from __future__ import annotations

import threading
import time

import pytest

from salt_lab.errors import UserError
from salt_lab.record.store import Store
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.time_limit import TimeLimit, seconds_of
from salt_lab.testing import fake_trial
from salt_lab.testing.executor_contract import FAKE, make_job, no_tick
from salt_lab.train.stop import STOP


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("9m", 540), ("1.5h", 5400), ("1h30m", 5400), (" 45 ", 45), ("0.5m", 30)])
def test_a_length_of_time_is_read_as_people_write_it(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "9 minutes", "m9", "1d", "-5m", "0s", "9m extra"])
def test_what_is_no_length_of_time_is_refused_with_an_example_of_one(text):
    with pytest.raises(UserError, match=r"no length of time: write 90s, 9m or 1h30m|must be above 0"):
        seconds_of(text)


def test_work_that_waits_is_ended_when_the_time_is_over():
    limit = TimeLimit(0.2)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="time limit of 0s"), limit:
        time.sleep(30)
    assert limit.over and time.monotonic() - began < 10


def test_work_that_ends_in_time_is_not_disturbed():
    with TimeLimit(60) as limit:
        limit.check_room()
    assert not limit.over


def test_a_training_is_asked_to_stop_after_its_step_and_told_why_instead_of_being_cut_off():
    limit = TimeLimit(540)
    with limit, STOP.watching():
        STOP.stepping = True
        limit.end()
        assert STOP.reason == "time limit of 9m00s"


def test_no_trial_is_started_with_too_little_time_left():
    limit = TimeLimit(540)
    limit.check_room()
    limit._ends = time.monotonic() + 15
    with pytest.raises(KeyboardInterrupt, match="time limit of 9m00s"):
        limit.check_room()
    assert limit.over


def test_of_two_trials_the_one_that_runs_is_interrupted_and_the_other_is_left_for_the_next_launch(tmp_path):
    store, runs, waits = Store(tmp_path), make_job(fake_trial.SLOW), make_job(1)
    limit = TimeLimit(600)
    watcher = threading.Thread(target=end_after_an_epoch, args=(limit, store, runs.trial_id), daemon=True)
    watcher.start()
    with pytest.raises(KeyboardInterrupt), limit:
        SerialExecutor(trial_fn=FAKE, limit=limit).run([runs, waits], store, "s", "one", no_tick)
    assert [store.record(job.trial_id).state for job in (runs, waits)] == ["interrupted", "new"]
    SerialExecutor(trial_fn=FAKE).run([runs, waits], store, "s", "two", no_tick)
    assert [store.record(job.trial_id).state for job in (runs, waits)] == ["done", "done"]
    first, second = [line["resumed_epoch"] for line in store.journal(runs.trial_id).read() if line["event"] == "start"]
    assert first == 0 and second >= 1


def end_after_an_epoch(limit, store, trial_id):
    """The time is over while the trial's second epoch is trained."""
    while not (store.trial_dir(trial_id).exists() and any(line["event"] == "eval" for line in store.journal(trial_id).read())):
        time.sleep(0.01)
    limit.end()
