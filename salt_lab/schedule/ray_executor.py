"""Many trials at a time through Ray Tune: each is a function trainable in a worker process of its own.

How a trial ended is read from its journal, never from Tune: after a full disk or a lost node Tune's state can claim success.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salt_lab.errors import UserError
from salt_lab.record.store import Store
from salt_lab.schedule.closing import JournalClosing
from salt_lab.schedule.executor import PATIENCE, RUN_TRIAL, Job, TrialFn, run_job
from salt_lab.schedule.interrupts import Interrupt, signals_as_interrupt
from salt_lab.schedule.ray_cluster import RayConnection
from salt_lab.schedule.ticker import Ticker

#: How often a trial is started again after the death of its worker (killed, out of memory); it goes on from its last checkpoint.
MAX_DEATHS = 1
DIED = f"its worker process died {MAX_DEATHS + 1} times (killed, or out of memory?); see train.log, then run again"
#: Seconds to wait for a stopped worker to let go of its trial before its journal is closed in its place.
LET_GO = 10.0


class RayExecutor:
    """Trials in worker processes, as many at a time as the cluster's cores and GPUs allow.

    Args:
        address: An existing cluster; None takes RAY_ADDRESS (set inside a Ray job) and without it starts an embedded Ray on this machine.
        cpus_per_trial: Cores reserved for a trial, which is also the number of its threads.
        gpus_per_trial: GPUs reserved for a trial, 0 to 1; 0.5 puts two trials on a GPU, 0 trains on the CPU; None = 1 where the cluster has
            GPUs, else 0.
        max_concurrent: Most trials at a time; None = as many as fit.
        trial_fn: What runs a trial; workers import it.
        patience: Seconds to wait for a trial that another process holds, before it is left to that process.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus_per_trial: int = 1,
        gpus_per_trial: float | None = None,
        max_concurrent: int | None = None,
        *,
        trial_fn: TrialFn = RUN_TRIAL,
        patience: float = PATIENCE,
    ) -> None:
        _at_least("cpus_per_trial", cpus_per_trial, 1)
        _at_least("gpus_per_trial", gpus_per_trial or 0, 0)
        if gpus_per_trial is not None and gpus_per_trial > 1:
            raise UserError(f"gpus_per_trial = {gpus_per_trial:g}: a trial of a study trains on one GPU at most; ask for 0 to 1.")
        _at_least("max_concurrent", 1 if max_concurrent is None else max_concurrent, 1)
        self.address, self.cpus, self.max_concurrent = address, cpus_per_trial, max_concurrent
        self._asked_gpus, self.gpus = gpus_per_trial, gpus_per_trial or 0
        self.trial_fn, self.patience = trial_fn, patience
        self._connection: RayConnection | None = None

    def check(self) -> None:
        """Connect (an embedded Ray takes about 4 s to start and stays for :meth:`run`) and refuse what no node can hold.

        Raises:
            UserError: The cluster does not answer, or a trial asks for more than any node has.
        """
        if self._connection is None:
            self._connection = RayConnection.open(self.address)
        if self._asked_gpus is None:
            self.gpus = 1 if any(node.get("GPU", 0) >= 1 for node in self._connection.nodes) else 0
        try:
            self._connection.refuse_what_never_fits(self.cpus, self.gpus)
        except UserError:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect from Ray; an embedded one ends with all its workers. :meth:`run` does it by itself."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def run(self, jobs: Sequence[Job], store: Store, study_name: str, launch_id: str, on_tick: Callable[[], None]) -> None:
        """See :meth:`salt_lab.schedule.executor.Executor.run`. Tune's own files go to ``STORE/ray/<launch_id>``."""
        if not jobs:
            on_tick()
            return
        self.check()
        closings = [JournalClosing(store, job.trial, job.trial_id, study_name, launch_id) for job in jobs]
        with signals_as_interrupt() as interrupt, Ticker(on_tick):  # after ray.init, which sets a SIGTERM handler of its own
            with self._until_interrupted(interrupt):
                run_on_tune(self, jobs, store, self._where(study_name, launch_id), interrupt)
            close_all(closings, interrupt)
            interrupt.raise_if_asked()

    def _where(self, study_name: str, launch_id: str) -> dict[str, Any]:
        where = {"device": None, "gpus": 1} if self.gpus else {"device": "cpu", "gpus": 0}
        return {"study": study_name, "launch_id": launch_id, "threads": self.cpus, **where}

    @contextmanager
    def _until_interrupted(self, interrupt: Interrupt) -> Iterator[None]:
        """Swallow a KeyboardInterrupt until the journals are closed, and end Ray with the block: no worker may go on training unseen."""
        try:
            yield
        except KeyboardInterrupt:
            interrupt.signal_name = interrupt.signal_name or "SIGINT"
        finally:
            if interrupt and self._connection is not None:
                self._connection.owned = True
            self.close()


def run_on_tune(executor: RayExecutor, jobs: Sequence[Job], store: Store, where: dict[str, Any], interrupt: Interrupt) -> None:
    """Run the jobs as one Tune experiment, a grid over the trial ids; returns when Tune has ended all of them, however they ended."""
    from ray import tune

    class StopWhenAsked(tune.Stopper):
        """Ends the experiment where a library swallowed the KeyboardInterrupt."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return bool(interrupt)

        def stop_all(self) -> bool:
            return bool(interrupt)

    resources = {"CPU": executor.cpus, **({"GPU": executor.gpus} if executor.gpus else {})}
    run_config = tune.RunConfig(
        name=where["launch_id"],
        storage_path=str(store.root / "ray"),
        verbose=0,
        stop=StopWhenAsked(),
        failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
    )
    tune.Tuner(
        tune.with_resources(trainable(executor, jobs, store.root, where), resources),
        param_space={"trial_id": tune.grid_search([job.trial_id for job in jobs])},
        tune_config=tune.TuneConfig(max_concurrent_trials=executor.max_concurrent),
        run_config=run_config,
    ).fit()


def trainable(executor: RayExecutor, jobs: Sequence[Job], root: Path, where: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """The function that Tune runs in a worker: one trial by its id. It raises for no failed trial, so that Tune repeats none of them."""
    by_id = {job.trial_id: job for job in jobs}
    trial_fn, patience, settle = (executor.trial_fn, executor.patience, Surroundings.of(jobs, executor.cpus))

    def run_in_worker(config: dict[str, Any]) -> None:
        from ray import tune

        settle()
        state = run_job(trial_fn, by_id[config["trial_id"]], Store(root), patience=patience, **where)
        tune.report({"state": state})

    return run_in_worker


@dataclass(frozen=True)
class Surroundings:
    """What a worker shares with the driver so that a trial's relative paths and ${VARIABLES} mean the same in both."""

    folder: str
    variables: dict[str, str]

    @classmethod
    def of(cls, jobs: Sequence[Job], threads: int) -> Surroundings:
        """The driver's working directory, the variables that the jobs' data paths name, and the number of threads."""
        named = {name for job in jobs for name in re.findall(r"\$\{?(\w+)", job.trial.data.model_dump_json())}
        variables = {name: os.environ[name] for name in named if name in os.environ}
        return cls(os.getcwd(), variables | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)))

    def __call__(self) -> None:
        """Take them over. A worker on a machine without that folder (a Ray job's copy) stays where it is."""
        os.environ.update(self.variables)
        if os.path.isdir(self.folder):
            os.chdir(self.folder)


def close_all(closings: Sequence[JournalClosing], interrupt: Interrupt) -> None:
    """Write the end of every trial whose worker could not: interrupted if somebody stopped the study, else failed."""
    deadline = time.monotonic() + LET_GO
    for closing in closings:
        if not interrupt:
            closing.failed(DIED)
        elif closing.touched:  # else it had not started, and is still waiting
            closing.interrupted(interrupt.signal_name or "SIGINT", wait=max(0.0, deadline - time.monotonic()))


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise UserError(f"{name} = {value}: must be at least {least}.")
