"""Running a study: check everything, skip what is done, run the rest, show it and feed MLflow, and count how it ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from salt_lab.record.store import Store
from salt_lab.record.tracking import public
from salt_lab.schedule.estimate import duration
from salt_lab.schedule.executor import Executor, Job
from salt_lab.schedule.preflight import check_study, draw_data, jobs_of
from salt_lab.schedule.progress import StudyProgress
from salt_lab.spec.study import Study

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class LaunchResult:
    """How a launch ended, in trials of the study.

    ``reused`` were done before and not run again; ``done``, ``failed`` and ``interrupted`` ended in this launch; ``busy`` were left to
    another process that runs them; ``waiting`` were not started. ``seconds`` is wall time. ``delivered`` says whether MLflow has
    everything; None = MLflow is not used.
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

    @property
    def complete(self) -> bool:
        """Is every trial of the study done?"""
        return not (self.failed or self.interrupted or self.busy or self.waiting)

    def __str__(self) -> str:
        named = {"done": self.done, "failed": self.failed, "interrupted": self.interrupted}
        named |= {"run by another process": self.busy, "not started": self.waiting}
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
    study: Study, store: Store, executor: Executor, *, mlflow_uri: str | None = None, console: Console | None = None
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

    Returns:
        The counts; read the records for the numbers.

    Raises:
        UserError: Bad data, weights, results folder, MLflow server, or resources that the machine has not got: nothing was started.
        KeyboardInterrupt: After SIGINT or SIGTERM, when everything is stopped and recorded.
    """
    from rich.console import Console

    launch = _Launch(study, store, executor, mlflow_uri, console or Console(), time.monotonic())
    check_study(study.trials(), store, mlflow_uri)
    jobs = jobs_of(study.trials())
    todo = [job for job in jobs if store.record(job.trial_id).state != "done"]
    try:
        if todo:
            executor.check()
            draw_data([job.trial for job in todo], store)
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

    def run(self, jobs: Sequence[Job], todo: Sequence[Job]) -> LaunchResult:
        """Run ``todo``, a part of ``jobs``; say before and after how things stand, also when it is interrupted."""
        launch_id = self._open(jobs, todo)
        mlflow = self._open_mlflow(launch_id)
        where = f"MLflow: {public(self.mlflow_uri)}" if self.mlflow_uri else "MLflow is not used, salt-lab sync delivers the records later"
        self.say(f"{len(jobs)} trials, reused {len(jobs) - len(todo)}, to run {len(todo)}. Records: {self.store.root}. {where}")
        try:
            if todo:
                self._execute(jobs, todo, launch_id, mlflow)
        finally:
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
                    mlflow.deliver(trial_id)

            self.executor.run(todo, self.store, self.study.name, launch_id, on_tick)

    def _open(self, jobs: Sequence[Job], todo: Sequence[Job]) -> str:
        """A new launch; the latest one where nothing is left to run and it asked for the same trials."""
        ids = [job.trial_id for job in jobs]
        earlier = self.store.launches(self.study.name)
        if not todo and earlier and [trial["trial_id"] for trial in earlier[-1]["trials"]] == ids:
            return str(earlier[-1]["launch_id"])
        return self.store.new_launch(self.study, ids)

    def _open_mlflow(self, launch_id: str) -> Recorder:
        if self.mlflow_uri is None:
            return NoMlflow()
        from salt_lab.record.mlflow_store import MlflowStore

        mlflow = MlflowStore(self.store, self.mlflow_uri)
        mlflow.open_launch(self.study.name, launch_id)
        return mlflow

    def _count(self, jobs: Sequence[Job], todo: Sequence[Job], launch_id: str, delivered: bool | None) -> LaunchResult:
        states = [_end(self.store, job, launch_id) for job in todo]
        named = {name: states.count(name) for name in ("done", "failed", "interrupted", "busy", "waiting")}
        return LaunchResult(launch_id, **named, reused=len(jobs) - len(todo), seconds=time.monotonic() - self.began, delivered=delivered)


def _end(store: Store, job: Job, launch_id: str) -> str:
    """How the launch left a trial: done, failed, interrupted, busy (another process runs it), or waiting (it was not started)."""
    record = store.record(job.trial_id)
    if record.state in ("done", "running"):
        return "busy" if record.state == "running" else "done"
    return record.state if record.launch_id == launch_id else "waiting"
