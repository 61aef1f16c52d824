"""From the views of a study's trials to its numbers: counts, and an honest guess of what is left. Pure; nothing is drawn here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from salt_lab.schedule.watch import TrialView


@dataclass(frozen=True)
class StudyNumbers:
    """The state of a study at one moment. ``seconds_left`` is None while nothing allows an estimate."""

    done: int
    running: int
    failed: int
    interrupted: int
    waiting: int
    seconds_left: float | None
    rows: tuple[TrialView, ...]
    stopped: int = 0

    @property
    def total(self) -> int:
        """All trials of the study's launch."""
        return self.done + self.stopped + self.running + self.failed + self.interrupted + self.waiting


def study_numbers(views: Sequence[TrialView], now: float, width: int = 1) -> StudyNumbers:
    """Count the trials and estimate what is left.

    A trial that waits is taken to last as long as the mean of those that are done, were stopped early, or run (each at its own pace); what is
    left is shared by ``width`` trials at a time, but the longest running trial must end in any case.

    Args:
        views: One per trial.
        now: Unix seconds.
        width: Trials at a time; at least as many as run now are assumed.
    """
    counts = Counter(view.state for view in views)
    running = tuple(view for view in views if view.state == "running")
    return StudyNumbers(
        done=counts["done"],
        running=len(running),
        failed=counts["failed"],
        interrupted=counts["interrupted"],
        waiting=counts["waiting"],
        seconds_left=_seconds_left(views, running, now, width),
        rows=running,
        stopped=counts["stopped"],
    )


def _seconds_left(views: Sequence[TrialView], running: Sequence[TrialView], now: float, width: int) -> float | None:
    waiting = sum(view.state == "waiting" for view in views)
    if not waiting and not running:
        return 0.0
    left = {view.trial_id: view.seconds_left(now) for view in running}
    lengths = [view.seconds(now) for view in views if view.state in ("done", "stopped") and view.started is not None]
    lengths += [view.seconds(now) + rest for view in running if (rest := left[view.trial_id]) is not None]
    if not lengths:
        return None
    mean = sum(lengths) / len(lengths)
    rests = [rest if rest is not None else max(0.0, mean - view.seconds(now)) for view in running for rest in [left[view.trial_id]]]
    lanes = min(max(width, len(running), 1), waiting + len(running))
    return max((sum(rests) + waiting * mean) / lanes, max(rests, default=0.0))


def duration(seconds: float | None) -> str:
    """Seconds for people.

    >>> duration(8), duration(75), duration(7260), duration(None)
    ('8s', '1m15s', '2h01m', '?')
    """
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
