"""A trial of several workers: each takes an equal share of every batch; that of rank 0 holds the lock and writes the record **(ours)**.

:func:`run_gang` starts the workers on this machine; :func:`run_rank` is one of them, for whoever starts them elsewhere (Ray, several
machines). When one ends with an error all do, and the record says whose it was.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_lab.data import fingerprint
from salt_lab.errors import SaltLabError, TrialFailed, UserError
from salt_lab.record.fold import VANISHED
from salt_lab.record.recorder import FolderRecorder, Recorder
from salt_lab.record.store import Record, Store, TrialBusy
from salt_lab.spec.resources import check_shared
from salt_lab.spec.trial import Trial, trial_id
from salt_lab.train.early_stop import nothing_left
from salt_lab.train.lost import NO_WORD, Word, WorkerLost, error_of

if TYPE_CHECKING:
    from salt_lab.train.crew import Crew, Line
    from salt_lab.train.meeting import Meeting

#: Seconds that the others wait for rank 0 to finish the record: the last evaluation's numbers, the inference time.
FINISH_SECONDS = 1800.0


def run_gang(trial: Trial, store: Store, *, workers: int, device: str | None, **where: Any) -> Record:
    """:func:`salt_lab.train.trial.run_trial` on several workers of this machine, one process each.

    The calling process watches them; the lock, the record and the heartbeat are those of the worker of rank 0.

    Raises:
        WorkerLost: a worker was killed; the record says "interrupted", and which.
    """
    from salt_lab.train.crew import Crew
    from salt_lab.train.meeting import listen

    name = trial_id(trial, fingerprint(trial.data))
    if nothing_left(store, name, where["study"], where["launch_id"]):
        return store.record(name)
    check_shared(trial.schedule.batch, workers)
    check_gpus(workers, device)
    if where["threads"] is None:
        where["threads"] = max(1, (os.cpu_count() or 1) // workers)  # each left to itself would take all cores
    with store.lock(name):
        before = store.record(name).attempt  # and busy is said before anything starts
    order = {"trial": trial.model_dump_json(), "store": str(store.root), "device": device, **where}
    with listen("127.0.0.1") as door:
        order["port"] = door.getsockname()[1]
        with Crew("salt_lab.train.gang:work", order, workers, _log(store, name), door.fileno()) as crew:
            try:
                codes = crew.watch()
            except KeyboardInterrupt:
                crew.leave()
                raise
            finally:
                _close(store, name, before, crew)
            _raise_what_happened(crew, codes)
    record = store.record(name)
    if record.state == "interrupted":
        raise KeyboardInterrupt(record.reason)  # the workers were asked to leave, and did
    return record


def work(*, rank: int, workers: int, line: Line, trial: str, store: str, port: int, **where: Any) -> None:
    """What each process of :func:`run_gang` does."""
    from salt_lab.train.meeting import take_over

    if inherited := os.environ.get("SALT_LAB_INHERITED"):
        take_over(int(inherited))
    place: dict[str, Any] = {"rank": rank, "workers": workers, "address": "127.0.0.1", "port": port}
    run_rank(Trial.model_validate_json(trial), Store(store), **place, **where, heard=lambda: line.news)


def run_rank(
    trial: Trial,
    store: Store,
    *,
    rank: int,
    workers: int,
    address: str,
    port: int,
    study: str,
    launch_id: str,
    threads: int | None = None,
    device: str | None = None,
    gpus: float = 0,
    heard: Callable[[], str | None] = lambda: None,
) -> str:
    """One worker's part of a trial, in this process. All workers are called with the same arguments but ``rank``.

    A process that waits for a worker that is gone (over NCCL, for :data:`~salt_lab.train.meeting.COLLECTIVE_TIMEOUT`) is to be ended by
    whoever started it, some seconds after the first of them raised or died.

    Args:
        trial, store: as for :func:`salt_lab.train.trial.run_trial`; all workers see the same results folder.
        rank: 0 to workers - 1; 0 records.
        workers: how many.
        address, port: where rank 0 can be reached: :func:`salt_lab.train.meeting.reserve_port` in its process, right before, gives a port
            that nobody else can take.
        study, launch_id, threads, device: as for ``run_trial``.
        gpus: GPUs of the whole trial, for the record.
        heard: what the caller knows of another worker that died; None = nothing.

    Returns:
        The record's state: "done", or "stopped" by early stopping.

    Raises:
        PortTaken: another program has the port: call all again with another.
        WorkerLost: another worker is gone; the record says "interrupted".
        TrialFailed, TrialBusy, KeyboardInterrupt: as ``run_trial``; the same at all workers.
    """
    from salt_lab.train.meeting import Meeting
    from salt_lab.train.trial import set_up

    resources = set_up(threads, device, workers, gpus)
    meeting = Meeting(rank, workers, address, port)
    if rank == 0:
        return _lead(meeting, trial, store, dict(study=study, launch_id=launch_id, resources=lambda: resources), device, heard)
    return _follow(meeting, trial, store, device)


def _lead(meeting: Meeting, trial: Trial, store: Store, start: dict[str, Any], device: str | None, heard: Callable[[], str | None]) -> str:
    """Rank 0: the same as a trial of one worker, with a go before the training and a last word for the others."""
    from salt_lab.data import prepare
    from salt_lab.train.meeting import joined, word_of
    from salt_lab.train.session import train
    from salt_lab.train.trial import recorded, tail_of

    def body(recorder: Recorder) -> None:
        prepare(trial.data, store.data_dir)
        meeting.go()
        with joined(meeting, device):
            train(trial, store, recorder)

    try:
        record = recorded(trial, store, body, **start, why=lambda error: meeting.why(error, heard))
    except BaseException as error:
        meeting.say(word_of(error, tail_of(error)))
        meeting.part()
        raise
    meeting.say(Word(record.state))
    meeting.part()
    return record.state


def _follow(meeting: Meeting, trial: Trial, store: Store, device: str | None) -> str:
    """The others: train along, and end as rank 0 does."""
    from salt_lab.train.meeting import END_SECONDS, joined, word_of
    from salt_lab.train.session import train

    if meeting.wait_for_go():
        try:
            with joined(meeting, device):
                train(trial, store, Listener(store, trial_id(trial, fingerprint(trial.data))))
        except BaseException as error:
            word = word_of(error, traceback.format_exc())
            meeting.say(word)
            end = meeting.end(END_SECONDS)
            if word.state == "echo":
                raise (end.as_error() if end and end.kind else WorkerLost(NO_WORD.format(0, meeting.workers))) from error
            if isinstance(error, (SaltLabError, KeyboardInterrupt)):
                raise
            raise TrialFailed(f"worker {meeting.rank} of {meeting.workers}: {word.text}") from error
    end = meeting.end(FINISH_SECONDS)
    if end is None:
        raise WorkerLost(NO_WORD.format(0, meeting.workers))
    if end.state not in ("done", "stopped"):
        raise end.as_error()
    return end.state


class Listener(FolderRecorder):
    """The recorder of a worker that does not record: it reads the trial's journal and writes nothing."""

    def _write(self, event: str, **fields: Any) -> None:
        """Rank 0 writes it."""


def check_gpus(workers: int, device: str | None) -> None:
    """Each worker needs a GPU of its own where there are any.

    Raises:
        UserError: this machine has too few.
    """
    import torch

    if device != "cpu" and torch.cuda.is_available() and (there := torch.cuda.device_count()) < workers:
        raise UserError(f"workers = {workers}: each needs a GPU of its own, and this machine has {there}; ask for at most {there}")


def _log(store: Store, name: str) -> Path:
    """Where the processes' own output goes: train.log is the training's."""
    folder = store.trial_dir(name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "workers.log"


def _close(store: Store, name: str, attempts: int, crew: Crew) -> None:
    """The last word of an attempt whose worker of rank 0 could not write it. No process of the crew may live any more."""
    crew.end()
    record = store.record(name)
    if record.attempt > attempts and record.reason == VANISHED:
        with contextlib.suppress(TrialBusy), store.lock(name):
            recorder, own = FolderRecorder(store, name), [text for kind, text in crew.errors() if kind != WorkerLost.__name__]
            if own and not crew.lost():
                recorder.failed(own[0])
            else:
                recorder.interrupted(crew.lost() or VANISHED)


def _raise_what_happened(crew: Crew, codes: list[int]) -> None:
    if crew.lost():
        raise WorkerLost(f"{crew.lost()} (their output: {crew.log})")
    for kind, text in crew.errors():
        raise error_of(kind, text)
    if any(codes):
        raise WorkerLost(f"the {crew.workers} workers ended with exit codes {codes} (their output: {crew.log})")
