"""Drawing a study's numbers: a live panel for terminals, plain lines for everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from salt_lab.schedule.estimate import StudyNumbers, duration
from salt_lab.schedule.watch import TrialView

if TYPE_CHECKING:
    from rich.console import Console, Group

#: Seconds between two summary lines where there is no terminal.
SUMMARY_EVERY = 30.0


def number(value: float | None, digits: int) -> str:
    """``value`` with ``digits`` decimals, or a dash where there is none yet."""
    return "-" if value is None else f"{value:.{digits}f}"


class News:
    """Remembers how the trials were, to tell which have started or ended since."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[str, float | None]] = {}

    def of(self, views: Sequence[TrialView]) -> list[TrialView]:
        """The trials that have started or ended since the last call; one that did both is told once, as ended."""
        states = {view.trial_id: (view.state, view.started) for view in views}
        known, self._states = self._states, states
        return [view for view in views if view.state != "waiting" and states[view.trial_id] != known.get(view.trial_id)]


class PlainLines:
    """For pipes, logs and jobs: a line when a trial starts or ends, and a summary every half minute; no control characters."""

    def __init__(self, console: Console, name: Callable[[str], str]) -> None:
        self._console, self._name, self._news = console, name, News()
        self._last_line: float | None = None

    def open(self) -> None:
        """Nothing to open: lines are printed as they come."""

    def close(self) -> None:
        """Nothing to close."""

    def show(self, views: Sequence[TrialView], numbers: StudyNumbers, now: float) -> None:
        """Print what differs from the last call."""
        for view in self._news.of(views):
            self._say(now, event_line(view, self._name(view.trial_id), numbers))
        if self._last_line is None:
            self._last_line = now
        if numbers.running and now - self._last_line >= SUMMARY_EVERY:
            self._say(now, summary_line(numbers, self._name, now))

    def _say(self, now: float, text: str) -> None:
        self._last_line = now
        say(self._console, now, text)


def say(console: Console, now: float, text: str) -> None:
    """A line with its time of day, without wrapping or markup."""
    stamp = datetime.fromtimestamp(now).strftime("%H:%M:%S")
    console.print(f"{stamp} {text}", markup=False, highlight=False, soft_wrap=True)


def event_line(view: TrialView, name: str, numbers: StudyNumbers) -> str:
    """What happened to a trial: ``"done     host=atss salt=on seed=0: AP 31.2 in 4m10s (3 of 12 ended)"``."""
    if view.state == "running":
        resumed = f" from epoch {view.first_epoch}" if view.first_epoch else ""
        return f"running  {name}{resumed}"
    told = f"AP {number(view.ap, 1)} in {duration(view.seconds(0))}" if view.state == "done" else (view.reason or "no reason given")
    ended = numbers.done + numbers.stopped + numbers.failed + numbers.interrupted
    return f"{view.state:<8} {name}: {told} ({ended} of {numbers.total} ended)"


def summary_line(numbers: StudyNumbers, name: Callable[[str], str], now: float) -> str:
    """Where the study stands: the counts, the time left, and each running trial's epoch, loss and AP."""
    rows = "; ".join(f"{name(r.trial_id)} epoch {r.epoch}/{r.epochs} loss {number(r.loss, 3)} AP {number(r.ap, 1)}" for r in numbers.rows)
    return f"{counts(numbers)}, about {duration(numbers.seconds_left)} left | {rows}"


def counts(numbers: StudyNumbers) -> str:
    """The counts in words; trials stopped early and interrupted ones are named only where there are any."""
    parts = [f"{numbers.done}/{numbers.total} done"]
    parts += [f"{numbers.stopped} stopped early"] if numbers.stopped else []
    parts += [f"{numbers.running} running", f"{numbers.failed} failed"]
    parts += [f"{numbers.interrupted} interrupted"] if numbers.interrupted else []
    return ", ".join([*parts, f"{numbers.waiting} waiting"])


class LivePanel:
    """For terminals: a line per trial that has ended; below them, redrawn in place, a bar and a row per running trial."""

    def __init__(self, console: Console, name: Callable[[str], str]) -> None:
        from rich.live import Live

        self._console, self._name, self._news = console, name, News()
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def open(self) -> None:
        """Take over the lower part of the terminal."""
        self._live.start()

    def close(self) -> None:
        """Leave the last picture and give the terminal back."""
        self._live.stop()

    def show(self, views: Sequence[TrialView], numbers: StudyNumbers, now: float) -> None:
        """Say who has ended, and redraw."""
        for view in self._news.of(views):
            if view.state != "running":
                say(self._console, now, event_line(view, self._name(view.trial_id), numbers))
        self._live.update(panel(numbers, self._name, now), refresh=True)


def panel(numbers: StudyNumbers, name: Callable[[str], str], now: float) -> Group:
    """The picture for a terminal: a bar, the counts, and a table of the running trials."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    ended = numbers.done + numbers.stopped + numbers.failed + numbers.interrupted + sum(row.fraction for row in numbers.rows)
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(numbers.total, 1), completed=ended, width=30)
    head.add_row(bar, f"{counts(numbers)}, {duration(numbers.seconds_left)} left")
    table = Table(box=None, pad_edge=False)
    for title in ("trial", "epoch", "loss", "AP", "left"):
        table.add_column(title, justify="left" if title == "trial" else "right", no_wrap=True)
    for row in numbers.rows:
        left = duration(row.seconds_left(now))
        table.add_row(Text(name(row.trial_id)), f"{row.epoch}/{row.epochs}", number(row.loss, 3), number(row.ap, 1), left)
    return Group(head, table) if numbers.rows else Group(head)
