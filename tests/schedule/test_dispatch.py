"""The dispatcher's rules, on a clock that costs nothing: who starts where, who is forgiven, and who has to run alone."""

from __future__ import annotations

import heapq
import random

import pytest

from salt_lab.schedule.dispatch import Dispatcher, Need, Policy
from salt_lab.schedule.places import Slot
from salt_lab.schedule.pulse import Pulse


def slots(nodes=1, gpus=1, per_gpu=1, memory_gb=None):
    """``per_gpu`` slots on each GPU of each node."""
    return [
        Slot(f"{node}/{gpu}/{one}", (f"{node}/{gpu}",), (f"{node}",), memory_gb)
        for node in range(nodes)
        for gpu in range(gpus)
        for one in range(per_gpu)
    ]


def dispatcher(trials, places=(), need_of=lambda name: Need(), **policy):
    made = Dispatcher(trials, need_of, Policy(**policy))
    for slot in places:
        made.joined(slot)
    return made


def started(made, now=0.0):
    return [start.trial_id for start in made.next_starts(now)]


def test_trials_start_in_the_order_of_the_study_as_slots_come_and_each_once():
    made = dispatcher("abc")
    assert started(made) == []
    for slot in slots(gpus=2):
        made.joined(slot)
    assert started(made) == ["a", "b"] and started(made) == []
    made.ended("a", "done", 1.0)
    assert started(made) == ["c"]
    made.ended("c", "failed", 2.0)
    assert made.unfinished == ["b"] and not made.finished
    made.ended("b", "done", 3.0)
    assert made.finished and started(made) == []


def test_longest_trials_go_first_and_one_of_unknown_length_counts_as_the_mean():
    lengths = {"short": 1.0, "long": 9.0, "unknown": None, "middle": 5.5}
    made = dispatcher(lengths, slots(gpus=4), lambda name: Need(seconds=lengths[name]))
    assert started(made) == ["long", "middle", "unknown", "short"]


@pytest.mark.parametrize("kind", ["killed", "node", "hang", "preempted"])
def test_deaths_from_outside_are_forgiven_so_often_and_then_the_trial_has_failed(kind):
    made = dispatcher("ab", slots(), max_deaths=3)
    for death in (1, 2, 3):
        assert started(made, death) == ["a"], "a trial that was lost goes before those that have not begun"
        verdict = made.died("a", kind, death)
        assert verdict.again and f"death {death}, 3 are forgiven" in verdict.reason
    assert started(made, 4) == ["a"]
    verdict = made.died("a", kind, 4)
    assert not verdict.again and "that was death 4" in verdict.reason
    assert started(made, 5) == ["b"]


def test_no_death_is_forgiven_where_none_shall_be():
    made = dispatcher("a", slots(), max_deaths=0)
    started(made)
    assert not made.died("a", "killed", 1).again and made.finished


def test_a_trial_that_ran_out_of_memory_is_tried_once_more_with_its_device_to_itself():
    made = dispatcher("abcdef", slots(gpus=2, per_gpu=2))
    assert started(made) == list("abcd")
    assert made.can_try_alone("a") and made.died("a", "oom", 1).again
    assert started(made, 1) == [], "its device is kept free"
    later = {start.trial_id: start for name in "bcd" for start in _end(made, name)}
    assert later["a"].alone and set(later) == {"a", "e", "f"}
    device = later["a"].slot.rsplit("/", 1)[0]
    assert all(later[name].slot.rsplit("/", 1)[0] != device for name in "ef")
    verdict = made.died("a", "oom", 9)
    assert not verdict.again and "also with nothing else on its device" in verdict.reason


def _end(made, name):
    made.ended(name, "done", 2.0)
    return made.next_starts(2.0)


def test_alone_means_alone_until_it_has_ended_and_then_the_device_is_shared_again():
    made = dispatcher("abcd", slots(per_gpu=2))
    assert started(made) == ["a", "b"]
    made.died("a", "oom", 1)
    assert started(made, 1) == [], "b still runs there"
    made.ended("b", "done", 2)
    assert started(made, 2) == ["a"] and started(made, 3) == []
    made.ended("a", "done", 4)
    assert started(made, 4) == ["c", "d"]


def test_a_trial_with_a_device_to_itself_has_nothing_to_gain_from_another_try():
    made = dispatcher("a", slots(gpus=2))
    started(made)
    assert not made.can_try_alone("a")


def test_trials_share_a_device_by_the_memory_that_they_need_and_small_ones_go_around_large_ones():
    need = {"large": 50.0, "large too": 50.0, "small": 20.0, "tiny": 10.0, "small too": 20.0}
    made = dispatcher(need, slots(per_gpu=4, memory_gb=80.0), lambda name: Need(memory_gb=need[name]))
    assert started(made) == ["large", "small", "tiny"]
    made.ended("large", "done", 1)
    assert started(made, 1) == ["large too"]
    made.ended("small", "done", 2)
    assert started(made, 2) == ["small too"]


def test_trials_of_unknown_need_take_an_equal_share():
    need = {"known": 60.0, "a": None, "b": None}
    made = dispatcher(need, slots(per_gpu=4, memory_gb=80.0), lambda name: Need(memory_gb=need[name]))
    assert started(made) == ["known", "a"]


def test_a_slot_that_joins_while_a_trial_of_unknown_need_runs_can_be_used():
    first, second = slots(per_gpu=2, memory_gb=80.0)
    made = dispatcher("ab", [first])
    assert started(made) == ["a"]
    made.joined(second)
    assert started(made) == ["b"]


def test_a_trial_that_needs_more_than_any_device_has_is_tried_alone_instead_of_waiting_for_ever():
    made = dispatcher("ab", slots(per_gpu=2, memory_gb=80.0), lambda name: Need(memory_gb=100.0 if name == "a" else 10.0))
    first = made.next_starts(0)
    assert [start.trial_id for start in first] == ["b"]
    made.ended("b", "done", 1)
    (start,) = made.next_starts(1)
    assert start.trial_id == "a" and start.alone


def test_the_device_with_the_most_room_is_taken_first():
    made = dispatcher("abcd", slots(gpus=2, per_gpu=2, memory_gb=80.0), lambda name: Need(memory_gb=30.0))
    assert sorted(start.slot[:3] for start in made.next_starts(0)[:2]) == ["0/0", "0/1"]


def test_a_node_that_loses_trials_again_and_again_gets_none_for_a_while_if_there_are_others():
    made = dispatcher(range(9), [Slot("bad", ("b",), ("b",)), Slot("good", ("g",), ("g",))], avoid_after=2, avoid_seconds=300)
    for now in (1, 2):
        starts = {start.slot: start.trial_id for start in made.next_starts(now)}
        made.died(starts["bad"], "killed", now)
        made.ended(starts["good"], "done", now)
    assert [start.slot for start in made.next_starts(3)] == ["good"]
    made.left("good")
    # the trial there is given back, and the last node is better than none
    made = dispatcher(range(3), [Slot("bad", ("b",), ("b",))], avoid_after=1)
    (start,) = made.next_starts(0)
    made.died(start.trial_id, "killed", 1)
    assert [start.slot for start in made.next_starts(2)] == ["bad"]


def test_an_avoided_node_is_taken_again_when_the_time_is_over():
    made = dispatcher(range(9), [Slot("bad", ("b",), ("b",)), Slot("good", ("g",), ("g",))], avoid_after=1, avoid_seconds=100)
    lost = {start.slot: start.trial_id for start in made.next_starts(0)}["bad"]
    made.died(lost, "node", 0)
    assert made.next_starts(50) == []
    assert [start.slot for start in made.next_starts(101)] == ["bad"]


def test_a_preempted_machine_gets_nothing_more_and_the_trial_goes_elsewhere():
    made = dispatcher("ab", [Slot("x", ("x",), ("x",)), Slot("y", ("y",), ("y",))])
    where = {start.trial_id: start.slot for start in made.next_starts(0)}
    made.died("a", "preempted", 1)
    assert started(made, 1) == []
    made.ended("b", "done", 2)
    assert [start.slot for start in made.next_starts(2)] == [where["b"]]


def test_a_slot_that_was_gone_before_its_trial_began_costs_the_trial_nothing():
    made = dispatcher("a", slots(gpus=2))
    (start,) = made.next_starts(0)
    made.given_back("a")
    made.left(start.slot)
    (again,) = made.next_starts(1)
    assert again.trial_id == "a" and again.slot != start.slot
    assert "death 1," in made.died("a", "killed", 2).reason


def test_a_trial_that_another_process_has_is_offered_again_for_a_while_and_others_go_first():
    made = dispatcher("ab", slots(), busy_patience=10, busy_pause=3)
    assert started(made, 0) == ["a"]
    made.ended("a", "busy", 0)
    assert started(made, 0) == ["b"]
    made.ended("b", "done", 1)
    assert started(made, 2) == [] and started(made, 3) == ["a"]
    made.ended("a", "busy", 11)
    assert made.finished and made.unfinished == []


def test_a_gang_takes_all_its_devices_and_fills_each_with_what_a_worker_needs():
    pair = Slot("pair", ("n/0", "n/1"), ("n",), 80.0)
    made = dispatcher("ab", [pair, Slot("single", ("n/0",), ("n",), 80.0)], lambda name: Need(memory_gb=50.0))
    assert len(made.next_starts(0)) == 1


def test_silence_is_measured_from_the_start_and_from_every_change_of_the_heartbeat():
    pulse = Pulse(patience=10)
    pulse.started("a", now=0, mark=5.0)
    pulse.seen("a", 5.0, now=8)
    assert pulse.silent(10) == [] and pulse.silent(11) == ["a"]
    pulse.seen("a", 1e9, now=11)  # the clock of another machine
    assert pulse.silent(21) == [] and pulse.silent(22) == ["a"]
    pulse.ended("a")
    assert pulse.silent(99) == []


class OneByOne(Dispatcher):
    """The rule in plain words: of all trials that wait, the first one that finds room; nothing is known beforehand, nothing left out."""

    def _start_shared(self):
        starts, blocked = [], set()
        while waiting := [(trials[0], queue) for queue, trials in self._queues.items() if trials and queue not in blocked]:
            (_, _, name), queue = min(waiting)
            trial = self._trials[name]
            slot = self.places.find(trial.need.memory_gb, not_on=trial.last_node)
            if slot is not None:
                starts.append(self._start(name, slot))
            elif self.places.slots and not self.places.ever_fits(trial.need.memory_gb or 0):
                self._alone.append(name)
            else:
                blocked.add(queue)
                continue
            heapq.heappop(self._queues[queue])
        return starts


@pytest.mark.parametrize("seed", range(8))
def test_leaving_out_what_cannot_fit_starts_the_same_trials_on_the_same_slots_at_the_same_times(seed):
    chance = random.Random(seed)
    names = [f"t{number}" for number in range(70)]
    needs = {name: Need(chance.choice([None, chance.uniform(0, 90), 8.0]), chance.choice([None, chance.uniform(1, 99)])) for name in names}
    places = [
        *slots(nodes=3, gpus=2, per_gpu=3, memory_gb=80.0),
        Slot("small", ("s",), ("s",), 24.0),
        Slot("pair", ("p", "q"), ("p",), 40.0),
    ]
    happens = {
        name: [chance.choice(["done"] * 6 + ["busy", "killed", "oom", "preempted"]) for _ in range(5)] + ["done"] * 9 for name in names
    }
    told = []
    for kind in (Dispatcher, OneByOne):
        made = kind(names, needs.__getitem__, Policy(busy_patience=30.0))
        told.append(_history(made, places, needs, {name: list(ends) for name, ends in happens.items()}))
    assert told[0] == told[1] and len(told[0]) > 70


def _history(made, places, needs, happens):
    """(time, trial, slot, alone) of every start. Half of the slots come later, and one that lost a trial is away for a while."""
    due = [(7.0 * number if number % 2 else 0.0, number, "joined", slot) for number, slot in enumerate(places)]
    count, history, now = len(places), [], 0.0
    heapq.heapify(due)
    while not made.finished:
        now, _, what, subject = heapq.heappop(due) if due else (now + 1.0, 0, "", None)
        if what == "joined":
            made.joined(subject)
        elif what in ("done", "busy"):
            made.ended(subject, what, now)
        elif what:
            slot = made.places.slots[made.slot_of(subject)]
            made.died(subject, what, now)
            if what != "oom":
                made.left(slot.name)
                heapq.heappush(due, (now + 25.0, count, "joined", slot))
                count += 1
        for start in made.next_starts(now):
            history.append((now, start.trial_id, start.slot, start.alone))
            ends = (now + (needs[start.trial_id].seconds or 20.0), count, happens[start.trial_id].pop(0), start.trial_id)
            heapq.heappush(due, ends)
            count += 1
    return history


def test_a_smaller_trial_passes_one_without_room_and_the_first_in_order_of_those_that_fit_goes():
    need = {"a": 50.0, "b": 45.0, "c": 40.0, "d": 25.0, "e": 20.0, "f": 29.0}
    made = dispatcher(need, slots(per_gpu=6, memory_gb=80.0), lambda name: Need(need[name]))
    assert started(made) == ["a", "d"], "30 GiB are left beside a: d is the first that fits, e and f have no room any more"


def simulate(made, lengths, deaths):
    """Run to the end; trials that start, by time. Every trial in ``deaths`` dies once half way."""
    events, now, starts, dead = [], 0.0, 0, set()
    while not made.finished:
        for start in made.next_starts(now):
            starts += 1
            dies = start.trial_id in deaths and start.trial_id not in dead
            heapq.heappush(events, (now + lengths[start.trial_id] * (0.5 if dies else 1), start.trial_id, dies))
        now, trial_id, dies = heapq.heappop(events)
        if dies:
            dead.add(trial_id)
            made.died(trial_id, deaths[trial_id], now)
        else:
            made.ended(trial_id, "done", now)
    return now, starts


def test_many_trials_keep_many_slots_busy_and_an_event_costs_few_looks_for_room_however_many_wait():
    chance = random.Random(0)
    lengths = {f"t{i}": chance.uniform(100, 2000) for i in range(2_000)}
    memory = {name: chance.choice([None, chance.uniform(5, 40)]) for name in lengths}
    deaths = {name: chance.choice(["killed", "node", "hang", "oom"]) for name in chance.sample(sorted(lengths), 40)}
    made = dispatcher(lengths, slots(nodes=12, gpus=8, per_gpu=2, memory_gb=80.0), lambda n: Need(memory[n], lengths[n]))
    looks, find = [], made.places.find
    made.places.find = lambda *args, **options: looks.append(args) or find(*args, **options)
    end, starts = simulate(made, lengths, deaths)
    assert starts == 2_040 and end < 1.15 * (sum(lengths.values()) * 1.01 / 192)
    queues = len({round(need) for need in memory.values() if need})
    assert len(looks) < 12 * starts < queues * starts, "about log2 of the queues, not one look for each"
