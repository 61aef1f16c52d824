"""A study that is played through on a clock that costs nothing: its end, its losses, and the waiting for slots."""

from __future__ import annotations

import math

import pytest

from salt_lab.schedule.dispatch import Dispatcher, Need, Policy
from salt_lab.schedule.places import Slot
from salt_lab.schedule.simulation import Attempt, play

NODES = [Slot(f"{node}", (f"{node}",), (f"{node}",), 80.0) for node in range(4)]


def lost_once(seconds, kind, lost, away=0.0):
    """Every trial takes ``seconds``; those in ``lost`` die half way, the first time."""
    left = set(lost)

    def attempt(start):
        if start.trial_id in left:
            left.discard(start.trial_id)
            return Attempt(seconds / 2, kind, away)
        return Attempt(seconds)

    return attempt


def test_as_many_trials_as_slots_end_with_the_longest_and_keep_the_slots_busy_for_their_sum():
    lengths = dict(a=5.0, b=7.0, c=1.0)
    played = play(Dispatcher("abc"), NODES, lambda start: Attempt(lengths[start.trial_id]))
    assert (played.end, played.busy, played.starts, played.events) == (7.0, 13.0, 3, 3)


def test_a_death_costs_the_work_that_was_lost_and_the_waiting_for_its_slot():
    assert play(Dispatcher("a"), NODES[:1], lost_once(10.0, "killed", "a")).end == 15.0
    played = play(Dispatcher("a"), NODES[:1], lost_once(10.0, "killed", "a", away=100.0))
    assert played.end == 115.0 and played.busy == 15.0 and played.starts == 2


def test_a_slot_that_never_comes_back_leaves_its_work_to_the_others():
    played = play(Dispatcher("abcd"), NODES[:2], lost_once(10.0, "node", "a", away=math.inf))
    assert played.starts == 5 and played.end == 40.0, "one slot is left from the fifth second on"


def test_a_trial_that_dies_too_often_ends_the_study_without_being_done():
    made = Dispatcher("a", policy=Policy(max_deaths=2))
    assert play(made, NODES, lambda start: Attempt(1.0, "hang")).starts == 3 and made.finished


def test_out_of_memory_alone_on_a_device_is_the_end_and_beside_another_trial_it_is_tried_again():
    alone = play(Dispatcher("a"), NODES, lambda start: Attempt(1.0, "oom"))
    shared = [Slot(name, ("gpu",), ("node",), 80.0) for name in "xy"]
    again = play(Dispatcher("a"), shared, lambda start: Attempt(1.0, None if start.alone else "oom"))
    assert (alone.starts, again.starts, again.end) == (1, 2, 2.0)


def test_a_node_that_is_avoided_is_waited_for_where_the_others_have_too_little_memory():
    places = [*(Slot(f"big {gpu}", (f"gpu {gpu}",), ("big",), 80.0) for gpu in (0, 1)), Slot("small", ("s",), ("s",), 8.0)]
    made = Dispatcher("a", lambda name: Need(40.0), Policy(avoid_after=1, avoid_seconds=300.0))
    assert 300 < play(made, places, lost_once(10.0, "killed", "a")).end < 330, "the node is trusted again after 300 s"


def test_a_study_without_a_slot_says_so_instead_of_going_on_for_ever():
    with pytest.raises(RuntimeError, match="trials are left that nothing starts"):
        play(Dispatcher("ab"), [], lambda start: Attempt(1.0))
