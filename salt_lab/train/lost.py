"""Errors between the workers of one trial: one that is gone, and one's own error that another has to report."""

from __future__ import annotations

from typing import NamedTuple

import salt_lab.errors as errors
from salt_lab.errors import SaltLabError, TrialFailed
from salt_lab.record.lock import TrialBusy

#: What can be said of a worker that nobody saw die.
NO_WORD = "worker {} of {} ended without a word (killed, or its machine went down)"


class WorkerLost(SaltLabError):
    """A worker ended without a word (killed, or its machine went down). No fault of the trial's: it goes on from its last checkpoint."""


class PortTaken(SaltLabError):
    """Another program listens on the port that was to be the workers' meeting place: choose another and start them again."""


class FarTraceback(Exception):
    """The end of a traceback in another process, as the cause of the error that stands for it here."""


class Word(NamedTuple):
    """How it ended for one worker."""

    state: str  #: "done", "stopped", "interrupted", "failed"; "echo" for an error that only says that another worker is gone
    kind: str = ""  #: the error's class
    text: str = ""
    tail: str = ""  #: end of its traceback

    def as_error(self, before: str = "") -> BaseException:
        """The error again, in this process, its text led by ``before``."""
        error = error_of(self.kind, before + self.text)
        error.__cause__ = FarTraceback(self.tail) if self.tail else None
        return error


def error_of(kind: str, text: str) -> BaseException:
    """The lab's own error of this class, or TrialFailed for any other."""
    between: dict[str, type[BaseException]] = {each.__name__: each for each in (WorkerLost, PortTaken, TrialBusy, KeyboardInterrupt)}
    return between[kind](text) if kind in between else getattr(errors, kind, TrialFailed)(text)
