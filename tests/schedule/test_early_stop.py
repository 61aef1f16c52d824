"""A study that stops trials early, from launch to launch: what is stopped, what it costs, and how it goes on."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter

import pytest
from rich.console import Console

from salt_lab.record.store import Store
from salt_lab.schedule.closing import JournalClosing
from salt_lab.schedule.display import counts, event_line
from salt_lab.schedule.estimate import study_numbers
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.launch import run_study
from salt_lab.schedule.preflight import jobs_of
from salt_lab.schedule.watch import JournalWatch
from salt_lab.spec.study import load_study
from salt_lab.testing.executor_contract import FAKE
from salt_lab.train.early_stop import Rungs, launch_rules

#: The fake trial learns the less, the lower its learning rate: AP 40, 32, 24, 16, 8 and 4 at the end, half of it at the rung.
STUDY = """
base:
  data: {kind: marks, train_images: 2, val_images: 2, image_size: 32}
  schedule: {epochs: 4, image_size: [32, 32]}
axes: {schedule.lr: [0.0010, 0.0008, 0.0006, 0.0004, 0.0002, 0.0001]}
early_stop: {rungs: [2], keep: 1/3}
"""


class Lab:
    """A results folder, the study, and the serial executor with trials that train in no time."""

    def __init__(self, root):
        self.store, self.path, self.text = Store(root / "runs"), root / "search.yaml", io.StringIO()
        self.path.write_text(STUDY)

    def study(self, *overrides):
        return load_study(self.path, overrides)

    def run(self, *overrides, trial_fn=FAKE, **options):
        console = Console(file=self.text, width=200)
        return run_study(self.study(*overrides), self.store, SerialExecutor(trial_fn=trial_fn, patience=0), console=console, **options)

    def records(self):
        return [self.store.record(job.trial_id) for job in jobs_of(self.study().trials())]

    def states(self):
        return [record.state for record in self.records()]

    def starts(self):
        return [sum(line["event"] == "start" for line in self.store.journal(record.trial_id).read()) for record in self.records()]


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def test_trials_that_fall_behind_end_at_the_rung_and_the_launch_is_complete(lab):
    result = lab.run()
    assert lab.states() == ["done", "done", "done", "stopped", "stopped", "stopped"]
    assert (result.done, result.stopped, result.failed, result.complete) == (3, 3, 0, True)
    assert [max(record.epochs) for record in lab.records()] == [4, 4, 4, 2, 2, 2]
    last = lab.records()[-1]
    assert (last.stopped["ap"], last.stopped["threshold"], last.stopped["places"], len(last.stopped["peers"])) == (2.0, 16.0, 2, 5)


def test_the_terminal_says_the_rules_and_who_was_stopped_and_why(lab):
    lab.run()
    text = lab.text.getvalue()
    assert "early stopping: asha at epoch 2: the best 33.3 % go on, once there are 3 others" in text
    assert "stopped  lr=0.0001 seed=0: early stopping at epoch 2: AP 2.0, needed 16.0 to be among the best 2 of 6 (6 of 6 ended)" in text
    assert "search: 3 done, 3 stopped early, reused 0" in text


def test_run_again_a_stopped_trial_is_not_run_again_and_counts_apart_from_the_finished_ones(lab):
    first, second = lab.run(), lab.run()
    assert (second.done, second.reused, second.stopped, second.complete) == (0, 3, 3, True)
    assert second.launch_id == first.launch_id and lab.starts() == [1] * 6
    assert "reused 3, stopped early before 3, to run 0" in lab.text.getvalue()


def test_without_early_stopping_the_stopped_go_on_from_their_last_epoch_to_the_same_numbers(lab, tmp_path):
    lab.run()
    result = lab.run("early_stop=null")
    assert (result.done, result.reused, result.stopped, result.complete) == (3, 3, 0, True)
    starts = [line for line in lab.store.journal(lab.records()[-1].trial_id).read() if line["event"] == "start"]
    assert [line["resumed_epoch"] for line in starts] == [0, 2]
    (tmp_path / "never").mkdir()
    never = Lab(tmp_path / "never")
    never.run("early_stop=null")
    assert [record.metrics for record in lab.records()] == [record.metrics for record in never.records()]


def test_a_study_that_grows_competes_with_the_trials_of_its_earlier_launches(lab):
    lab.run("schedule.lr=0.001")
    lab.run("axes.schedule.lr=[0.0010,0.0008,0.0006]")
    assert lab.run().stopped == 3


def test_trials_reused_from_a_study_without_early_stopping_are_compared_with(lab):
    lab.run("name=before", "early_stop=null", "axes.schedule.lr=[0.0010,0.0008,0.0006]")
    result = lab.run()
    assert (result.reused, result.stopped) == (3, 3)


def test_what_one_study_stopped_another_one_trains(lab):
    lab.run()
    result = lab.run("name=other", "axes.schedule.lr=[0.0002,0.0001]")
    assert (result.done, result.stopped, result.complete) == (2, 0, True)
    assert lab.run().stopped == 1, "the first study found them done"


def test_a_trial_killed_at_its_rung_decides_when_the_next_launch_resumes_it(lab, monkeypatch):
    last, decide = jobs_of(lab.study().trials())[-1], Rungs.after_evaluation

    def dies_at_the_rung(self, epoch):
        if epoch == 2 and self.recorder.trial_id == last.trial_id:
            raise KeyboardInterrupt
        return decide(self, epoch)

    monkeypatch.setattr(Rungs, "after_evaluation", dies_at_the_rung)
    with pytest.raises(KeyboardInterrupt):
        lab.run()
    monkeypatch.undo()
    assert lab.states()[-1] == "interrupted"
    assert lab.run().stopped == 3
    assert max(lab.records()[-1].epochs) == 2, "it trained on past its rung"


def test_a_stopped_trial_that_fails_to_go_on_is_a_failure_and_not_a_success(lab):
    lab.run()

    def broken(trial, store, **where):
        raise MemoryError

    result = lab.run("early_stop=null", trial_fn=broken)
    assert (result.failed, result.stopped, result.complete) == (3, 0, False)
    assert lab.run("early_stop=null").done == 3


def test_an_end_is_written_over_no_stop(lab):
    lab.run()
    record, job = lab.records()[-1], jobs_of(lab.study().trials())[-1]
    before = lab.store.journal(record.trial_id).read()
    JournalClosing(lab.store, job.trial, job.trial_id, "search", record.launch_id).failed("it ended without saying how")
    assert lab.store.journal(record.trial_id).read() == before


def test_a_watcher_counts_the_stopped_apart_and_estimates_from_their_lengths_too(lab):
    lab.run()
    watch = JournalWatch(lab.store, [record.trial_id for record in lab.records()])
    watch.changed()
    views = watch.views()
    numbers = study_numbers(views, now=0.0)
    assert (numbers.done, numbers.stopped, numbers.total, numbers.seconds_left) == (3, 3, 6, 0.0)
    assert counts(numbers) == "3/6 done, 3 stopped early, 0 running, 0 failed, 0 waiting"
    assert views[-1].ended is not None and "AP 2.0, needed 16.0" in event_line(views[-1], "x", numbers)


MACHINE = """
import sys
from salt_lab.record.store import Store
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.preflight import jobs_of
from salt_lab.spec.study import load_study
root, launch_id, first, every = sys.argv[1:]
jobs = jobs_of(load_study(root + "/search.yaml").trials())[int(first)::int(every)]
SerialExecutor(trial_fn="salt_lab.testing.fake_trial:fake_trial").run(jobs, Store(root + "/runs"), "search", launch_id, lambda: None)
"""


@pytest.mark.integration
def test_two_machines_that_share_the_results_folder_decide_from_each_others_journals(lab, tmp_path):
    ids = [job.trial_id for job in jobs_of(lab.study().trials())]
    launch_id = lab.store.new_launch(lab.study(), ids, early_stop=launch_rules(lab.study(), ids))
    commands = [[sys.executable, "-c", MACHINE, str(tmp_path), launch_id, first, "2"] for first in "01"]
    machines = [subprocess.Popen(command) for command in commands]
    assert [machine.wait(timeout=60) for machine in machines] == [0, 0]
    states = Counter(lab.states())
    assert states["stopped"] >= 1 and states["done"] + states["stopped"] == 6
    theirs = {trial_id for record in lab.records()[1::2] if record.stopped for trial_id in record.stopped["peers"]}
    theirs |= {trial_id for record in lab.records()[0::2] if record.stopped for trial_id in record.stopped["peers"]}
    assert len(theirs) > 3, "each side sees more than its own three"
    assert lab.states()[0] == "done", "the best trial was stopped"
