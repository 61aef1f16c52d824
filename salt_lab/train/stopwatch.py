"""Timing a calibration's steps on a machine where other work may run: seconds without those that the kernel gave to others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

#: Steps before the clock starts: the first ones allocate, and choose algorithms on a GPU.
WARM_UP = 2
LEAST_STEPS, MOST_STEPS = 3, 50


class Enough(Exception):
    """Ends the training loop of a calibration."""


class Clock:
    """Wall time in laps, without what this process spent runnable but waiting for a core that others had.

    The kernel counts that (``/proc/self/schedstat``, of the main thread); where it does not, laps are plain wall time. ``stolen`` is the share of
    all laps so far that others took.
    """

    def __init__(self) -> None:
        self._mark, self._queued = time.perf_counter(), queued_seconds()
        self._wall = self._lost = 0.0

    def lap(self) -> float:
        """Seconds since the last one."""
        now, queued = time.perf_counter(), queued_seconds()
        wall, lost = now - self._mark, queued - self._queued
        self._mark, self._queued = now, queued
        self._wall, self._lost = self._wall + wall, self._lost + lost
        return max(wall - lost, 0.0)

    @property
    def stolen(self) -> float:
        """0 on a quiet machine; 0.5 where others had the core half of the time."""
        return self._lost / self._wall if self._wall else 0.0


def queued_seconds() -> float:
    """Seconds for which this process's main thread has waited for a core so far; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def stopwatch(budget_s: float, device: Any) -> Any:
    """An mmengine hook that times each step, from the end of the one before (so loading counts), and raises :class:`Enough`.

    Its ``seconds`` are the timed steps without warm-up, ``built`` the clock when the first began. It stops after ``budget_s`` seconds and
    :data:`LEAST_STEPS`, or :data:`MOST_STEPS`.
    """
    from mmengine.hooks import Hook

    class Stopwatch(Hook):
        priority = "LOWEST"

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.warm, self.began = 0, 0.0
            self.clock = Clock()

        def before_train_epoch(self, runner: Any) -> None:
            self.clock.lap()
            self.began = self.began or time.perf_counter()

        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            wait(device)
            lap = self.clock.lap()
            self.warm += 1
            if self.warm <= WARM_UP:
                self.clock = Clock()
                return
            self.seconds.append(lap)
            late = time.perf_counter() - self.began > budget_s and len(self.seconds) >= LEAST_STEPS
            if late or len(self.seconds) >= MOST_STEPS:
                raise Enough

    return Stopwatch()


def wait(device: Any) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
