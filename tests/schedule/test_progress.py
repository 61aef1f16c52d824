"""The display, on a terminal and in a pipe, driven by real journals and a clock of the test's own."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from salt_lab.record.store import Store
from salt_lab.schedule.progress import StudyProgress
from salt_lab.testing.executor_contract import make_job
from salt_lab.testing.fake_trial import fake_metrics

START = 1_700_000_000.0


class Journals:
    """Two trials, A and B, whose journals a test writes line by line at times of its choosing."""

    def __init__(self, root):
        self.now = START
        self.store = Store(root)
        self.ids = [make_job(seed).trial_id for seed in (1, 2)]
        self.locks = []

    def write(self, which, event, **fields):
        self.store.journal(self.ids[which]).append(event, time=self.now, **fields)

    def start(self, which, resumed_epoch=0):
        lock = self.store.lock(self.ids[which])
        lock.__enter__()
        self.locks.append(lock)
        trial = {"schedule": {"epochs": 4}}
        self.write(which, "start", trial_id=self.ids[which], trial=trial, launch_id="l", study="s", attempt=1, resumed_epoch=resumed_epoch)

    def epoch(self, which, epoch):
        self.write(which, "epoch", epoch=epoch, losses={"loss": 2.0 / epoch}, lr=0.1, seconds=1, images_per_second=1, memory_mb=1)
        self.write(which, "eval", epoch=epoch, metrics=fake_metrics(epoch / 4))

    def done(self, which):
        self.write(which, "done", metrics=fake_metrics(1.0), train_seconds=1, eval_seconds=1, peak_memory_mb=1, epochs=4)


@pytest.fixture
def journals(tmp_path):
    journals = Journals(tmp_path)
    yield journals
    for lock in journals.locks:
        lock.__exit__(None, None, None)


def display(journals, terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    names = dict(zip(journals.ids, ["host=atss salt=on [x]", "host=fcos salt=off"], strict=True))
    progress = StudyProgress(journals.store, journals.ids, names, console=console, launch_id="l", clock=lambda: journals.now)
    return progress, text


def test_a_pipe_gets_a_line_when_a_trial_starts_and_one_when_it_ends_and_none_in_between(journals):
    progress, text = display(journals, terminal=False)
    with progress:
        progress.update()
        assert text.getvalue() == ""
        journals.start(0)
        for _ in range(3):
            progress.update()
        journals.epoch(0, 1)
        progress.update()
        assert len(text.getvalue().splitlines()) == 1
        journals.now += 20
        journals.done(0)
    started, ended = text.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d running  host=atss salt=on \[x\]", started)
    assert ended.endswith("done     host=atss salt=on [x]: AP 40.0 in 20s (1 of 2 ended)")


def test_a_pipe_gets_a_summary_every_half_minute_of_silence(journals):
    progress, text = display(journals, terminal=False)
    with progress:
        journals.start(0)
        progress.update()
        journals.epoch(0, 1)
        for _ in range(59):
            journals.now += 1
            progress.update()
        assert len(text.getvalue().splitlines()) == 2
    summary = "0/2 done, 1 running, 0 failed, 1 waiting, about 3m30s left | host=atss salt=on [x] epoch 1/4 loss 2.000 AP 10.0"
    assert summary in text.getvalue()


def test_a_pipe_gets_no_control_characters(journals):
    progress, text = display(journals, terminal=False)
    with progress:
        journals.start(0)
        progress.update()
        journals.done(0)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text.getvalue())


def test_a_failure_is_told_with_its_reason(journals):
    progress, text = display(journals, terminal=False)
    with progress:
        journals.start(1, resumed_epoch=2)
        progress.update()
        journals.write(1, "failed", reason="the loss is NaN", traceback_tail="")
    assert "running  host=fcos salt=off from epoch 2" in text.getvalue()
    assert "failed   host=fcos salt=off: the loss is NaN (1 of 2 ended)" in text.getvalue()


def test_a_trial_that_starts_and_ends_between_two_looks_is_told_all_the_same(journals):
    progress, text = display(journals, terminal=False)
    with progress:
        journals.start(0)
        journals.done(0)
    assert "done     host=atss" in text.getvalue()


def test_a_terminal_shows_the_counts_and_a_row_per_running_trial(journals):
    progress, text = display(journals, terminal=True)
    with progress:
        journals.start(0)
        journals.now += 10
        journals.epoch(0, 1)
        progress.update()
        shown = text.getvalue()
    assert "0/2 done, 1 running, 0 failed, 1 waiting, 1m10s left" in shown
    assert re.search(r"host=atss salt=on \[x\]\s+1/4\s+2\.000\s+10\.0\s+30s", shown)


def test_a_terminal_keeps_a_line_for_each_trial_that_has_ended(journals):
    progress, text = display(journals, terminal=True)
    with progress:
        journals.start(0)
        progress.update()
        assert "running  host" not in text.getvalue()
        journals.done(0)
    assert text.getvalue().count("done     host=atss salt=on [x]: AP 40.0") == 1


def test_update_says_whose_journals_have_changed(journals):
    progress, _ = display(journals, terminal=False)
    with progress:
        assert progress.update() == []
        journals.start(1)
        assert progress.update() == [journals.ids[1]]
        assert progress.update() == []
