"""The executor's loop between dispatcher and pool, with a pool of plain data: no Ray is started."""

from __future__ import annotations

import errno
import os

import pytest

from salt_lab.errors import SaltLabError
from salt_lab.record.journal import Journal
from salt_lab.record.store import Store
from salt_lab.schedule.closing import JournalClosing
from salt_lab.schedule.interrupts import Interrupt
from salt_lab.schedule.places import Slot
from salt_lab.schedule.ray_executor import RayExecutor
from salt_lab.schedule.ray_loop import Loop
from salt_lab.schedule.ray_pool import Event
from salt_lab.schedule.ray_worker import Outcome
from salt_lab.testing.executor_contract import make_job


class ScriptedPool:
    """Two slots; what happens to the trials on them is said beforehand, in the order of their starts."""

    def __init__(self, *answers):
        self.answers, self.started, self.killed = list(answers), [], []
        self.news, self.room, self.ready = [], 2, 2
        self.count = 0

    def resize(self, wanted, waiting, now):
        while self.count < 2:
            self.join()

    def join(self):
        self.count += 1
        name = f"slot-{len(self.started)}-{self.count}"
        self.news.append(Event("joined", Slot(name, ("n",), ("n",))))

    def events(self, seconds):
        told, self.news = self.news, []
        return iter(told)

    def start(self, slot, job, root, where):
        assert slot not in self.killed, "started on a slot that is gone"
        self.started.append((job.trial_id, slot))
        answer = self.answers.pop(0) if self.answers else Outcome("done")
        place = Slot(slot, ("n",), ("n",))
        event = Event("ended", place, answer) if isinstance(answer, Outcome) else Event(answer[0], place, death=answer[1])
        if not event.is_there:
            self.killed.append(slot)
            self.count -= 1
        self.news.append(event)

    def stop(self, seconds):
        pass

    def close(self):
        pass


def run(tmp_path, pool, number=1, **options):
    store, jobs = Store(tmp_path), [make_job(seed) for seed in range(1, number + 1)]
    closings = {job.trial_id: JournalClosing(store, job.trial, job.trial_id, "s", "l") for job in jobs}
    loop = Loop(RayExecutor(patience=0, **options), pool, jobs, closings, store, {})
    loop.run(Interrupt())
    return [store.record(job.trial_id) for job in jobs], [trial for trial, _ in pool.started]


def test_a_slot_whose_worker_was_asked_to_leave_is_not_used_again_and_the_trial_is_started_elsewhere(tmp_path):
    pool = ScriptedPool(Outcome("interrupted", signal_name="SIGTERM"))
    _, started = run(tmp_path, pool)
    assert len(started) == 2


def test_a_signal_that_came_after_the_end_costs_the_trial_nothing(tmp_path):
    _, started = run(tmp_path, ScriptedPool(Outcome("done", signal_name="SIGTERM")), number=3)
    assert len(started) == len(set(started)) == 3


def test_a_trial_whose_slot_was_gone_before_it_began_is_started_again_without_an_attempt_in_its_journal(tmp_path):
    pool = ScriptedPool(*[("unstarted", "node")] * 5)
    (record,), started = run(tmp_path, pool, max_deaths=0)
    assert len(started) == 6 and record.attempt == 0


def test_a_trial_that_was_lost_too_often_has_failed_even_if_it_never_wrote_a_line(tmp_path):
    (record,), started = run(tmp_path, ScriptedPool(*[("died", "node")] * 2), max_deaths=1)
    assert len(started) == 2
    assert record.state == "failed" and "the machine that it ran on was lost; that was death 2" in record.reason


def test_a_trial_of_several_workers_of_which_one_was_lost_is_started_again(tmp_path):
    _, started = run(tmp_path, ScriptedPool(Outcome("interrupted", reason="worker 1 of 2 was killed")))
    assert len(started) == 2


def test_its_own_error_is_not_tried_again_but_a_lack_of_memory_is_and_once(tmp_path):
    _, started = run(tmp_path, ScriptedPool(Outcome("failed", reason="ValueError: no")))
    assert len(started) == 1
    short = Outcome("failed", reason="OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    _, started = run(tmp_path / "memory", ScriptedPool(short, short))
    assert len(started) == 2


def test_a_cluster_that_lost_all_its_nodes_is_waited_for_and_then_the_launch_says_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("salt_lab.schedule.ray_loop.ROOM_SECONDS", -1.0)
    pool = ScriptedPool()
    pool.room = pool.ready = 0
    with pytest.raises(SaltLabError, match="no node that can hold a trial .* 2 trials are left"):
        run(tmp_path, pool, number=2)


def test_a_trial_that_had_no_room_for_its_last_line_gets_it_from_the_driver_with_its_own_reason(tmp_path):
    (record,), started = run(tmp_path, ScriptedPool(Outcome("failed", reason="record.jsonl: No space left on device")))
    assert (record.state, record.reason, len(started)) == ("failed", "record.jsonl: No space left on device", 1)


def test_where_the_driver_has_no_room_either_it_writes_when_there_is_and_the_other_trials_go_on(tmp_path, monkeypatch):
    full = [True]
    write = Journal._write

    def on_this_disk(journal, line):
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(journal, line)

    monkeypatch.setattr(Journal, "_write", on_this_disk)
    pool = ScriptedPool(Outcome("failed", reason="no room for 'done'"), *[Outcome("done")] * 2)
    start = pool.start
    monkeypatch.setattr(pool, "start", lambda *arguments: (start(*arguments), full.__setitem__(0, len(pool.started) < 3)))
    records, started = run(tmp_path, pool, number=3)
    assert len(started) == 3
    assert (records[0].state, records[0].reason) == ("failed", "no room for 'done'")
