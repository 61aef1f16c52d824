"""What the dispatcher is told, what it keeps of each trial and device, and what it decides, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Death = Literal["killed", "node", "oom", "hang", "preempted"]
#: How a death is told, in a journal and on the display.
WORDS: dict[Death, str] = {
    "killed": "its worker process was killed",
    "node": "the machine that it ran on was lost",
    "oom": "it ran out of memory",
    "hang": "it gave no sign of life and was killed",
    "preempted": "its machine asked it to leave (SIGTERM)",
}


@dataclass(frozen=True)
class Need:
    """What is known about a trial beforehand: memory of each of its workers (GiB) and its length (seconds); None = nothing."""

    memory_gb: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Policy:
    """The limits.

    Attributes:
        max_deaths: deaths from outside that a trial is forgiven; one more, and it has failed.
        avoid_after, avoid_seconds, away_seconds: see :class:`salt_lab.schedule.places.Places`.
        busy_patience: seconds that a trial is offered again after another process was found to have it.
        busy_pause: seconds between these offers.
    """

    max_deaths: int = 3
    avoid_after: int = 2
    avoid_seconds: float = 300.0
    away_seconds: float = 900.0
    busy_patience: float = 20.0
    busy_pause: float = 2.0


@dataclass(frozen=True)
class Start:
    """Start this trial on this slot now; ``alone`` = nothing else runs on its devices meanwhile."""

    trial_id: str
    slot: str
    alone: bool = False


@dataclass(frozen=True)
class Verdict:
    """What becomes of a trial that was lost: is it started again, and the reason in words for its journal."""

    again: bool
    reason: str


@dataclass
class State:
    """Where a trial of a launch stands. ``order``: its place in the study; ``end``: how it ended, None while it waits or runs."""

    order: int
    need: Need
    deaths: int = 0
    out_of_memory: int = 0
    slot: str | None = None
    alone: bool = False
    last_node: str | None = None
    busy_since: float | None = None
    end: str | None = None


@dataclass
class Device:
    """``workers`` that slots have there, trials ``running``, memory ``used`` by known needs, and running workers of ``unknown`` need."""

    memory_gb: float
    workers: int = 0
    running: int = 0
    used: float = 0.0
    unknown: int = 0
    held_for: str | None = None

    @property
    def share(self) -> float:
        """What a worker of unknown need is taken to use: an equal share, GiB."""
        return self.memory_gb / max(1, self.workers) if math.isfinite(self.memory_gb) else 0.0

    @property
    def room(self) -> float:
        """Memory that is left, GiB."""
        return self.memory_gb - self.used - self.unknown * self.share
