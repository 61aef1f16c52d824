"""One way to stop: Ctrl-C and SIGTERM both arrive as a KeyboardInterrupt in the main thread, and leave a mark that they did."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: SIGTERM is how schedulers (``ray job stop``, Slurm, ``timeout``, container stop) ask for an end.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Has somebody asked for an end? ``signal_name`` says how, e.g. ``"SIGTERM"``, or why; it is None while nobody has."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __bool__(self) -> bool:
        return self.signal_name is not None

    def raise_if_asked(self) -> None:
        """Raise the KeyboardInterrupt that a library may have swallowed (it can arrive inside a ``__del__`` or a C callback)."""
        if self:
            raise KeyboardInterrupt(self.signal_name)


_reason: str | None = None


def interrupt_for(reason: str) -> None:
    """Send SIGTERM to this process, from any thread; what it interrupts is told ``reason`` instead of the signal's name."""
    global _reason
    _reason = reason
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def signals_as_interrupt() -> Iterator[Interrupt]:
    """While open, SIGINT and SIGTERM raise KeyboardInterrupt in the main thread; the former handlers return at the end.

    A signal that the process was started to ignore (a shell's ``command &`` ignores SIGINT) stays ignored. Outside the main thread Python
    allows no handlers, so nothing is changed there.

    Yields:
        The mark: an :class:`Interrupt` that is true once a signal has arrived.
    """
    global _reason
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def handle(number: int, frame: FrameType | None) -> None:
        interrupt.signal_name = _reason if _reason and number == signal.SIGTERM else signal.Signals(number).name
        raise KeyboardInterrupt(interrupt.signal_name)

    former = {s: signal.signal(s, handle) for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
    try:
        yield interrupt
    finally:
        _reason = None
        for number, handler in former.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
