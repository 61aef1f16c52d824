"""A trial that trains nothing: it writes the journal that a real one writes, in no time. Its seed tells it how to behave.

Executors take it through ``trial_fn="salt_lab.testing.fake_trial:fake_trial"``. Its "checkpoint" is the last epoch in its journal.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from salt_lab.data import fingerprint
from salt_lab.errors import TrialFailed
from salt_lab.record.fold import COCO_NAMES, Record
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.record.training_code import training_code_version
from salt_lab.spec.trial import Trial, canonical, trial_id
from salt_lab.train.early_stop import Rungs, nothing_left

#: Seeds that mean trouble, in epoch 2 where there is one. Any other seed trains to the end.
FAILS, RAISES, EXITS, SLOW, HANGS, DIES_ONCE, DIES, HANGS_ONCE, NO_MEMORY, NO_MEMORY_ONCE = range(1001, 1011)
EPOCH_SECONDS = 0.02
SLOW_EPOCH_SECONDS = 0.5
ENOUGH_LR = 0.001
#: Asking git takes a second; no fake trial's number will be published.
PROVENANCE: dict[str, Any] = {
    "git_commit": None,
    "git_dirty": None,
    "diff_sha256": None,
    "code_version": "fake",
    "packages": {},
    "machine": {},
    "python": "3",
}


def fake_trial(
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
    """Same signature, locking, resuming and journal as :func:`salt_lab.train.trial.run_trial`.

    What it was given, and the process that it runs in, are recorded in ``built.effective`` for tests to read.
    """
    name = trial_id(trial, fingerprint(trial.data))
    with store.lock(name):
        before = store.record(name)
        if nothing_left(store, name, study, launch_id):
            return before
        recorder = FolderRecorder(store, name)
        first = max(before.epochs, default=0)
        recorder.start(
            trial=canonical(trial),
            study=study,
            launch_id=launch_id,
            data_fingerprint=fingerprint(trial.data),
            provenance={**PROVENANCE, "training_code": training_code_version()},
            resumed_epoch=first,
            resources={"workers": workers, "cpus": threads, "gpus": gpus},
        )
        seen = {"threads": threads, "device": device, "gpus": gpus, "workers": workers, "pid": os.getpid(), "cwd": os.getcwd()}
        seen |= {"main_thread": threading.current_thread() is threading.main_thread(), "omp": os.environ.get("OMP_NUM_THREADS")}
        recorder.built(effective=seen, parameters=1_000_000, gflops=1.5, input_size=(112, 112))
        try:
            _train(trial, recorder, first, before.attempt, Rungs.of(store, recorder))
        except KeyboardInterrupt:
            recorder.interrupted("stopped by the test")
            raise
        return recorder.record()


def _train(trial: Trial, recorder: FolderRecorder, first: int, attempts: int, rungs: Rungs | None = None) -> None:
    epochs, start = trial.schedule.epochs, time.monotonic()
    if rungs and first and rungs.on_resuming(first):
        return
    for epoch in range(first + 1, epochs + 1):
        if epoch == min(2, epochs):
            TROUBLE.get(trial.seed, lambda *_: None)(recorder, attempts)
        time.sleep(SLOW_EPOCH_SECONDS if trial.seed == SLOW else EPOCH_SECONDS)
        losses = {"loss_cls": 1.0 / epoch, "loss_bbox": 0.5 / epoch, "loss": 1.5 / epoch}
        recorder.epoch(epoch, losses=losses, lr=0.01, seconds=EPOCH_SECONDS, images_per_second=50.0, memory_mb=100.0)
        recorder.eval(epoch, fake_metrics(skill(trial) * epoch / epochs))
        if rungs and rungs.after_evaluation(epoch):
            return
    seconds = time.monotonic() - start
    inference = {"ms": 20.0, "p10_ms": 19.0, "p90_ms": 25.0, "repeats": 20, "threads": 1}
    spent = {"train_seconds": seconds, "eval_seconds": 0.0, "peak_memory_mb": 100.0}
    recorder.done(metrics=fake_metrics(skill(trial)), epochs=epochs, inference=inference, **spent)


def skill(trial: Trial) -> float:
    """How much a trial can learn, 0 to 1: all of it at a learning rate of 0.001 or more, less at lower ones in proportion."""
    return min(1.0, trial.schedule.lr / ENOUGH_LR)


def fake_metrics(progress: float) -> dict[str, float | None]:
    """The 12 COCO numbers of a model that has learnt ``progress`` (0 to 1) of what it can; APl is undefined, as on small images."""
    return {name: None if name == "APl" else round((40.0 - i) * progress, 3) for i, name in enumerate(COCO_NAMES)}


def _fail(recorder: FolderRecorder, attempts: int) -> None:
    recorder.failed("the loss is NaN", "Traceback: ...")
    raise TrialFailed(f"trial {recorder.trial_id}: the loss is NaN")


def _raise(recorder: FolderRecorder, attempts: int) -> None:
    raise RuntimeError("out of memory\nand a second line")


def _exit(recorder: FolderRecorder, attempts: int) -> None:
    raise SystemExit(3)


def _hang(recorder: FolderRecorder, attempts: int) -> None:
    time.sleep(600)


def _die(recorder: FolderRecorder, attempts: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_once(recorder: FolderRecorder, attempts: int) -> None:
    if attempts == 0:
        _die(recorder, attempts)


def _hang_once(recorder: FolderRecorder, attempts: int) -> None:
    if attempts == 0:
        _hang(recorder, attempts)


def _need_memory(recorder: FolderRecorder, attempts: int) -> None:
    raise MemoryError("CUDA out of memory, as torch says it")


def _need_memory_once(recorder: FolderRecorder, attempts: int) -> None:
    if attempts == 0:
        _need_memory(recorder, attempts)


TROUBLE: dict[int, Callable[[FolderRecorder, int], None]] = {
    FAILS: _fail,
    RAISES: _raise,
    EXITS: _exit,
    HANGS: _hang,
    DIES: _die,
    DIES_ONCE: _die_once,
    HANGS_ONCE: _hang_once,
    NO_MEMORY: _need_memory,
    NO_MEMORY_ONCE: _need_memory_once,
}


def fake_rank(trial: Trial, store: Store, *, rank: int, workers: int, address: str, port: int, **where: Any) -> str:
    """Same signature as :func:`salt_lab.train.gang.run_rank`: rank 0 is :func:`fake_trial`, the others end when its record does."""
    name = trial_id(trial, fingerprint(trial.data))
    if rank == 0:
        return fake_trial(trial, store, workers=workers, **where).state
    for _ in range(100):  # rank 0 may be slower
        if store.is_running(name) or store.record(name).state == "done":
            break
        time.sleep(0.02)
    while store.is_running(name):
        time.sleep(0.02)
    return store.record(name).state
