"""When a study would end: the launch's own decisions (:mod:`salt_lab.schedule.dispatch`), played through with estimated durations."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from salt_lab.schedule.dispatch import Dispatcher, Need
from salt_lab.schedule.places import Slot


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
    dispatcher = Dispatcher(list(needs), needs.__getitem__)
    for slot in place.places():
        dispatcher.joined(slot)
    now, running = 0.0, list[tuple[float, str]]()
    while not dispatcher.finished:
        for start in dispatcher.next_starts(now):
            heapq.heappush(running, (now + (needs[start.trial_id].seconds or 0.0), start.trial_id))
        now, trial_id = heapq.heappop(running)
        dispatcher.ended(trial_id, "done", now)
    return now
