"""Asking a training to stop: the wish waits for the end of the step at hand, so that a checkpoint can be kept of a whole one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: How a terminal and a scheduler (Ray, Slurm, Kubernetes, ``timeout``) ask for an end.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """The wish to end after the step at hand: from SIGTERM or Ctrl-C while :meth:`watching`, or from another thread (:meth:`ask`).

    ``reason`` is None while nobody has asked. ``stepping`` says that an epoch is being trained: outside of one (while the model is built,
    while it is evaluated) nothing would be lost, so a signal ends the trial there and then. So does a second signal, at any time.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.stepping = False
        self._former: dict[int, Any] = {}

    def ask(self, reason: str) -> None:
        """Ask from any thread of this process, e.g. for a node that is about to go. Does nothing where no training watches."""
        self.reason = self.reason or reason

    @contextmanager
    def watching(self) -> Iterator[Stop]:
        """While open, the first SIGINT or SIGTERM amid an epoch asks, and any other does what it did before, or raises KeyboardInterrupt.

        Signals that the process was started to ignore stay ignored. Outside the main thread Python allows no handlers: only :meth:`ask`.
        """
        self.reason, self.stepping = None, False
        main = threading.current_thread() is threading.main_thread()
        wanted = [number for number in SIGNALS if main and signal.getsignal(number) is not signal.SIG_IGN]
        self._former = {number: signal.signal(number, self._handle) for number in wanted}
        try:
            yield self
        finally:
            for number, former in self._former.items():
                signal.signal(number, former if former is not None else signal.SIG_DFL)
            self.reason, self.stepping = None, False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.stepping and self.reason is None:
            self.reason = name
        elif callable(former := self._former.get(number)):
            former(number, frame)
        else:
            raise KeyboardInterrupt(name)


#: This process's; a process trains one model at a time.
STOP = Stop()
