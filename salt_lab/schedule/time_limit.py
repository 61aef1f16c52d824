"""A launch that ends by itself after some time, in order: machines that are lent by the minute, queues with short slots."""

from __future__ import annotations

import re
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from salt_lab.errors import UserError
from salt_lab.schedule.estimate import duration
from salt_lab.schedule.interrupts import Interrupt, interrupt_for, signals_as_interrupt
from salt_lab.train.stop import STOP

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from typing_extensions import Self

#: With less time left than this no trial is started: it takes as long to build the model **(ours)**. Of short limits, a tenth.
LEAST_SECONDS, LEAST_SHARE = 20.0, 0.1
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """Read a length of time: ``90s``, ``9m``, ``1.5h``, ``1h30m``; a bare number is seconds.

    >>> seconds_of("9m"), seconds_of("1h30m"), seconds_of("45")
    (540.0, 5400.0, 45.0)

    Raises:
        UserError: it is none, or not above 0.
    """
    word = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", word)
    if re.fullmatch(r"\d+(\.\d+)?", word):
        seconds = float(word)
    elif parts and "".join(number + unit for number, unit in parts) == word:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        raise UserError(f"'{text}' is no length of time: write 90s, 9m or 1h30m")
    if seconds <= 0:
        raise UserError(f"'{text}': a time limit must be above 0")
    return seconds


class TimeLimit:
    """Ends the work of its ``with`` block, as Ctrl-C would, when its time is over: KeyboardInterrupt in the main thread.

    A training takes the step at hand to its end and keeps a checkpoint, so nothing is lost; that takes some seconds beyond the limit. Open it
    in the main thread.

    Args:
        seconds: How long, from now on.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._ends = seconds, time.monotonic() + seconds
        self._over = threading.Event()
        self._signals: AbstractContextManager[Interrupt] = signals_as_interrupt()

    @property
    def over(self) -> bool:
        """Is the time over, or has :meth:`check_room` said that too little is left?"""
        return self._over.is_set()

    @property
    def words(self) -> str:
        """For people: ``time limit of 9m00s``."""
        return f"time limit of {duration(self.seconds)}"

    def check_room(self) -> None:
        """Is there time to start a trial?

        Raises:
            KeyboardInterrupt: less than :data:`LEAST_SECONDS` are left, or a tenth of the limit where that is less.
        """
        if self._ends - time.monotonic() < min(LEAST_SECONDS, LEAST_SHARE * self.seconds):
            self._over.set()
            raise KeyboardInterrupt(self.words)

    def end(self) -> None:
        """The time is over, from any thread: a training ends after its step, and anything else at once."""
        self._over.set()
        if STOP.stepping:
            STOP.ask(self.words)
        else:  # should an epoch begin before the signal arrives, its handler asks in the same way
            interrupt_for(self.words)

    def __enter__(self) -> Self:
        self._signals.__enter__()
        self._timer = threading.Timer(max(0.0, self._ends - time.monotonic()), self.end)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        self._signals.__exit__(kind, error, trace)
