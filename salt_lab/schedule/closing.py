"""The last word of a trial that could not say it itself: it raised outside its own care, was stopped, or its process died."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from salt_lab.errors import StoreError
from salt_lab.record.provenance import provenance
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store, TrialBusy
from salt_lab.spec.trial import Trial, canonical
from salt_lab.train.early_stop import nothing_left

ENDS = ("done", "failed", "interrupted", "stopped")


class JournalClosing:
    """Writes how a trial ended, where the trial has not done so. Make it before the trial starts, use it when it has stopped.

    Args:
        store: The results folder.
        trial: The trial.
        trial_id: The name of its record.
        study: The study that is being run.
        launch_id: Its launch.
    """

    def __init__(self, store: Store, trial: Trial, trial_id: str, study: str, launch_id: str) -> None:
        self.store, self.trial, self.trial_id = store, trial, trial_id
        self._study, self._launch_id = study, launch_id
        self._before = len(store.journal(trial_id).read())
        self._unsaid: Callable[[], None] | None = None
        self.unsaid_reason = ""

    @property
    def owes(self) -> bool:
        """Is there a last word that could not be written (disk full)? :attr:`unsaid_reason` is its reason."""
        return self._unsaid is not None

    def settle(self) -> bool:
        """Try again to write the last word that could not be written; True when nothing is owed."""
        if self._unsaid is not None:
            try:
                self._unsaid()
            except (StoreError, OSError):
                return False
            self._unsaid = None
        return True

    @property
    def touched(self) -> bool:
        """Has the trial written anything since?"""
        return bool(self._new_events())

    @property
    def ended(self) -> bool:
        """Was there nothing left to train before, or has the latest attempt written its end since?"""
        return self._ended_by(ENDS)

    def _ended_by(self, ends: tuple[str, ...]) -> bool:
        events = self._new_events()
        attempt = events[max((i for i, event in enumerate(events) if event == "start"), default=0) :]
        over = nothing_left(self.store, self.trial_id, self._study, self._launch_id)
        return over or any(event in ends for event in attempt)

    def failed(self, reason: str, traceback_tail: str = "") -> None:
        """The trial failed for this reason, unless it has :attr:`ended` or another process has it now."""
        self._close(lambda recorder: recorder.failed(reason, traceback_tail), reason, wait=0.0)

    def interrupted(self, signal_name: str, wait: float = 0.0) -> None:
        """The trial was stopped by this signal, unless it has :attr:`ended`, or another process still has it after ``wait`` seconds."""
        reason = f"stopped by {signal_name}; run again to go on from the last checkpoint"
        self._close(lambda recorder: recorder.interrupted(reason), reason, wait)

    def lost(self, reason: str, wait: float = 2.0) -> None:
        """The attempt's worker was lost and the trial will be started again, unless it has :attr:`ended`, or a process still has it."""
        self._close(lambda recorder: recorder.interrupted(reason), reason, wait)

    def given_up(self, reason: str) -> None:
        """The trial is not started again: it failed for this reason, though its latest attempt was but interrupted, unless it ended so
        already or another process has it now."""
        self._close(lambda recorder: recorder.failed(reason), reason, wait=2.0, ends=("done", "failed", "stopped"))

    def _close(self, write: Callable[[FolderRecorder], None], reason: str, wait: float, ends: tuple[str, ...] = ENDS) -> None:
        """Write it, or keep in mind what is to be written when there is room again: the first word stands, it is nearest to the cause."""

        def say() -> None:
            with suppress(TrialBusy), lock_within(wait, self.store, self.trial_id):
                if not self._ended_by(ends):
                    write(self._opened())

        if self._unsaid is None:
            self._unsaid, self.unsaid_reason = say, reason
        self.settle()

    def _opened(self) -> FolderRecorder:
        """Its recorder, after a ``start`` where the trial did not come to write one: a record must say what it is the record of."""
        recorder = FolderRecorder(self.store, self.trial_id)
        if not self.touched:
            record = recorder.record()
            recorder.start(
                trial=canonical(self.trial),
                study=self._study,
                launch_id=self._launch_id,
                data_fingerprint=record.data_fingerprint or "",
                provenance=provenance(),
                resumed_epoch=max(record.epochs, default=0),
            )
        return recorder

    def _new_events(self) -> list[str]:
        return [line["event"] for line in self.store.journal(self.trial_id).read()[self._before :]]


def settled(owing: Iterable[JournalClosing]) -> list[JournalClosing]:
    """Have each try to write what it could not write; those that still cannot."""
    return [closing for closing in owing if not closing.settle()]


@contextmanager
def lock_within(seconds: float, store: Store, trial_id: str) -> Iterator[None]:
    """Hold the trial's lock, taken as soon as it is free.

    Raises:
        TrialBusy: Another process held it for all the ``seconds``.
    """
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(store.lock(trial_id))
                break
            except TrialBusy:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
        yield
