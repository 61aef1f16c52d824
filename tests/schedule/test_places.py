"""Devices of unequal memory that come and go: where a trial waits, where it is tried alone, and who may use what is kept for it."""

from __future__ import annotations

import math

import pytest

from salt_lab.schedule.dispatch import Dispatcher, Need, Policy
from salt_lab.schedule.places import Places, Slot
from salt_lab.schedule.simulation import Attempt, play

SMALL = Slot("small", ("s",), ("small node",), 24.0)
SMALL_TOO = Slot("small too", ("s",), ("small node",), 24.0)
LARGE = Slot("large", ("l",), ("large node",), 80.0)
LARGE_TOO = Slot("large too", ("l",), ("large node",), 80.0)
AWAY = Policy().away_seconds


def dispatcher(needs, *places, **policy):
    made = Dispatcher(list(needs), lambda name: Need(memory_gb=needs[name]), Policy(**policy))
    for slot in places:
        made.joined(slot)
    return made


def starts(made, now):
    """Trial -> slot; asked twice, since a trial that is found too large for all is tried alone from the next time on."""
    return {start.trial_id: start.slot for start in [*made.next_starts(now), *made.next_starts(now)]}


def test_a_trial_waits_for_the_only_device_that_can_hold_it_while_that_restarts_and_smaller_ones_go_on():
    made = dispatcher({"a": 60.0, "b": 10.0}, SMALL, LARGE)
    assert starts(made, 0) == {"a": "large", "b": "small"}
    made.died("a", "killed", 10)
    made.left("large")
    made.ended("b", "done", 11)
    assert starts(made, 12) == {}, "the small one is idle, and too small"
    made.joined(LARGE)
    assert starts(made, 190) == {"a": "large"} and not made.can_try_alone("a")


def test_a_device_that_does_not_come_back_is_not_waited_for_for_ever():
    made = dispatcher({"a": 60.0}, SMALL, LARGE)
    played = play(made, [], lambda start: Attempt(5.0, "node", math.inf) if start.slot == "large" else Attempt(20.0))
    assert made.finished and AWAY + 25 <= played.end < AWAY + 60 and played.starts == 2


def test_each_time_that_a_device_leaves_it_is_waited_for_anew():
    made = dispatcher({"a": 60.0}, SMALL, LARGE)
    for now in (0.0, 0.8 * AWAY, 1.6 * AWAY):
        assert starts(made, now) == {"a": "large"}
        made.died("a", "killed", now)
        made.left("large")
        assert starts(made, now + 0.7 * AWAY) == {}
        made.joined(LARGE)


def test_a_trial_that_has_not_begun_on_a_small_device_goes_to_the_large_one_that_joins_and_shares_it():
    made = dispatcher({"a": 60.0, "b": 10.0, "c": 20.0, "d": 20.0}, SMALL)
    assert starts(made, 0) == {"b": "small"}, "a waits for the small one to be empty"
    made.joined(LARGE)
    made.joined(LARGE_TOO)
    found = made.next_starts(1)
    assert {start.trial_id for start in found} == {"a", "c"} and not any(start.alone for start in found)
    made.ended("b", "done", 2)
    assert starts(made, 2) == {"d": "small"}, "nothing is kept free there any more"


def test_a_trial_that_was_found_too_large_moves_on_to_a_larger_device_that_is_too_small_as_well():
    made = dispatcher({"a": 60.0, "b": 10.0}, SMALL)
    assert starts(made, 0) == {"b": "small"}
    made.joined(Slot("middle", ("m",), ("n",), 40.0))
    (start,) = made.next_starts(1)
    assert (start.trial_id, start.slot, start.alone) == ("a", "middle", True)


def test_alone_on_a_small_device_is_not_the_last_word_when_a_larger_one_has_joined_meanwhile():
    made = dispatcher({"a": 60.0}, SMALL)
    assert starts(made, 0) == {"a": "small"}
    assert not made.can_try_alone("a")
    made.joined(LARGE)
    assert made.can_try_alone("a") and made.died("a", "oom", 5).again
    assert starts(made, 5) == {"a": "large"}
    assert not made.can_try_alone("a") and not made.died("a", "oom", 6).again


def test_a_trial_of_unknown_need_that_fills_a_small_device_is_tried_on_a_large_one():
    made = dispatcher({"a": None, "b": None}, LARGE, SMALL)
    assert starts(made, 0) == {"a": "large", "b": "small"}
    assert not made.can_try_alone("a") and made.can_try_alone("b")
    made.died("b", "oom", 1)
    assert starts(made, 1) == {}
    made.ended("a", "done", 2)
    assert starts(made, 2) == {"b": "large"}


def test_larger_devices_that_come_and_go_do_not_give_a_trial_endless_tries():
    made, tries = dispatcher({"a": None}, SMALL, max_deaths=3), 0
    for size in range(100):
        tries += len(starts(made, size))
        made.joined(Slot(f"{size}", (f"{size}",), ("n",), 30.0 * 1.3**size))
        if not made.died("a", "oom", size).again:
            break
    assert made.finished and tries == 5


def test_machines_of_one_kind_whose_memory_differs_a_little_are_alike():
    made = dispatcher({"a": None}, Slot("x", ("x",), ("x",), 62.3), Slot("y", ("y",), ("y",), 62.7))
    starts(made, 0)
    assert not made.can_try_alone("a"), "another try would have 0.4 GiB more"
    made = dispatcher({"a": 70.0, "b": 70.0}, Slot("x", ("x",), ("x",), 62.3), Slot("y", ("y",), ("y",), 62.7))
    assert set(starts(made, 0).values()) == {"x", "y"}


def test_two_trials_that_need_all_of_the_large_device_take_turns_instead_of_one_failing_on_the_small_one():
    made = dispatcher({"a": 90.0, "b": 90.0}, SMALL, LARGE)
    assert starts(made, 0) == {"a": "large"}
    made.ended("a", "done", 1)
    assert starts(made, 1) == {"b": "large"}


def test_the_one_try_alone_is_not_spent_on_a_smaller_device_while_the_large_one_restarts():
    made = dispatcher({"a": None, "b": None}, LARGE, LARGE_TOO, SMALL)
    assert starts(made, 0) == {"a": "large too", "b": "large"}
    made.ended("b", "done", 1)
    assert made.died("a", "oom", 1).again
    for slot in ("large", "large too"):
        made.left(slot)
    assert starts(made, 2) == {}
    made.joined(LARGE)
    assert starts(made, 3) == {"a": "large"}


@pytest.mark.parametrize("end", ["killed", "given back", "busy"])
def test_what_ends_a_try_alone_from_outside_does_not_put_the_trial_beside_others_again(end):
    made = dispatcher({"a": None, "b": None, "c": None}, LARGE, LARGE_TOO, busy_pause=1.0)
    slots = starts(made, 0)
    made.died("a", "oom", 1)
    made.ended("b", "done", 2)
    (start,) = made.next_starts(2)
    assert start.alone and set(slots) == {"a", "b"}
    {"killed": lambda: made.died("a", "killed", 3), "given back": lambda: made.given_back("a"), "busy": lambda: made.ended("a", "busy", 3)}[
        end
    ]()
    if end == "busy":
        assert starts(made, 3) == {"c": "large"} or made.slot_of("c")
        made.ended("c", "done", 3)
    (start,) = made.next_starts(5)
    assert (start.trial_id, start.alone) == ("a", True)


def test_two_workers_on_one_machine_share_its_memory_so_a_trial_that_needs_more_is_tried_alone_instead_of_waiting_for_ever():
    made = dispatcher({"a": 40.0}, Slot("both", ("n", "n"), ("n",), 64.0))
    assert starts(made, 0) == {"a": "both"}


def gang_and_singles():
    """A gang on two devices, one of which has a slot of its own; each of the two can be gone without the other."""
    return Slot("pair", ("x", "y"), ("n", "m"), 80.0), Slot("single", ("x",), ("n",), 80.0), Slot("other", ("y",), ("m",), 80.0)


@pytest.mark.parametrize("left_over", [1, 2])
def test_what_a_gang_kept_free_for_a_trial_is_free_for_others_when_the_gang_has_left(left_over):
    pair, *singles = gang_and_singles()
    places = Places()
    for slot in [pair, *singles[:left_over]]:
        places.join(slot)
    assert places.hold("big") == "pair" and places.find(10.0) is None
    places.leave("pair")
    assert places.find(10.0) in {slot.name for slot in singles[:left_over]}
    assert places.hold("big") in {slot.name for slot in singles[:left_over]}, "and the trial finds another place to be alone"


def test_the_devices_of_a_trial_that_runs_alone_stay_its_own_when_an_idle_slot_beside_it_leaves():
    places = Places()
    for slot in (LARGE, LARGE_TOO):
        places.join(slot)
    slot = places.hold("a")
    places.take(slot, None)
    places.leave(({"large", "large too"} - {slot}).pop())
    places.join(Slot("third", ("l",), ("large node",), 80.0))
    assert places.find(1.0) is None
    places.release(slot)
    places.let_go("a")
    assert places.find(1.0) is not None


def test_a_trial_that_was_lost_goes_to_another_node_also_where_its_last_one_has_several_free_devices():
    places = Places()
    for gpu in range(3):
        places.join(Slot(f"last {gpu}", (f"last/{gpu}",), ("last",), 80.0))
    places.join(Slot("other", ("other/0",), ("other",), 40.0))
    assert places.find(10.0, not_on="last") == "other"
    places.take("other", 10.0)
    assert places.find(10.0, not_on="last") in {"last 0", "last 1", "last 2"}, "better there than nowhere"
