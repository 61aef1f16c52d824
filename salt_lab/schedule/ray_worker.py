"""What runs in a worker process of a study on Ray: one trial, or one worker's part of one, after the other. No Ray is needed to read it."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from salt_lab.errors import StoreError
from salt_lab.record.store import Store
from salt_lab.schedule.closing import JournalClosing
from salt_lab.schedule.executor import RUN_TRIAL, Job, TrialFn, resolve, run_job
from salt_lab.schedule.interrupts import signals_as_interrupt
from salt_lab.spec.trial import Trial

#: One worker's part of a trial of several; signature of :func:`salt_lab.train.gang.run_rank`.
RUN_RANK = "salt_lab.train.gang:run_rank"
#: What a worker imports, or calls, before its first trial: seconds that no later trial waits.
WARM = {
    RUN_TRIAL: ("salt_lab.train.libraries:load_libraries", "salt_lab.train.session"),
    RUN_RANK: ("salt_lab.train.gang", "salt_lab.train.meeting"),
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
        return cls(os.getcwd(), variables | dict.fromkeys(THREADS, str(threads)))

    def __call__(self) -> None:
        """Take them over. A worker on a machine without that folder (a Ray job's copy) stays where it is."""
        os.environ.update(self.variables)
        if os.path.isdir(self.folder):
            os.chdir(self.folder)


@dataclass(frozen=True)
class Whereabouts:
    """Where a worker is: node, process, address, its GPUs by Ray's ids, the memory of one of them (GiB; None without), and how many
    processes the kernel has killed there for memory."""

    node: str
    pid: int
    address: str
    gpus: tuple[str, ...] = ()
    memory_gb: float | None = None
    oom_kills: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a trial ended in a worker: the record's state ("busy": another process has it), the signal that stopped it, its reason where it
    failed, and the seconds that it took altogether and that the worker spent beside it."""

    state: str
    signal_name: str | None = None
    reason: str = ""
    seconds: float = 0.0
    beside: float = 0.0


@dataclass
class TrialWorker:
    """One worker process; runs trials in its main thread, where signals arrive.

    Args:
        surroundings: taken over before anything heavy is imported.
        trial_fn: what runs a trial.
        rank_fn: what runs one worker's part of a trial.
    """

    surroundings: Surroundings
    trial_fn: TrialFn = RUN_TRIAL
    rank_fn: TrialFn = RUN_RANK
    workers: int = 1
    _stacks: TextIO | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.surroundings()
        wanted = [self.trial_fn] if self.workers == 1 else [self.trial_fn, self.rank_fn]
        for name in (one for fn in wanted if isinstance(fn, str) for one in WARM.get(fn, ())):
            with contextlib.suppress(Exception):  # the trial meets the same error, and its record says so
                _import_or_call(name)
        gc.collect()
        gc.freeze()  # what was imported stays: the collection after each trial need not look at it

    def whereabouts(self, node: str, address: str, gpus: Sequence[str]) -> Whereabouts:
        """Where this worker is; the arguments are what Ray knows of it."""
        return Whereabouts(node, os.getpid(), address, tuple(gpus), _gpu_memory() if gpus else None, oom_kills())

    def began(self) -> None:
        """Answers when the worker comes to the call after it: a trial that was sent to a worker which is gone by then has not begun."""

    def run(self, job: Job, root: Path, where: dict[str, Any]) -> Outcome:
        """Run a trial to its end; its journal says how it ended."""
        return self._guarded(job, Store(root), lambda store: self._run_job(self.trial_fn, job, store, where))

    def _run_job(self, trial_fn: TrialFn, job: Job, store: Store, where: dict[str, Any]) -> str:
        """The state; what the journal had no room for is the driver's to write, and so is said aloud."""
        owing: list[JournalClosing] = []
        state = run_job(trial_fn, job, store, patience=0.0, owing=owing, **where)
        if owing:
            raise StoreError(owing[0].unsaid_reason)
        return state

    def reserve_port(self, address: str) -> int:
        """A port for a trial of several workers, kept open in this process until it is taken over."""
        from salt_lab.train.meeting import reserve_port

        return reserve_port(address)

    def run_rank(self, job: Job, root: Path, rank: int, where: dict[str, Any], port: int) -> Outcome:
        """This worker's part of a trial; rank 0's is what the journal tells."""
        part, where = resolve(self.rank_fn), {**where, "port": port}

        def led(trial: Trial, store: Store, **rest: Any) -> Any:
            return part(trial, store, rank=rank, **rest)

        def follow(store: Store) -> str:
            part(job.trial, store, rank=rank, **where)
            return store.record(job.trial_id).state

        lead: Callable[[Store], str] = lambda store: self._run_job(led, job, store, where)  # noqa: E731
        return self._guarded(job, Store(root), lead if rank == 0 else follow)

    def _guarded(self, job: Job, store: Store, run: Callable[[Store], str]) -> Outcome:
        """Run with the process as fresh as it was, and tell a stop by a signal from other ends."""
        from salt_lab.train.fresh import as_in_a_fresh_process

        began = time.monotonic()
        took = [began, began]
        state, signal_name, reason = "failed", None, ""
        try:
            with as_in_a_fresh_process(), self._stacks_on_demand(store, job), signals_as_interrupt() as interrupt:
                try:
                    took[0] = time.monotonic()
                    state = run(store)
                except KeyboardInterrupt as stop:
                    state, signal_name = "interrupted", interrupt.signal_name or str(stop) or "SIGTERM"
                except StoreError as error:
                    reason = str(error)
                except Exception as error:  # of another worker than rank 0: the record is not its affair
                    reason = f"{type(error).__name__}: {error}"
                finally:
                    took[1] = time.monotonic()
        except KeyboardInterrupt as late:  # it came between the trial's end and here
            signal_name = signal_name or str(late) or "SIGTERM"
        seconds = took[1] - took[0]
        return Outcome(state, signal_name, reason or _reason(store, job, state), seconds, time.monotonic() - began - seconds)

    @contextlib.contextmanager
    def _stacks_on_demand(self, store: Store, job: Job) -> Iterator[None]:
        """While open, SIGUSR1 writes where each thread is to the trial's ``stacks.log``: for a trial that hangs."""
        folder = store.trial_dir(job.trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "stacks.log").open("a") as file:
            faulthandler.register(signal.SIGUSR1, file, all_threads=True)
            try:
                yield
            finally:
                faulthandler.unregister(signal.SIGUSR1)
        with contextlib.suppress(OSError):
            if not (folder / "stacks.log").stat().st_size:
                (folder / "stacks.log").unlink()


def oom_kills() -> int:
    """Processes that this machine's (or container's) kernel has killed because memory ran out, so far."""
    for file, pattern in (("/sys/fs/cgroup/memory.events", r"^oom_kill (\d+)"), ("/proc/vmstat", r"^oom_kill (\d+)")):
        with contextlib.suppress(OSError):
            if found := re.search(pattern, Path(file).read_text(), re.MULTILINE):
                return int(found.group(1))
    return 0


def send_signal(pid: int, number: int) -> bool:
    """To a process of this machine; False when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _reason(store: Store, job: Job, state: str) -> str:
    return (store.record(job.trial_id).reason or "") if state in ("failed", "interrupted") else ""


def _import_or_call(name: str) -> None:
    module, _, function = name.partition(":")
    imported = importlib.import_module(module)
    if function:
        getattr(imported, function)()


def _gpu_memory() -> float | None:
    """Memory of a GPU of this worker, GiB; this makes the CUDA context, which its trials need anyway."""
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory) / 2**30
