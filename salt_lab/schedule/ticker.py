"""A heartbeat beside the work: call a function about once a second from a thread of its own, and once more at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Ticker:
    """Call ``on_tick`` every ``period`` seconds while the ``with`` block runs, never twice at the same time, and a last time after it.

    The work stays in the calling thread, where signals arrive. An error of ``on_tick`` does not stop the work: ticking ends, and the
    error is raised when the work is over, unless the work raised one of its own.

    Args:
        on_tick: Called without arguments from the ticker's thread; the last call comes from the thread that leaves the block.
        period: Seconds from the end of one call to the start of the next.
    """

    def __init__(self, on_tick: Callable[[], None], period: float = 1.0) -> None:
        self._on_tick, self._period = on_tick, period
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._loop, name="salt-lab-ticker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._tick()
        if self._error is not None and error is None:
            raise self._error

    def _loop(self) -> None:
        while self._error is None and not self._stop.is_set():
            self._tick()
            self._stop.wait(self._period)

    def _tick(self) -> None:
        if self._error is None:
            try:
                self._on_tick()
            except Exception as error:  # kept, and raised when the work is over
                self._error = error
