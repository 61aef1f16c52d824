"""Many trials at a time on Ray: warm worker processes run them, the dispatcher decides, and the journals say how each one ended.

Completion is known from the journal alone: a worker's answer says that it is free again, and Ray's errors say only that a worker is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from salt_lab.errors import UserError
from salt_lab.record.store import Store
from salt_lab.schedule.closing import JournalClosing
from salt_lab.schedule.decisions import Need
from salt_lab.schedule.executor import MAX_DEATHS, PATIENCE, RUN_TRIAL, Job, TrialFn
from salt_lab.schedule.interrupts import signals_as_interrupt
from salt_lab.schedule.ray_cluster import RayConnection, teams_that_fit
from salt_lab.schedule.ray_loop import Loop
from salt_lab.schedule.ray_worker import RUN_RANK, Surroundings
from salt_lab.schedule.ticker import Ticker
from salt_lab.spec.resources import Resources

if TYPE_CHECKING:
    from salt_lab.schedule.ray_pool import RayPool

#: Seconds without a sign of life after which a trial is taken to hang.
HANG_SECONDS = 600.0


class RayExecutor:
    """Trials in worker processes, as many at a time as the cluster's cores and GPUs allow.

    Args:
        address: An existing cluster; None takes RAY_ADDRESS (set inside a Ray job) and without it starts an embedded Ray on this machine.
        resources: What each trial takes; where ``gpus`` is open, a GPU per worker where the cluster has any.
        max_concurrent: Most trials at a time; None = as many as fit.
        trial_fn: What runs a trial; workers import it.
        rank_fn: What runs one worker's part of a trial of several; the signature is that of :func:`salt_lab.train.gang.run_rank`.
        patience: Seconds for which a trial that another process holds is tried again, before it is left to that process.
        hang_seconds: Seconds without a heartbeat (``STORE/trials/<id>/heartbeat``) after which a trial's workers are killed.
        max_deaths: Deaths from outside that a trial is forgiven.
        need_of: What is known of a trial's memory and length; None = the memory of ``resources``.
    """

    def __init__(
        self,
        address: str | None = None,
        resources: Resources | None = None,
        max_concurrent: int | None = None,
        *,
        trial_fn: TrialFn = RUN_TRIAL,
        rank_fn: TrialFn = RUN_RANK,
        patience: float = PATIENCE,
        hang_seconds: float = HANG_SECONDS,
        max_deaths: int = MAX_DEATHS,
        need_of: Callable[[Job], Need] | None = None,
    ) -> None:
        _at_least("max_concurrent", 1 if max_concurrent is None else max_concurrent, 1)
        _at_least("max_deaths", max_deaths, 0)
        _at_least("hang_seconds", hang_seconds, 1)
        self.address, self.asked, self.max_concurrent = address, resources or Resources(), max_concurrent
        self.resources = self.asked
        self.trial_fn, self.rank_fn, self.patience = trial_fn, rank_fn, patience
        self.hang_seconds, self.max_deaths, self.need_of = hang_seconds, max_deaths, need_of
        self._connection: RayConnection | None = None

    def check(self) -> None:
        """Connect (an embedded Ray takes about 4 s to start and stays for :meth:`run`) and refuse what the cluster can never hold.

        Raises:
            UserError: The cluster does not answer, or a trial asks for more than there is.
        """
        if self._connection is None:
            self._connection = RayConnection.open(self.address)
        self.resources = self.asked.settled(any(node.get("GPU", 0) >= 1 for node in self._connection.nodes))
        try:
            self._connection.refuse_what_never_fits(self.resources)
        except UserError:
            self.close()
            raise

    @property
    def at_once(self) -> int:
        """What the cluster holds now, or ``max_concurrent`` where that is less."""
        room = teams_that_fit(self._connection.nodes, self.resources) if self._connection is not None else 1
        return min(room, self.max_concurrent or room)

    def close(self) -> None:
        """Disconnect from Ray; an embedded one ends with all its workers. :meth:`run` does it by itself."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def run(self, jobs: Sequence[Job], store: Store, study_name: str, launch_id: str, on_tick: Callable[[], None]) -> None:
        """See :meth:`salt_lab.schedule.executor.Executor.run`.

        Raises:
            UserError: No worker could start on the cluster.
            SaltLabError: Its last nodes that could hold a trial went and did not come back.
        """
        if not jobs:
            on_tick()
            return
        self.check()
        with signals_as_interrupt() as interrupt, Ticker(on_tick):  # after ray.init, which sets a SIGTERM handler of its own
            try:
                with self._pool(jobs) as pool:
                    closings = {job.trial_id: JournalClosing(store, job.trial, job.trial_id, study_name, launch_id) for job in jobs}
                    Loop(self, pool, jobs, closings, store, self._where(study_name, launch_id)).run(interrupt)
            finally:
                self.close()
            interrupt.raise_if_asked()

    @contextmanager
    def _pool(self, jobs: Sequence[Job]) -> Iterator[RayPool]:
        """The workers; none of them is left when it closes."""
        from salt_lab.schedule.ray_pool import RayPool

        assert self._connection is not None
        functions = {"trial_fn": self.trial_fn, "rank_fn": self.rank_fn, "workers": self.resources.workers}
        arguments = {"surroundings": Surroundings.of(jobs, self.resources.cpus), **functions}
        pool = RayPool(self._connection.ray, self.resources, arguments, embedded=self._connection.embedded)
        try:
            yield pool
        finally:
            pool.close()

    def _where(self, study_name: str, launch_id: str) -> dict[str, Any]:
        gpus = self.resources.gpus or 0
        return {
            "study": study_name,
            "launch_id": launch_id,
            "threads": self.resources.cpus,
            "device": None if gpus else "cpu",
            "gpus": gpus,
        }


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise UserError(f"{name} = {value:g}: must be at least {least}.")
