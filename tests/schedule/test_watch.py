"""What the journals say, seen from outside."""

from __future__ import annotations

from unittest import mock

import pytest

from salt_lab.errors import TrialFailed
from salt_lab.record.store import Store
from salt_lab.schedule.watch import JournalWatch
from salt_lab.testing.executor_contract import make_job
from salt_lab.testing.fake_trial import FAILS, fake_trial


def watched(tmp_path, *seeds, launch_id=None):
    store, jobs = Store(tmp_path), [make_job(seed) for seed in seeds]
    return store, jobs, JournalWatch(store, [job.trial_id for job in jobs], launch_id)


def test_a_trial_without_a_journal_waits(tmp_path):
    _, _, watch = watched(tmp_path, 1)
    assert watch.changed() == []
    assert [view.state for view in watch.views()] == ["waiting"]


def test_a_finished_trial_shows_its_last_epoch_loss_and_ap(tmp_path):
    store, (job,), watch = watched(tmp_path, 1)
    fake_trial(job.trial, store, study="s", launch_id="l")
    assert watch.changed() == [job.trial_id]
    (view,) = watch.views()
    assert (view.state, view.epoch, view.epochs, view.loss, view.ap) == ("done", 3, 3, 0.5, 40.0)
    assert 0 < view.seconds(now=0) < 10


def test_only_journals_that_have_grown_are_read_again(tmp_path):
    store, jobs, watch = watched(tmp_path, 1, 2)
    for job in jobs:
        fake_trial(job.trial, store, study="s", launch_id="l")
    watch.changed()
    store.journal(jobs[1].trial_id).append("note", text="something new")
    with mock.patch.object(Store, "record", autospec=True, side_effect=Store.record) as read:
        assert watch.changed() == [jobs[1].trial_id]
    assert read.call_count == 1


def test_what_an_earlier_launch_left_behind_waits_in_this_one(tmp_path):
    store, (job,), watch = watched(tmp_path, FAILS, launch_id="today")
    with pytest.raises(TrialFailed, match="NaN"):
        fake_trial(job.trial, store, study="s", launch_id="yesterday")
    watch.changed()
    assert [view.state for view in watch.views()] == ["waiting"]


def test_the_loss_is_the_sum_of_its_terms_where_no_total_is_named(tmp_path):
    store, (job,), watch = watched(tmp_path, 1)
    journal = store.journal(job.trial_id)
    journal.append("start", trial_id=job.trial_id, trial={"schedule": {"epochs": 2}}, launch_id="l", study="s", attempt=1, resumed_epoch=0)
    journal.append("epoch", epoch=1, losses={"loss_cls": 0.5, "loss_bbox": 0.25}, lr=0.1, seconds=1, images_per_second=1, memory_mb=1)
    watch.changed()
    assert watch.views()[0].loss == 0.75


def test_a_trial_whose_worker_has_just_died_runs_until_its_executor_says_otherwise(tmp_path):
    store, (job,), watch = watched(tmp_path, 1, launch_id="l")
    store.journal(job.trial_id).append("start", trial_id=job.trial_id, trial={}, launch_id="l", study="s", attempt=1, resumed_epoch=0)
    watch.changed()
    assert store.record(job.trial_id).state == "interrupted"  # nobody holds its lock
    assert watch.views()[0].state == "running"
