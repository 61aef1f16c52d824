"""Running a study: check everything, skip what is done, run the rest, show it and feed MLflow, and count how it ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from salt_lab.record.store import Store
from salt_lab.record.tracking import public
from salt_lab.schedule.cost_known import keep_estimate
from salt_lab.schedule.estimate import duration
from salt_lab.schedule.executor import Executor, Job
from salt_lab.schedule.preflight import check_study, draw_data, jobs_of
from salt_lab.schedule.progress import StudyProgress
from salt_lab.schedule.reuse import Todo, decide, set_aside
from salt_lab.schedule.room import check_room
from salt_lab.schedule.sharing import SharedStudy
from salt_lab.spec.study import Study
from salt_lab.train.early_stop import launch_rules, nothing_left

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class LaunchResult:
    """How a launch ended, in trials of the study.

    ``reused`` were done before and not run again; ``done``, ``failed`` and ``interrupted`` ended in this launch; ``stopped`` were ended by
    early stopping, in this launch or before; ``elsewhere`` were done by another process meanwhile; ``busy`` are run by another process still;
    ``waiting`` were not started. ``seconds`` is wall time. ``delivered`` says whether MLflow has everything; None = MLflow is not used.
    """

    launch_id: str
    done: int
    failed: int
    interrupted: int
    reused: int
    seconds: float
    busy: int = 0
    waiting: int = 0
    delivered: bool | None = None
    stopped: int = 0
    elsewhere: int = 0

    @property
    def complete(self) -> bool:
        """Is every trial of the study done, or stopped early as the study asks?"""
        return not (self.failed or self.interrupted or self.busy or self.waiting)

    def __str__(self) -> str:
        named = {"done": self.done, "stopped early": self.stopped, "failed": self.failed, "interrupted": self.interrupted}
        named |= {"done by another process": self.elsewhere, "run by another process": self.busy, "not started": self.waiting}
        ran = ", ".join(f"{count} {name}" for name, count in named.items() if count or name == "done")
        return f"{ran}, reused {self.reused}, in {duration(self.seconds)}"


class Recorder(Protocol):
    """What a launch needs of :class:`salt_lab.record.mlflow_store.MlflowStore`. Nothing here raises because MLflow does not answer."""

    last_error: str | None

    def deliver(self, trial_id: str) -> bool:
        """Bring MLflow up to date with a trial's journal; False where that did not work, the next delivery catches up."""

    def close_launch(self) -> bool:
        """Deliver all that is missing and the launch's own end; True when MLflow has everything."""


class NoMlflow:
    """MLflow is not used: the results folder has everything, ``salt-lab sync`` delivers it later."""

    last_error: str | None = None

    def deliver(self, trial_id: str) -> bool:
        """Nothing to deliver to."""
        return True

    def close_launch(self) -> bool:
        """Nothing to close."""
        return True


def run_study(
    study: Study,
    store: Store,
    executor: Executor,
    *,
    mlflow_uri: str | None = None,
    console: Console | None = None,
    reuse: bool = False,
    force: bool = False,
    wait: bool = True,
) -> LaunchResult:
    """Run the trials of ``study`` that are not done, and record them.

    Everything that can be refused is refused before anything starts. Data is drawn once, here. A failed trial stops no other; run again and
    only what is not done is run, each trial from its last checkpoint.

    Args:
        study: What to run.
        store: The results folder.
        executor: Where and when trials run.
        mlflow_uri: MLflow to feed while trials run, e.g. from :func:`salt_lab.record.tracking.tracking_uri`; None = the folder only.
        console: Where to show how it goes; None = standard output.
        reuse: Keep finished trials that other training code made, though others are still to be trained.
        force: Train finished trials again; their records are set aside, see :meth:`salt_lab.record.store.Store.set_aside`.
        wait: Stay until the trials that another process runs have ended, and go on with those it leaves undone.

    Returns:
        The counts; read the records for the numbers.

    Raises:
        UserError: Bad data, weights, results folder, MLflow server, or resources that the machine has not got; or finished trials of other
            training code and neither ``reuse`` nor ``force``: nothing was started.
        KeyboardInterrupt: After SIGINT or SIGTERM, when everything is stopped and recorded.
    """
    from rich.console import Console

    launch = _Launch(study, store, executor, mlflow_uri, console or Console(), time.monotonic(), wait)
    check_study(study.trials(), store, mlflow_uri)
    jobs = jobs_of(study.trials())
    for job in jobs:
        store.recover(job.trial_id)
    todo = decide(study, jobs, store, reuse=reuse, force=force)
    try:
        if todo.jobs:
            executor.check()
            notes = check_room(study, todo.jobs, store, executor.at_once)
            todo = replace(todo, notes=(*todo.notes, *notes))
            draw_data([job.trial for job in todo.jobs], store)
        return launch.run(jobs, todo)
    finally:
        executor.close()


@dataclass(frozen=True)
class _Launch:
    study: Study
    store: Store
    executor: Executor
    mlflow_uri: str | None
    console: Console
    began: float
    wait: bool = True
    sizes: dict[str, int] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job], plan: Todo) -> LaunchResult:
        """Run those of ``jobs`` that ``plan`` names; say before and after how things stand, also when it is interrupted."""
        todo, aside = plan.jobs, set_aside(plan, self.store)
        self.sizes.update({job.trial_id: self.store.journal(job.trial_id).size() for job in jobs})
        launch_id = self._open(jobs, plan, aside)
        mlflow = self._open_mlflow(launch_id)
        where = f"MLflow: {public(self.mlflow_uri)}" if self.mlflow_uri else "MLflow is not used, salt-lab sync delivers the records later"
        stopped = self._stopped_before(jobs, todo)
        ended = f"reused {len(jobs) - len(todo) - stopped}" + (f", stopped early before {stopped}" if stopped else "")
        again = f" ({len(aside)} of them again)" if aside else ""
        self.say(f"{len(jobs)} trials, {ended}, to run {len(todo)}{again}. Records: {self.store.root}. {where}")
        for note in (*plan.notes, *self.study.notes):
            self.say(note)
        if self.study.early_stop is not None:
            self.say(f"early stopping: {self.study.early_stop}")
        try:
            if todo:
                keep_estimate(self.study, jobs, self.store, launch_id)
                self._execute(jobs, todo, launch_id, mlflow)
        finally:
            with suppress(OSError):  # a full disk: then it has no end, as if it had been killed
                self.store.end_launch(self.study.name, launch_id)
            delivered = mlflow.close_launch()
            result = self._count(jobs, todo, launch_id, delivered if self.mlflow_uri else None)
            self.say(str(result))
            if not delivered:
                self.say(f"MLflow lacks some of it ({mlflow.last_error}). The records are safe: salt-lab sync {self.store.root}")
        return result

    def say(self, text: str) -> None:
        """One line for people, without wrapping or markup."""
        self.console.print(f"{self.study.name}: {text}", markup=False, highlight=False, soft_wrap=True)

    def _execute(self, jobs: Sequence[Job], todo: Sequence[Job], launch_id: str, mlflow: Recorder) -> None:
        spoken = [f"{cell.name} seed={trial.seed}" for cell in self.study.cells for trial in cell.trials()]
        names = dict(zip([job.trial_id for job in jobs], spoken, strict=True))
        ids = [job.trial_id for job in todo]
        with StudyProgress(self.store, ids, names, console=self.console, launch_id=launch_id) as progress:

            def on_tick() -> None:
                for trial_id in progress.update():
                    if self.store.record(trial_id).launch_id == launch_id:  # what another launch runs, it delivers
                        mlflow.deliver(trial_id)

            shared = SharedStudy(self.executor, self.store, self.study.name, launch_id, on_tick, self.say)
            shared.run(todo, self.wait)

    def _open(self, jobs: Sequence[Job], plan: Todo, aside: dict[str, int]) -> str:
        """A new launch; the latest one where nothing is left to run and it asked for the same trials."""
        ids = [job.trial_id for job in jobs]
        earlier = self.store.launches(self.study.name)
        if not plan.jobs and earlier and [trial["trial_id"] for trial in earlier[-1]["trials"]] == ids:
            return str(earlier[-1]["launch_id"])
        return self.store.new_launch(self.study, ids, early_stop=launch_rules(self.study, ids), set_aside=aside, reused=plan.reused)

    def _open_mlflow(self, launch_id: str) -> Recorder:
        if self.mlflow_uri is None:
            return NoMlflow()
        from salt_lab.record.mlflow_store import MlflowStore

        mlflow = MlflowStore(self.store, self.mlflow_uri)
        mlflow.open_launch(self.study.name, launch_id)
        return mlflow

    def _count(self, jobs: Sequence[Job], todo: Sequence[Job], launch_id: str, delivered: bool | None) -> LaunchResult:
        states = [_end(self.store, job, launch_id, self.sizes[job.trial_id]) for job in todo]
        named = {name: states.count(name) for name in ("done", "failed", "interrupted", "elsewhere", "busy", "waiting")}
        before = self._stopped_before(jobs, todo)
        ended = {"reused": len(jobs) - len(todo) - before, "stopped": before + states.count("stopped")}
        return LaunchResult(launch_id, **named, **ended, seconds=time.monotonic() - self.began, delivered=delivered)

    def _stopped_before(self, jobs: Sequence[Job], todo: Sequence[Job]) -> int:
        """Trials that this launch does not run because early stopping ended them before."""
        running = {job.trial_id for job in todo}
        return sum(job.trial_id not in running and self.store.record(job.trial_id).state == "stopped" for job in jobs)


def _end(store: Store, job: Job, launch_id: str, size: int) -> str:
    """How the launch left a trial whose journal had ``size`` bytes before: done, stopped (early), failed, interrupted, elsewhere (another
    process did it), busy (another process runs it), or waiting (not started)."""
    record = store.record(job.trial_id)
    if record.state == "stopped" and nothing_left(store, job.trial_id, record.study or "", launch_id):
        return "stopped"
    if record.state == "done":
        return "done" if record.launch_id == launch_id else "elsewhere"
    if record.state == "running":
        return "busy"
    touched = record.launch_id == launch_id or store.journal(job.trial_id).size() != size
    return record.state if touched and record.state in ("failed", "interrupted") else "waiting"
