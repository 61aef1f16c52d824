"""The serial executor keeps the contract; so the contract can be kept without Ray."""

from __future__ import annotations

import pytest

from salt_lab.errors import UserError
from salt_lab.record.store import Store
from salt_lab.schedule.executor import SerialExecutor, one_line, resolve
from salt_lab.spec.resources import Resources
from salt_lab.testing import fake_trial
from salt_lab.testing.executor_contract import FAKE, ExecutorContract, make_job, no_tick
from salt_lab.train.lost import WorkerLost


class TestSerialExecutor(ExecutorContract):
    def make_executor(self, **options):
        return SerialExecutor(trial_fn=FAKE, **options)


def test_a_trial_runs_in_this_process_and_its_main_thread_with_the_threads_asked_for(tmp_path):
    import os

    store, job = Store(tmp_path), make_job(1)
    SerialExecutor(threads=2, trial_fn=fake_trial.fake_trial).run([job], store, "s", "l", no_tick)
    seen = store.record(job.trial_id).built["effective"]
    assert (seen["pid"], seen["main_thread"], seen["threads"]) == (os.getpid(), True, 2)


def test_trials_run_in_the_order_of_the_jobs(tmp_path):
    store, jobs = Store(tmp_path), [make_job(seed) for seed in (3, 1, 2)]
    SerialExecutor(trial_fn=FAKE).run(jobs, store, "s", "l", no_tick)
    started = [store.record(job.trial_id).started for job in jobs]
    assert started == sorted(started)


def test_ctrl_c_marks_the_running_trial_as_interrupted_even_if_it_writes_nothing_itself(tmp_path):
    def careless(trial, store, **where):
        raise KeyboardInterrupt

    store, running, waiting = Store(tmp_path), make_job(1), make_job(2)
    with pytest.raises(KeyboardInterrupt):
        SerialExecutor(trial_fn=careless).run([running, waiting], store, "s", "l", no_tick)
    assert store.record(running.trial_id).state == "interrupted"
    assert store.record(running.trial_id).trial["seed"] == 1
    assert store.record(waiting.trial_id).state == "new"


def test_a_trial_function_that_returns_without_an_end_in_the_journal_counts_as_failed(tmp_path):
    store, job = Store(tmp_path), make_job(1)
    SerialExecutor(trial_fn=lambda *_, **__: None).run([job], store, "s", "l", no_tick)
    assert store.record(job.trial_id).state == "failed"


def test_a_trial_function_that_cannot_be_imported_fails_its_trial_with_the_reason(tmp_path):
    store, job = Store(tmp_path), make_job(1)
    SerialExecutor(trial_fn="salt_lab.nowhere:run").run([job], store, "s", "l", no_tick)
    assert store.record(job.trial_id).reason == "ModuleNotFoundError: No module named 'salt_lab.nowhere'"


def test_a_trial_of_several_workers_is_told_so_and_tried_again_where_one_of_them_is_lost(tmp_path):
    told = []

    def loses_a_worker_once(trial, store, **where):
        told.append((where["workers"], where["gpus"], where["device"]))
        if len(told) > 1:
            return fake_trial.fake_trial(trial, store, **where)
        recorder = fake_trial.FolderRecorder(store, job.trial_id)
        start = {"study": "s", "launch_id": "l", "data_fingerprint": "", "provenance": {}}
        recorder.start(trial=fake_trial.canonical(trial), **start)
        recorder.interrupted("worker 1 of 2 was killed")
        raise WorkerLost("worker 1 of 2 was killed")

    store, job = Store(tmp_path), make_job(1)
    SerialExecutor(resources=Resources(workers=2, gpus=0), trial_fn=loses_a_worker_once).run([job], store, "s", "l", no_tick)
    assert told == [(2, 0, "cpu")] * 2
    assert (store.record(job.trial_id).state, store.record(job.trial_id).attempt) == ("done", 2)


def test_what_another_launch_has_seen_fail_meanwhile_is_not_tried_again(tmp_path):
    """Several launches beside each other would each train a hopeless trial once more."""
    store, first, second = Store(tmp_path), make_job(1), make_job(fake_trial.FAILS)

    def other_launch_is_faster(trial, store, **where):
        if trial.seed == first.trial.seed:
            SerialExecutor(trial_fn=FAKE).run([second], store, "s", "the other", no_tick)
        return fake_trial.fake_trial(trial, store, **where)

    SerialExecutor(trial_fn=other_launch_is_faster).run([first, second], store, "s", "mine", no_tick)
    record = store.record(second.trial_id)
    assert (record.state, record.attempt, record.launch_id) == ("failed", 1, "the other")
    SerialExecutor(trial_fn=FAKE).run([second], store, "s", "later", no_tick)
    assert store.record(second.trial_id).attempt == 2


def test_zero_threads_are_refused():
    with pytest.raises(UserError, match="threads = 0"):
        SerialExecutor(threads=0)


@pytest.mark.parametrize(
    ("error", "line"),
    [(UserError("no host named 'atts'"), "no host named 'atts'"), (ValueError("a\nb"), "ValueError: a"), (MemoryError(), "MemoryError")],
)
def test_a_failure_is_told_in_one_line(error, line):
    assert one_line(error) == line


def test_a_trial_function_is_named_by_module_and_name():
    assert resolve("math:hypot")(3, 4) == 5.0
