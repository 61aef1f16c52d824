"""One trial, here and now: its identity, its lock, its record from start to end. What trains is in :mod:`salt_lab.train.session`."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from salt_lab.data import fingerprint
from salt_lab.errors import SaltLabError, StoreError, TrialFailed, UserError
from salt_lab.record.provenance import loaded_code
from salt_lab.record.recorder import FolderRecorder, Recorder
from salt_lab.record.store import Record, Store
from salt_lab.spec.trial import Trial, canonical, trial_id
from salt_lab.train.checkpoints import resumable
from salt_lab.train.early_stop import nothing_left
from salt_lab.train.libraries import importing, load_libraries
from salt_lab.train.lost import FarTraceback, WorkerLost
from salt_lab.train.retention import make_room, rules_of

TRACEBACK_LINES = 25


def run_trial(
    trial: Trial,
    store: Store,
    *,
    study: str,
    launch_id: str,
    threads: int | None = None,
    device: str | None = None,
    gpus: float = 0,
    workers: int = 1,
) -> Record:
    """Train and evaluate ``trial``, unless its record says that it is done; go on from its last checkpoint if it has one.

    Args:
        trial: what to run.
        store: where its folder lies: record, config, log, checkpoints, detections.
        study, launch_id: on whose behalf; written to the record.
        threads: CPU threads of each worker; None leaves torch's choice.
        device: "cpu" to leave a GPU alone; None takes what is there.
        gpus: GPUs given to this trial, for the record: 0.5 is half of one; a whole number above 1 is as many workers.
        workers: processes on this machine that share each batch, with a GPU each where there are any. Above 1 each is a process of its own
            (:mod:`salt_lab.train.gang`); 1 trains in this one.

    Returns:
        The trial's record, state "done", or "stopped" where the launch stops trials early.

    Raises:
        UserError: fewer GPUs than workers, or ``gpus`` and ``workers`` that do not go together.
        TrialFailed: it ended with an error; the record says so too.
        WorkerLost: one of several workers was killed; the record says "interrupted".
        TrialBusy: another process is training it.
        KeyboardInterrupt: it was stopped; the record says "interrupted".
    """
    where: dict[str, Any] = {"study": study, "launch_id": launch_id}
    if (workers := workers_of(gpus, workers)) > 1:
        from salt_lab.train.gang import run_gang

        return run_gang(trial, store, workers=workers, device=device, threads=threads, gpus=gpus, **where)

    def body(recorder: Recorder) -> None:
        load_libraries()
        with importing():
            from salt_lab.train.session import train

        train(trial, store, recorder)

    return recorded(trial, store, body, **where, resources=lambda: set_up(threads, device, workers, gpus))


def workers_of(gpus: float, workers: int = 1) -> int:
    """How many processes train a trial: a GPU each where it has several.

    Raises:
        UserError: both are given and differ.
    """
    if gpus <= 1 or gpus == workers:
        return workers
    if workers > 1 or gpus != int(gpus):
        raise UserError(f"gpus = {gpus:g} and workers = {workers}: each worker has one GPU; give as many as workers, or a share of one")
    return int(gpus)


def recorded(
    trial: Trial,
    store: Store,
    body: Callable[[Recorder], None],
    *,
    study: str,
    launch_id: str,
    resources: Callable[[], Mapping[str, Any]],
    why: Callable[[BaseException], BaseException] = lambda error: error,
) -> Record:
    """Hold the trial's lock, write the start of an attempt, train, and see to it that the record says how it ended.

    Args:
        trial, store, study, launch_id: as for :func:`run_trial`.
        body: trains, and tells the recorder it is given.
        resources: gets the process ready, and says what the trial runs on.
        why: what is behind an error of ``body``, for the record and for the caller.
    """
    data_fingerprint = fingerprint(trial.data)
    name = trial_id(trial, data_fingerprint)
    if nothing_left(store, name, study, launch_id):
        return store.record(name)
    rules = rules_of(store, study, launch_id)
    with store.lock(name):
        if nothing_left(store, name, study, launch_id):
            return store.record(name)  # another process has just ended it
        make_room(store, study, rules, starting=name)
        recorder = FolderRecorder(store, name)
        folder = store.trial_dir(name)
        origin, diff = loaded_code()
        if origin["diff_sha256"]:
            (folder / f"uncommitted-{origin['diff_sha256'][:8]}.patch").write_text(diff)  # each attempt keeps its own
        taken = resources()
        found = resumable(folder / "checkpoints")
        recorder.start(
            trial=canonical(trial),
            study=study,
            launch_id=launch_id,
            data_fingerprint=data_fingerprint,
            provenance=origin,
            resumed_epoch=found.epoch,
            resumed_step=found.step,
            note=found.note,
            resources=taken,
        )
        _guarded(body, store, recorder, why)
    with contextlib.suppress(StoreError):  # the next trial to start says so
        make_room(store, study, rules)
    return store.record(name)


def _guarded(body: Callable[[Recorder], None], store: Store, recorder: Recorder, why: Callable[[BaseException], BaseException]) -> None:
    """Run, and see to it that the record says how it ended."""
    try:
        body(recorder)
    except (KeyboardInterrupt, Exception) as caught:
        error = why(caught)
        reason = str(error)
        if isinstance(error, KeyboardInterrupt):
            recorder.interrupted(reason or "stopped")
        elif isinstance(error, WorkerLost):
            recorder.interrupted(reason)
        elif isinstance(error, SaltLabError):
            recorder.failed(reason, tail_of(error))
        else:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            recorder.failed(reason, tail_of(error))
            log = store.trial_dir(recorder.trial_id) / "train.log"
            raise TrialFailed(f"{reason} (log: {log})") from caught
        if error is caught:
            raise
        raise error from caught


def set_up(threads: int | None, device: str | None, workers: int, gpus: float) -> dict[str, Any]:
    """Get this process ready, and say what the trial runs on: ``workers``, ``cpus`` (threads of each), ``gpus`` (of the trial)."""
    with importing():
        import torch

    _set_threads(threads, device)
    on_gpu = device != "cpu" and torch.cuda.is_available()
    return {"workers": workers, "cpus": torch.get_num_threads(), "gpus": (gpus or workers) if on_gpu else 0}


def _set_threads(threads: int | None, device: str | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # a CPU computes many times slower with numbers below 1e-38; they count as zero (ours)
    if device == "cpu":
        import mmengine.device.utils as where

        where.DEVICE = "cpu"


def tail_of(error: BaseException) -> str:
    """The end of an error's traceback; of an error that stands for one in another process, that one's."""
    far = error.__cause__ if isinstance(error.__cause__, FarTraceback) else None
    lines = str(far).splitlines() if far else "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-TRACEBACK_LINES:])
