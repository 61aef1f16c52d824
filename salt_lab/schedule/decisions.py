"""What the dispatcher is told, what it keeps of each trial, and what it decides, as plain data."""

from __future__ import annotations

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
        avoid_after, avoid_seconds: see :class:`salt_lab.schedule.places.Places`.
        busy_patience: seconds that a trial is offered again after another process was found to have it.
        busy_pause: seconds between these offers.
    """

    max_deaths: int = 3
    avoid_after: int = 2
    avoid_seconds: float = 300.0
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
