"""When a study would end: the launch's own decisions (:mod:`salt_lab.schedule.dispatch`), played through on a clock that costs nothing."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from salt_lab.schedule.decisions import Death, Need, Start
from salt_lab.schedule.dispatch import Dispatcher
from salt_lab.schedule.places import Slot

#: Seconds of the played clock after which it is asked again what to start, while nothing runs and nothing is due.
TICK = 10.0
#: So many ticks without anything to start or to wait for are for ever.
MAX_TICKS = 10_000


@dataclass(frozen=True)
class Place:
    """Where a study will run: the kind of machine, and what one trial of it takes there.

    Attributes:
        machine: see :func:`salt_lab.record.calibration.machine_kind`.
        slots: trials at a time, as far as cores and GPUs go.
        workers: processes of one trial.
        cpus: threads of one worker.
        gpus: GPUs of the whole trial; 0 = CPU, 0.5 = two share one.
        memory_gb: of the machine, or of one GPU, GiB; None = unknown, so it never stands in the way.
    """

    machine: str
    slots: int = 1
    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0
    memory_gb: float | None = None

    def places(self) -> list[Slot]:
        """One slot per trial at a time. On a CPU all share the machine's memory; a share of a GPU shares the GPU's."""
        return [Slot(f"slot {number}", self._devices(number), ("node",), self.memory_gb) for number in range(max(1, self.slots))]

    def _devices(self, number: int) -> tuple[str, ...]:
        if not self.gpus:
            return ("node",) * self.workers
        if self.gpus < 1:
            return (f"gpu {number // int(1 / self.gpus)}",)
        return tuple(f"gpu {number * self.workers + worker}" for worker in range(self.workers))


def finish_seconds(needs: Mapping[str, Need], place: Place) -> float:
    """Seconds from now to the end of the last trial, if nothing fails and nobody else is there.

    Args:
        needs: trial id -> memory and length of what is to be run, in the study's order; a length must be known.
        place: where.
    """
    return play(Dispatcher(list(needs), needs.__getitem__), place.places(), lambda start: Attempt(needs[start.trial_id].seconds or 0.0)).end


class Decides(Protocol):
    """What is asked of :class:`salt_lab.schedule.dispatch.Dispatcher`, or of any other way to choose, while a study is played."""

    @property
    def finished(self) -> bool:
        """Has every trial ended?"""

    def joined(self, slot: Slot) -> None:
        """A slot can be used."""

    def left(self, slot: str) -> None:
        """An idle slot is gone."""

    def next_starts(self, now: float) -> list[Start]:
        """What to start now."""

    def ended(self, trial_id: str, state: str, now: float) -> None:
        """A trial is done, or has failed."""

    def died(self, trial_id: str, kind: Death, now: float) -> Any:
        """A trial was lost with its worker."""

    def can_try_alone(self, trial_id: str) -> bool:
        """Would a trial that ran out of memory have more of it alone?"""


@dataclass(frozen=True)
class Attempt:
    """What becomes of a trial that is started.

    Attributes:
        seconds: from its start to its end, or to its death.
        death: None = it comes to its end. "oom" leaves the slot in place, as a trial's own error does; the others take the slot with them.
        away: seconds after a death until the slot is there again; ``math.inf`` = never.
    """

    seconds: float
    death: Death | None = None
    away: float = 0.0


@dataclass(frozen=True)
class Played:
    """A study that was played to its end: ``end`` of its last trial and slot seconds ``busy`` with trials, lost work included; ``starts``;
    ``events`` are ends, deaths and slots that came back."""

    end: float
    busy: float
    starts: int
    events: int


def play(decides: Decides, slots: Iterable[Slot], attempt: Callable[[Start], Attempt]) -> Played:
    """Play a study to its end, event by event, as :mod:`salt_lab.schedule.ray_loop` goes through a real one.

    Args:
        decides: what starts where.
        slots: there from the beginning.
        attempt: asked once at each start.

    Raises:
        RuntimeError: trials are left, nothing runs, and nothing is started for ever.
    """
    there = {slot.name: slot for slot in slots}
    for slot in there.values():
        decides.joined(slot)
    order, now, end, busy, starts, events, idle = itertools.count(), 0.0, 0.0, 0.0, 0, 0, 0
    due: list[
        tuple[float, int, str, str, Attempt | None]
    ] = []  # when, which came first, slot, trial and its attempt (None: the slot is back)
    while not decides.finished:
        for start in decides.next_starts(now):
            what = attempt(start)
            starts, busy, idle = starts + 1, busy + what.seconds, 0
            heapq.heappush(due, (now + what.seconds, next(order), start.slot, start.trial_id, what))
        if not due:
            now, idle = now + TICK, idle + 1
            if idle > MAX_TICKS:
                raise RuntimeError("trials are left that nothing starts, though nothing runs: no slot is there, or none is allowed")
            continue
        now, _, name, trial_id, happened = heapq.heappop(due)
        events += 1
        if happened is None:
            decides.joined(there[name])
            continue
        end = now
        _tell(decides, trial_id, happened.death, now)
        if happened.death not in (None, "oom"):
            decides.left(name)
            if happened.away < float("inf"):
                heapq.heappush(due, (now + happened.away, next(order), name, "", None))
    return Played(end, busy, starts, events)


def _tell(decides: Decides, trial_id: str, death: Death | None, now: float) -> None:
    if death is None or (death == "oom" and not decides.can_try_alone(trial_id)):
        decides.ended(trial_id, "done" if death is None else "failed", now)
    else:
        decides.died(trial_id, death, now)
