"""What every executor must do. Subclass it in a test, say how to make yours, and it is done when the tests pass.

The trials are :func:`salt_lab.testing.fake_trial.fake_trial`: real journals, real locks, no training.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from salt_lab.data import fingerprint
from salt_lab.record.store import Record, Store
from salt_lab.schedule.executor import Executor, Job
from salt_lab.spec.trial import Trial, trial_id
from salt_lab.testing import fake_trial

FAKE = "salt_lab.testing.fake_trial:fake_trial"


def make_job(seed: int, epochs: int = 3) -> Job:
    """A job for the fake trial; its ``seed`` says how it shall behave."""
    trial = Trial.model_validate({"seed": seed, "schedule": {"epochs": epochs}})
    return Job(trial, trial_id(trial, fingerprint(trial.data)))


def no_tick() -> None:
    """For those who do not listen."""


class ExecutorContract:
    """Subclass it as ``TestMyExecutor`` and give :meth:`make_executor`."""

    def make_executor(self, **options: Any) -> Executor:
        """An executor whose ``trial_fn`` is :data:`FAKE`, with the ``patience`` of ``options`` where given."""
        raise NotImplementedError

    def run(
        self, store: Store, *jobs: Job, on_tick: Callable[[], None] = no_tick, launch_id: str = "one", **options: Any
    ) -> Sequence[Record]:
        """Run the jobs; their records afterwards."""
        self.make_executor(**options).run(jobs, store, "contract", launch_id, on_tick)
        return [store.record(job.trial_id) for job in jobs]

    def test_a_study_goes_on_after_every_kind_of_failure_and_says_why_each_trial_failed(self, tmp_path: Path) -> None:
        seeds = (fake_trial.FAILS, fake_trial.RAISES, fake_trial.EXITS, 1)
        told, raised, left, done = self.run(Store(tmp_path), *map(make_job, seeds))
        assert [record.state for record in (told, raised, left, done)] == ["failed", "failed", "failed", "done"]
        assert told.reason == "the loss is NaN"
        assert raised.reason == "RuntimeError: out of memory"
        assert left.reason == "SystemExit: 3"
        assert done.metrics is not None and done.metrics["AP"] == 40.0
        assert all(record.attempt == 1 for record in (told, raised, left)), "a failed trial was tried again within the same launch"

    def test_a_trial_that_is_done_stays_as_it_is_and_one_that_failed_goes_on_from_its_last_epoch(self, tmp_path: Path) -> None:
        store, done, failed = Store(tmp_path), make_job(1), make_job(fake_trial.RAISES)
        self.run(store, done, failed)
        before = store.journal(done.trial_id).read()
        self.run(store, done, failed, launch_id="two")
        assert store.journal(done.trial_id).read() == before
        starts = [line for line in store.journal(failed.trial_id).read() if line["event"] == "start"]
        assert [(line["launch_id"], line["resumed_epoch"]) for line in starts] == [("one", 0), ("two", 1)]

    def test_ticks_come_one_at_a_time_and_the_last_one_sees_every_trial_ended(self, tmp_path: Path) -> None:
        store, job, states, inside = (Store(tmp_path), make_job(fake_trial.SLOW), [], threading.Lock())

        def tick() -> None:
            assert inside.acquire(blocking=False)
            states.append(store.record(job.trial_id).state)
            inside.release()

        self.run(store, job, on_tick=tick)
        assert "running" in states and states[-1] == "done"

    def test_a_launch_without_jobs_ends_at_once_and_ticks(self, tmp_path: Path) -> None:
        ticks: list[int] = []
        self.run(Store(tmp_path), on_tick=lambda: ticks.append(1))
        assert ticks

    def test_an_error_in_the_display_stops_no_trial_but_is_not_hidden(self, tmp_path: Path) -> None:
        def tick() -> None:
            raise ValueError("broken display")

        store, job = Store(tmp_path), make_job(1)
        with pytest.raises(ValueError, match="broken display"):
            self.run(store, job, on_tick=tick)
        assert store.record(job.trial_id).state == "done"

    def test_a_trial_that_another_process_runs_is_left_to_it(self, tmp_path: Path) -> None:
        store, busy, free = Store(tmp_path), make_job(1), make_job(2)
        with store.lock(busy.trial_id):
            records = self.run(store, busy, free, patience=0.1)
        assert [record.state for record in records] == ["new", "done"]
        assert not store.journal(busy.trial_id).read()

    def test_sigterm_ends_the_study_in_order_and_the_next_launch_finishes_it(self, tmp_path: Path) -> None:
        store, hangs, waits = Store(tmp_path), make_job(fake_trial.HANGS), make_job(1)
        began = self._interrupt_when_running(store, signal.SIGTERM, hangs, waits)
        assert time.monotonic() - began < 15
        record = store.record(hangs.trial_id)
        assert record.state == "interrupted" and record.reason
        self.run(store, waits, launch_id="two")
        assert store.record(waits.trial_id).state == "done"

    def _interrupt_when_running(self, store: Store, number: int, hangs: Job, *others: Job) -> float:
        """Send a signal to this process once ``hangs`` has trained an epoch; the time of the signal, ``time.monotonic()`` seconds."""
        sent: list[float] = []

        def tick() -> None:
            if not sent and store.record(hangs.trial_id).epochs:
                sent.append(time.monotonic())
                os.kill(os.getpid(), number)

        try:
            self.run(store, hangs, *others, on_tick=tick)
        except KeyboardInterrupt:
            return sent[0]
        raise AssertionError("the interrupted run ended as if nothing had happened")
