"""Which trial starts where and when, and what becomes of one whose worker died. Pure: no Ray, no clock of its own, decisions as plain data.

The rules **(ours)**:

- Longest trials first where durations are known (the last one to end decides when the study ends), else in the order of the study. A trial that
  was lost goes first: part of it is done.
- A trial takes a slot, and of its device's memory what it was measured to need (an equal share where that is unknown).
- A trial that needs more than any slot has is tried alone on the largest, and says so if that fails. A slot that left counts for another
  :attr:`Policy.away_seconds`: it may only restart. What joins before the trial starts, and is large enough, is used instead.
- A death from outside (killed, node lost, preempted, hung) is forgiven :attr:`Policy.max_deaths` times per trial; an error of its own is not
  tried again; one that ran out of memory is, with the largest device or node to itself: once, and again (as often) if there is a larger one.
- A node that loses trials again and again gets none for a while, if there are others.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from salt_lab.schedule.decisions import WORDS, Death, Need, Policy, Start, State, Verdict
from salt_lab.schedule.places import Places, Slot

#: Needs are rounded up to this, so that trials of one kind stand in one queue, GiB.
MEMORY_STEP = 0.25
#: The queue of trials whose need is unknown.
UNKNOWN = -1.0


@dataclass
class Dispatcher:
    """The queue of a launch.

    Args:
        trial_ids: the trials, in the order of the study.
        need_of: what is known about a trial.
        policy: the limits.

    Times are seconds of any clock that only goes forward.
    """

    trial_ids: Sequence[str]
    need_of: Callable[[str], Need] = lambda trial_id: Need()
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        self.places = Places(self.policy.avoid_after, self.policy.avoid_seconds, self.policy.away_seconds)
        self._trials = {name: State(order, self.need_of(name)) for order, name in enumerate(dict.fromkeys(self.trial_ids))}
        known = [state.need.seconds for state in self._trials.values() if state.need.seconds is not None]
        self._usual = sum(known) / len(known) if known else 0.0
        self._queues: dict[float, list[tuple[float, int, str]]] = {}
        self._needs: list[float] = []  # keys of the queues, rising
        self._on: dict[str, str] = {}
        self._alone: deque[str] = deque()
        self._parked: list[tuple[float, str]] = []
        self._left = len(self._trials)
        for name in self._trials:
            self._enqueue(name)

    @property
    def finished(self) -> bool:
        """Has every trial ended, for this launch?"""
        return self._left == 0

    @property
    def unfinished(self) -> list[str]:
        """Trials that wait or run."""
        return [name for name, state in self._trials.items() if state.end is None]

    @property
    def waiting(self) -> int:
        """How many trials neither run nor have ended."""
        return self._left - len(self._on)

    @property
    def left_over(self) -> int:
        """How many trials wait or run."""
        return self._left

    @property
    def running(self) -> list[str]:
        """The trials that run."""
        return list(self._on.values())

    def slot_of(self, trial_id: str) -> str | None:
        """Where a trial runs."""
        return self._trials[trial_id].slot

    def on(self, slot: str) -> str | None:
        """The trial that runs there."""
        return self._on.get(slot)

    def joined(self, slot: Slot) -> None:
        """A slot can be used from now on."""
        self.places.join(slot)

    def left(self, slot: str) -> None:
        """A slot on which no trial runs cannot be used any more."""
        self.places.leave(slot)

    def next_starts(self, now: float) -> list[Start]:
        """What to start now; each counts as running from here on."""
        self.places.look_at_the_clock(now)
        while self._parked and self._parked[0][0] <= now:
            self._enqueue(heapq.heappop(self._parked)[1], first=False)
        return self._start_alone() + self._start_shared()

    def _start_shared(self) -> list[Start]:
        """From the first trial of all queues on; one that finds no room lets smaller ones pass. Queues, not trials, are looked through."""
        starts, too_large = list[Start](), list[tuple[float, int, str]]()
        if not self.places.slots:
            return starts
        for queue in reversed(self._needs):
            if self._can_be_held(queue, too_large):
                break  # and so can those of smaller needs
        heads = [(trials[0], queue) for queue, trials in self._queues.items() if trials]
        heapq.heapify(heads)
        while heads:
            (_, _, name), queue = heapq.heappop(heads)
            trial = self._trials[name]
            slot = self.places.find(trial.need.memory_gb, not_on=trial.last_node)
            if slot is not None:
                starts.append(self._start(name, slot))
                heapq.heappop(self._queues[queue])
                if self._can_be_held(queue, too_large):
                    heapq.heappush(heads, (self._queues[queue][0], queue))
            elif queue != UNKNOWN:
                largest = self._largest_with_room(queue)
                heads = [head for head in heads if head[1] <= largest]
                heapq.heapify(heads)
        self._alone.extend(name for *_, name in sorted(too_large))  # they shall try alone, and say so if that fails
        return starts

    def _can_be_held(self, queue: float, too_large: list[tuple[float, int, str]]) -> bool:
        """Would the queue's first trial fit on some device if that were empty? Those before it move to ``too_large``. False: it is empty."""
        trials = self._queues[queue]
        while trials and not self.places.ever_fits(self._trials[trials[0][2]].need.memory_gb or 0):
            too_large.append(heapq.heappop(trials))
        return bool(trials)

    def _largest_with_room(self, below: float) -> float:
        """The queue of the largest known need below this one whose first trial finds room now; what fits, smaller ones fit too."""
        known = [queue for queue in self._needs[: bisect.bisect_left(self._needs, below)] if queue > UNKNOWN and self._queues[queue]]
        fits = bisect.bisect_left(known, True, key=lambda queue: self._finds_none(self._queues[queue][0][2]))
        return known[fits - 1] if fits else UNKNOWN

    def _finds_none(self, trial_id: str) -> bool:
        return self.places.find(self._trials[trial_id].need.memory_gb) is None

    def ended(self, trial_id: str, state: str, now: float) -> None:
        """A trial's worker is free again. ``state`` as in the record; "busy" = another process has the trial, so it is offered again."""
        trial = self._trials[trial_id]
        self._free(trial_id)
        if state == "busy":
            trial.busy_since = now if trial.busy_since is None else trial.busy_since
            if now < trial.busy_since + self.policy.busy_patience:
                heapq.heappush(self._parked, (now + self.policy.busy_pause, trial_id))
                return
        self._end(trial_id, state)

    def died(self, trial_id: str, kind: Death, now: float) -> Verdict:
        """A trial was lost with its worker (or, ``oom``, by its own error). Report the slot with :meth:`left` where it is gone too."""
        trial = self._trials[trial_id]
        slot = self.places.slots[trial.slot] if trial.slot else None
        if kind == "oom":
            return self._out_of_memory(trial_id)
        if slot is not None:
            self.places.lost_on(slot.nodes, now, times=self.policy.avoid_after if kind == "preempted" else 1)
        trial.last_node = slot.nodes[0] if slot else None
        trial.deaths += 1
        self._free(trial_id)
        if trial.deaths > self.policy.max_deaths:
            self._end(trial_id, "failed")
            return Verdict(False, f"{WORDS[kind]}; that was death {trial.deaths}, and {self.policy.max_deaths} are forgiven: see train.log")
        self._enqueue(trial_id, first=True)
        return Verdict(True, f"{WORDS[kind]} (death {trial.deaths}, {self.policy.max_deaths} are forgiven)")

    def given_back(self, trial_id: str) -> None:
        """A start that came to nothing, e.g. because the slot was gone by then: the trial waits again, and nothing is counted."""
        self._free(trial_id)
        self._enqueue(trial_id, first=True)

    def can_try_alone(self, trial_id: str) -> bool:
        """Would a trial that ran out of memory have more of it alone? Not if it had the largest devices to itself."""
        trial = self._trials[trial_id]
        if trial.slot is None or trial.out_of_memory > self.policy.max_deaths:
            return False
        return self.places.has_larger(trial.slot) or (not trial.alone and self.places.shared(trial.slot))

    def _out_of_memory(self, trial_id: str) -> Verdict:
        trial = self._trials[trial_id]
        again = not trial.out_of_memory or self.can_try_alone(trial_id)
        trial.out_of_memory += 1
        self._free(trial_id)
        if not again:
            self._end(trial_id, "failed")
            return Verdict(False, f"{WORDS['oom']}, also with nothing else on its device: make it smaller (schedule.batch, image_size)")
        self._enqueue(trial_id)
        return Verdict(True, f"{WORDS['oom']}; it is tried once more with nothing else on its device")

    def _start_alone(self) -> list[Start]:
        starts = []
        for _ in range(len(self._alone)):
            name = self._alone.popleft()
            trial = self._trials[name]
            if not trial.out_of_memory and self.places.ever_fits(trial.need.memory_gb or 0):  # by now
                self.places.let_go(name)
                self._enqueue(name, first=trial.deaths > 0)
            elif (slot := self.places.hold(name)) is None:
                self._alone.append(name)
            else:
                trial.alone = True
                starts.append(self._start(name, slot))
        return starts

    def _start(self, trial_id: str, slot: str) -> Start:
        trial = self._trials[trial_id]
        trial.slot, self._on[slot] = slot, trial_id
        self.places.take(slot, trial.need.memory_gb)
        return Start(trial_id, slot, trial.alone)

    def _free(self, trial_id: str) -> None:
        trial = self._trials[trial_id]
        if trial.slot is not None:
            self.places.release(trial.slot)
            del self._on[trial.slot]
            trial.slot = None
        if trial.alone:
            self.places.let_go(trial_id)
            trial.alone = False

    def _end(self, trial_id: str, state: str) -> None:
        self._trials[trial_id].end = state
        self._left -= 1

    def _enqueue(self, trial_id: str, first: bool = False) -> None:
        trial = self._trials[trial_id]
        if trial.out_of_memory:
            self._alone.append(trial_id)
            return
        memory = trial.need.memory_gb
        queue = UNKNOWN if memory is None else math.ceil(memory / MEMORY_STEP) * MEMORY_STEP
        length = math.inf if first else self._usual if trial.need.seconds is None else trial.need.seconds
        if queue not in self._queues:
            self._queues[queue] = []
            bisect.insort(self._needs, queue)
        heapq.heappush(self._queues[queue], (-length, trial.order, trial_id))
