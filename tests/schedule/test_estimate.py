"""What a display may promise: counts that add up, and a time left that follows from what has been seen."""

from __future__ import annotations

import pytest

from salt_lab.schedule.estimate import duration, study_numbers
from salt_lab.schedule.watch import TrialView

NOW = 1000.0


def done(seconds):
    return TrialView("d", "done", started=NOW - 500, ended=NOW - 500 + seconds, epoch=10, epochs=10)


def running(elapsed, epoch, epochs=10, first=0):
    return TrialView("r", "running", started=NOW - elapsed, first_epoch=first, epoch=epoch, epochs=epochs)


WAITING = TrialView("w")


def left(*views, width=1):
    return study_numbers(views, NOW, width).seconds_left


def test_nothing_is_promised_before_anything_is_known():
    assert left(WAITING, WAITING) is None
    assert left(running(5, epoch=0), WAITING) is None


def test_no_time_is_left_when_all_have_ended():
    assert left(done(100), TrialView("f", "failed")) == 0.0


def test_waiting_trials_take_as_long_as_finished_ones_did():
    assert left(done(100), done(200), WAITING, WAITING) == pytest.approx(300)


def test_two_at_a_time_halve_what_waits():
    assert left(done(100), WAITING, WAITING, width=2) == pytest.approx(100)


def test_a_running_trial_goes_on_at_its_own_pace():
    assert left(running(30, epoch=3)) == pytest.approx(70)


def test_a_resumed_trial_is_judged_by_the_epochs_of_this_attempt_only():
    assert left(running(10, epoch=6, first=5)) == pytest.approx(40)


def test_the_study_lasts_at_least_as_long_as_its_longest_running_trial():
    assert left(running(90, epoch=9), running(10, epoch=1), width=2) == pytest.approx(90)


def test_a_running_trial_without_an_epoch_is_taken_for_an_average_one():
    assert left(done(100), running(40, epoch=0)) == pytest.approx(60)


def test_counts_add_up_to_the_total():
    numbers = study_numbers([done(1), running(1, 1), WAITING, TrialView("f", "failed"), TrialView("i", "interrupted")], NOW)
    assert (numbers.done, numbers.running, numbers.waiting, numbers.failed, numbers.interrupted) == (1, 1, 1, 1, 1)
    assert numbers.total == 5


@pytest.mark.parametrize(("seconds", "text"), [(None, "?"), (0, "0s"), (59.4, "59s"), (60, "1m00s"), (3599.4, "59m59s"), (7260, "2h01m")])
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text
