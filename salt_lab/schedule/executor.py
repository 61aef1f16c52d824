"""Where and when trials run: the Executor protocol, what every executor does around one trial, and the one that runs here and now."""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from salt_lab.errors import SaltLabError, UserError
from salt_lab.record.store import Store, TrialBusy
from salt_lab.schedule.closing import JournalClosing, settled
from salt_lab.schedule.interrupts import Interrupt, signals_as_interrupt
from salt_lab.schedule.ticker import Ticker
from salt_lab.schedule.time_limit import TimeLimit
from salt_lab.spec.resources import Resources
from salt_lab.spec.trial import Trial

#: A function with the signature of :func:`salt_lab.train.trial.run_trial`, or its import path ``"module:function"``.
TrialFn = Callable[..., Any] | str
RUN_TRIAL = "salt_lab.train.trial:run_trial"
#: How long a trial waits for another process to let go of it, seconds: the workers of a killed driver take a few to die.
PATIENCE = 20.0
#: Deaths from outside (killed, node lost, preempted, hung) that a trial is forgiven; it goes on from its last checkpoint.
MAX_DEATHS = 3
#: Length of the traceback that a failed trial keeps, characters.
TAIL = 4000


@dataclass(frozen=True)
class Job:
    """A trial that is to run, and the id under which its record is kept."""

    trial: Trial
    trial_id: str


class Executor(Protocol):
    """Runs trials. Passes :class:`salt_lab.testing.executor_contract.ExecutorContract`."""

    def check(self) -> None:
        """Refuse what cannot run here before anything starts: UserError that names what there is."""

    @property
    def at_once(self) -> int:
        """How many trials run at a time, at most; known after :meth:`check`."""

    def close(self) -> None:
        """Give back what :meth:`check` took; called after it when nothing is to be run after all, and after :meth:`run`."""

    def run(self, jobs: Sequence[Job], store: Store, study_name: str, launch_id: str, on_tick: Callable[[], None]) -> None:
        """Run every job; return when all have ended.

        How a trial ended is read from its journal. A trial that fails, in whatever way, has ``failed`` in its journal and the others go on.

        Args:
            jobs: The trials, in the order in which they should start.
            store: The results folder; workers open it by its path.
            study_name: Written into each record.
            launch_id: Written into each record.
            on_tick: Called about once a second while trials run and once after the last; never twice at a time, maybe from another thread.

        Raises:
            KeyboardInterrupt: After SIGINT or SIGTERM, when no trial runs any more and those that did are journaled as ``interrupted``.
        """


def resolve(trial_fn: TrialFn) -> Callable[..., Any]:
    """The function itself: imports ``"module:function"``, gives a callable back as it is.

    >>> resolve("math:hypot")(3, 4)
    5.0
    """
    if callable(trial_fn):
        return trial_fn
    module, _, name = trial_fn.partition(":")
    return getattr(importlib.import_module(module), name)


def run_job(
    trial_fn: TrialFn, job: Job, store: Store, *, patience: float = PATIENCE, owing: list[JournalClosing] | None = None, **where: Any
) -> str:
    """Run one trial in this process and see to it that its journal says how it ended.

    Args:
        trial_fn: What runs it.
        job: Which.
        store: Where its record is kept.
        patience: Seconds to wait for a trial that another process holds.
        owing: Gets the trial's closing where its last word could not be written (disk full), to be settled when there is room again.
        **where: ``study`` and ``launch_id``; ``threads``, ``device``, ``gpus`` where they are chosen: all for the trial function.

    Returns:
        The record's state afterwards ("failed" where that could not be written), or "busy" when another process still holds the trial (its
        journal is left alone then).

    Raises:
        KeyboardInterrupt: Passed on, once the journal says ``interrupted``.
    """
    closing = JournalClosing(store, job.trial, job.trial_id, where["study"], where["launch_id"])
    try:
        _call_when_free(resolve(trial_fn), job, store, patience, where)
    except TrialBusy:
        return "busy"
    except KeyboardInterrupt as stop:
        closing.interrupted(str(stop) or "SIGINT")
        raise
    except (Exception, SystemExit) as error:  # whatever a trial dies of, the study goes on and the journal says what
        closing.failed(one_line(error), traceback.format_exc()[-TAIL:])
    closing.failed("it ended without saying how")
    if closing.owes:
        if owing is not None:
            owing.append(closing)
        return "failed"
    return store.record(job.trial_id).state


def _call_when_free(run: Callable[..., Any], job: Job, store: Store, patience: float, where: dict[str, Any]) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            run(job.trial, store, **where)
            return
        except TrialBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def one_line(error: BaseException) -> str:
    """The error in one line: its first line, led by the kind unless it is one of the lab's own."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, SaltLabError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


class SerialExecutor:
    """One trial after the other, in this process and its main thread: no Ray, nothing to set up. A trial of several workers has a process
    for each.

    Args:
        threads: Cores for each worker's computations; None leaves torch's own choice (all cores).
        resources: Workers and GPUs of a trial; where ``gpus`` is open, those that there are.
        trial_fn: What runs a trial.
        patience: Seconds to wait for a trial that another process holds, before it is left to that process.
        limit: The launch's time limit, opened by the caller: no trial is started where too little is left of it. None = no limit.
    """

    def __init__(
        self,
        threads: int | None = None,
        resources: Resources | None = None,
        *,
        trial_fn: TrialFn = RUN_TRIAL,
        patience: float = PATIENCE,
        limit: TimeLimit | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads = {threads}: a trial needs at least 1.")
        self.threads, self.resources, self.trial_fn, self.patience = threads, resources or Resources(), trial_fn, patience
        self.limit = limit

    def check(self) -> None:
        """Any machine that runs Python will do."""

    @property
    def at_once(self) -> int:
        """One after the other."""
        return 1

    def close(self) -> None:
        """Nothing was taken."""

    def run(self, jobs: Sequence[Job], store: Store, study_name: str, launch_id: str, on_tick: Callable[[], None]) -> None:
        """See :meth:`Executor.run`."""
        where: dict[str, Any] = {"study": study_name, "launch_id": launch_id, "threads": self.threads, "workers": self.resources.workers}
        where |= {"device": "cpu" if self.resources.gpus == 0 else None, "gpus": self.resources.gpus or 0}
        where["owing"] = owing = list[JournalClosing]()
        before = {job.trial_id: store.journal(job.trial_id).size() for job in jobs}
        with signals_as_interrupt() as interrupt, Ticker(on_tick):
            held = [job for job in jobs if self._run(job, store, 0.0, interrupt, where, before) == "busy"]
            for job in held:  # by another process, which may have ended by now
                self._run(job, store, self.patience, interrupt, where, before)
        settled(owing)

    def _run(self, job: Job, store: Store, patience: float, interrupt: Interrupt, where: dict[str, Any], before: Mapping[str, int]) -> str:
        """Run a trial; again, from its last checkpoint, where one of several workers was lost. What has failed in another launch since this
        one began (``before``: the journals' sizes) is not tried again: the same would happen."""
        if (elsewhere := self._ended_elsewhere(job, store, where["launch_id"], before)) is not None:
            return elsewhere
        if self.limit is not None:
            self.limit.check_room()
        for _ in range(1 + MAX_DEATHS):
            state = run_job(self.trial_fn, job, store, patience=patience, **where)
            where["owing"][:] = settled(where["owing"])  # of trials before, too: this one may have made room
            interrupt.raise_if_asked()
            if state != "interrupted":
                break
        return state

    def _ended_elsewhere(self, job: Job, store: Store, launch_id: str, before: Mapping[str, int]) -> str | None:
        if store.journal(job.trial_id).size() == before[job.trial_id]:
            return None
        record = store.record(job.trial_id)
        return record.state if record.state in ("done", "failed") and record.launch_id != launch_id else None
