"""Stopping after a step, and going on amid an epoch as if nothing had been.

A checkpoint amid an epoch holds, besides what one at its end holds, how many of the epoch's steps are done and the state of every random
generator. Going on, those steps' batches are passed over in the sampler, so that none of their images is loaded. Without loader processes
the rest is equal to the bit; with them the same images come in the same order, each augmented by draws of its own.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from salt_lab.errors import SaltLabError, TrialFailed
from salt_lab.train import agree
from salt_lab.train.checkpoints import write_checkpoint
from salt_lab.train.stop import STOP

MINUTES = 15.0


@HOOKS.register_module()
class ExactCheckpointHook(Hook):
    """Checkpoints from which a training goes on exactly: after every epoch, every so many minutes amid one, and when :data:`STOP` asks.

    Files are written whole or not at all, and the last two are kept (:mod:`salt_lab.train.checkpoints`). Several workers act after the same
    step, the one of rank 0 writes.

    Args:
        minutes: wall time between checkpoints amid an epoch: what a killed process may lose.
    """

    priority = "VERY_LOW"

    def __init__(self, minutes: float = MINUTES) -> None:
        self.minutes = minutes
        self._amid: Mapping[str, Any] | None = None
        self._now: dict[str, Any] | None = None
        self._done_before = 0
        self._kept_at = time.monotonic()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Remember where in its epoch the training stood."""
        self._amid = checkpoint.get("amid") if runner._resume else None

    def before_train(self, runner: Any) -> None:
        """The clock of the checkpoints amid an epoch starts; loader processes leave stopping to this process."""
        self._kept_at = time.monotonic()
        loader = runner.train_dataloader
        if loader.num_workers:
            loader.worker_init_fn = partial(_deaf, loader.worker_init_fn)

    def before_train_epoch(self, runner: Any) -> None:
        """Pass over the steps that are done."""
        amid, self._amid = self._amid, None
        self._done_before = int(amid["step"]) if amid else 0
        if amid:
            pass_over(runner.train_dataloader, self._done_before, partial(set_random_state, _mine(amid["random"])))
            steps = len(runner.train_dataloader)
            runner.logger.info(
                f"goes on after step {self._done_before} of {steps} of epoch {runner.epoch + 1}; below, its steps count anew"
            )
        STOP.stepping = True

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None) -> None:
        """Keep the state where it is time, or where somebody wants to stop; the last step of an epoch leaves that to the epoch's end."""
        step = self._done_before + batch_idx + 1
        due = time.monotonic() - self._kept_at >= 60 * self.minutes
        if step >= len(runner.train_dataloader) or not agree.any_worker(due or STOP.reason is not None):
            return
        reason = _agreed_reason()
        agree.before_keeping(runner)
        states = agree.gathered(random_state())
        name = f"epoch_{runner.epoch}_step_{step}.pth"
        self._save(runner, name, {"epoch": runner.epoch, "iter": runner.iter + 1}, {"step": step, "random": states})
        if reason:
            raise KeyboardInterrupt(f"{reason}: stopped after step {step} of epoch {runner.epoch + 1}; run again to go on from there")

    def after_train_epoch(self, runner: Any) -> None:
        """One checkpoint, named after the number of epochs done."""
        epoch = runner.epoch + 1
        self._save(runner, f"epoch_{epoch}.pth", {"epoch": epoch, "iter": runner.iter}, None)
        STOP.stepping = False
        if reason := _agreed_reason():
            raise KeyboardInterrupt(f"{reason}: stopped after epoch {epoch}; run again to go on from there")

    def _save(self, runner: Any, name: str, where: dict[str, int], amid: dict[str, Any] | None) -> None:
        folder, error = Path(runner.work_dir), None
        if agree.is_first():
            try:
                write_checkpoint(folder, name, lambda partial_name: self._write(runner, partial_name, where, amid))
            except SaltLabError as problem:
                error = problem
        if agree.any_worker(error is not None):  # also: nobody leaves before the file is whole
            raise error or TrialFailed(f"{folder}: the worker of rank 0 could not write the checkpoint {name}; see its log")
        self._kept_at = time.monotonic()

    def _write(self, runner: Any, name: str, where: dict[str, int], amid: dict[str, Any] | None) -> None:
        self._now = amid
        try:
            runner.save_checkpoint(runner.work_dir, name, meta=dict(where))
        finally:
            self._now = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Where in its epoch the training stands."""
        if self._now is not None:
            checkpoint["amid"] = self._now


class PassingOver:
    """A batch sampler that yields another one's batches, once without the first ones."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self._number, self._then = 0, _nothing

    def pass_over(self, number: int, then: Callable[[], None]) -> None:
        """The next time through, leave out the first ``number`` batches, and call ``then`` right before the first that is loaded."""
        self._number, self._then = number, then

    def __iter__(self) -> Iterator[Any]:
        (number, then), (self._number, self._then) = (self._number, self._then), (0, _nothing)
        batches = iter(self._batches)
        for _ in range(number):
            next(batches, None)
        then()
        yield from batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        if name == "_batches":
            raise AttributeError(name)
        return getattr(self._batches, name)


def pass_over(loader: Any, number: int, then: Callable[[], None]) -> None:
    """Let a DataLoader that was not iterated yet leave out the first ``number`` batches of its next epoch, without loading them.

    Args:
        loader: a torch DataLoader with a batch sampler. Its length stays that of a whole epoch.
        number: batches to leave out.
        then: called after that, before the first batch is loaded.
    """
    if not isinstance(loader.batch_sampler, PassingOver):
        object.__setattr__(loader, "batch_sampler", PassingOver(loader.batch_sampler))  # torch's own __setattr__ refuses
    loader.batch_sampler.pass_over(number, then)


def random_state() -> dict[str, Any]:
    """The state of every random generator of this process, as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - the generator that mmcv draws augmentations from
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: Mapping[str, Any] | None) -> None:
    """Set every random generator to what :func:`random_state` gave; None leaves them."""
    if state is None:
        return
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def _mine(states: list[Any]) -> Mapping[str, Any] | None:
    """This worker's state; None where the training was on another number of workers, whose draws cannot be continued."""
    return states[agree.rank()] if len(states) == agree.how_many() else None


def _agreed_reason() -> str | None:
    return next((reason for reason in agree.gathered(STOP.reason) if reason), None)


def _deaf(setup: Callable[[int], None] | None, worker: int) -> None:
    """In a loader process: a signal to the whole process group (Ctrl-C, a scheduler's SIGTERM) is for the process that trains.

    torch tells its loader processes to end in another way, and they end by themselves once that one is gone. A second SIGTERM ends them.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, leave))
    if setup is not None:
        setup(worker)


def _nothing() -> None:
    pass
