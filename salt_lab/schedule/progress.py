"""One display for a running study, made from the journals alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from salt_lab.record.store import Store
from salt_lab.schedule.display import LivePanel, PlainLines
from salt_lab.schedule.estimate import StudyNumbers, study_numbers
from salt_lab.schedule.watch import JournalWatch

if TYPE_CHECKING:
    from rich.console import Console
    from typing_extensions import Self


class StudyProgress:
    """Shows how a study goes, from the journals only: a live panel on a terminal, else plain lines when something has changed.

    Use it as a context manager and call :meth:`update` about once a second.

    Args:
        store: The results folder.
        trial_ids: The trials of this launch, without those that were done before.
        names: A human name per trial id; the id serves where there is none.
        console: Where to print; None = standard output.
        launch_id: The launch whose work counts; None takes any launch's.
        width: Trials at a time, for the estimate; more are assumed once more have been seen.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        trial_ids: Sequence[str],
        names: Mapping[str, str],
        *,
        console: Console | None = None,
        launch_id: str | None = None,
        width: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        from rich.console import Console

        self.watch = JournalWatch(store, trial_ids, launch_id)
        self._names, self._clock, self._width = names, clock, width
        self._console = console or Console()
        self._display: LivePanel | PlainLines = (LivePanel if self._console.is_terminal else PlainLines)(self._console, self.name)

    def name(self, trial_id: str) -> str:
        """What the trial is called on the display."""
        return self._names.get(trial_id, trial_id)

    def __enter__(self) -> Self:
        self._display.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.update()
        self._display.close()

    def update(self) -> list[str]:
        """Read what has changed and show it; returns the ids of the trials whose journals have changed."""
        changed = self.watch.changed()
        self._display.show(self.watch.views(), self.numbers(), self._clock())
        return changed

    def numbers(self) -> StudyNumbers:
        """The numbers behind the display, as of the last :meth:`update`."""
        views = self.watch.views()
        self._width = max(self._width, sum(view.state == "running" for view in views))
        return study_numbers(views, self._clock(), self._width)
