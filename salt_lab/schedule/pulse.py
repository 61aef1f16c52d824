"""Which of the running trials have not given a sign of life for too long. Pure: the caller reads the heartbeats and the clock."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Pulse:
    """Watches heartbeats: a sign is that the heartbeat *changes*, so clocks that differ between machines do no harm.

    Args:
        patience: seconds without a sign after which a trial is taken to hang.
    """

    patience: float
    _last: dict[str, tuple[float | None, float]] = field(default_factory=dict)

    def started(self, trial_id: str, now: float, mark: float | None = None) -> None:
        """The trial starts; ``mark`` is what its heartbeat says already, from an earlier attempt."""
        self._last[trial_id] = (mark, now)

    def ended(self, trial_id: str) -> None:
        """The trial runs no more."""
        self._last.pop(trial_id, None)

    def seen(self, trial_id: str, mark: float | None, now: float) -> None:
        """The heartbeat says ``mark`` (its file's modification time), None where there is none yet."""
        if trial_id in self._last and mark != self._last[trial_id][0]:
            self._last[trial_id] = (mark, now)

    def silent(self, now: float) -> list[str]:
        """Trials that have given no sign for longer than the patience."""
        return [trial_id for trial_id, (_, since) in self._last.items() if now - since > self.patience]
