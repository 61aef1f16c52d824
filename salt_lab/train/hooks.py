"""Hooks of a trial: tell the recorder what happens, and make every epoch's randomness a function of seed and epoch alone."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import set_random_seed
from torch import Tensor

from salt_lab.errors import TrialFailed
from salt_lab.record.recorder import Recorder
from salt_lab.train import agree
from salt_lab.train.cost import peak_memory_mb

#: Steps between two looks at the losses: each makes the device's work wait for the answer.
LOOK_EVERY = 50


class ReseedHook(Hook):
    """Seeds all generators anew before each epoch, so that a resumed trial goes on exactly as one that was never interrupted."""

    priority = "VERY_HIGH"

    def __init__(self, seed: int, worker: int = 0) -> None:
        self.seed, self.worker = seed, worker

    def before_train_epoch(self, runner: Any) -> None:
        """Epochs get seeds far apart, and so do workers: each augments by draws of its own. Their shares of the images are the sampler's affair."""
        set_random_seed((self.seed * 1_000_003 + runner.epoch * 7919 + self.worker * 15_485_863) % 2**31)


class SharedStatisticsHook(Hook):
    """After each epoch all workers have one model again: batch norm's running statistics become their mean over the workers.

    Each worker normalises by its own share of a batch, as mmdet has it. But what is evaluated has to be what the checkpoint holds. One amid
    an epoch holds each worker's own statistics, to go on with.
    """

    priority = "NORMAL"  # after the steps, before the checkpoint (VERY_LOW) and the evaluation

    def __init__(self) -> None:
        self._to_keep: list[list[Tensor]] = []
        self._kept: list[list[Tensor]] = []

    def after_train_epoch(self, runner: Any) -> None:
        """On all workers together."""
        agree.share_statistics(runner)

    def share(self, runner: Any) -> None:
        """On all workers, before a checkpoint amid an epoch."""
        self._to_keep = agree.gathered([one.cpu() for one in agree.statistics(runner.model)])

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """What :meth:`share` brought, once."""
        checkpoint.update({"statistics": self._to_keep} if self._to_keep else {})
        self._to_keep = []

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Remember them while the weights are loaded; with another number of workers all go on with those of the first."""
        kept = checkpoint.get("statistics", []) if runner._resume else []
        self._kept = kept if len(kept) == agree.how_many() else []

    def before_train(self, runner: Any) -> None:
        """Each worker has its own again."""
        if self._kept:
            for one, kept in zip(agree.statistics(runner.model), self._kept[agree.rank()], strict=True):
                one.copy_(kept)
            self._kept = []


class HeartbeatHook(Hook):
    """Touches a file while the training gets on, so that another process can tell one that hangs from one that is slow.

    Args:
        file: usually ``STORE/trials/<id>/heartbeat``; its modification time says when the last step, or evaluated batch, ended.
        seconds: at most one touch in this time.
    """

    priority = "VERY_LOW"

    def __init__(self, file: Path, seconds: float = 5.0) -> None:
        self.file, self.seconds = file, seconds
        self._last = -math.inf

    def before_run(self, runner: Any) -> None:
        """The model stands."""
        self.beat()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None) -> None:
        """A step is done."""
        self.beat()

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """A batch is evaluated."""
        self.beat()

    def beat(self) -> None:
        """Touch the file, unless that was done a moment ago. A file that cannot be touched is no reason to stop."""
        now = time.monotonic()
        if now - self._last >= self.seconds:
            self._last = now
            with contextlib.suppress(OSError):
                self.file.touch()


class PlainCheckpointHook(Hook):
    """Leaves mmengine's log history out of checkpoints: what remains is tensors and plain values, so they load without trusting a pickle."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """The record keeps the history; resuming does not need it."""
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}


class RecordHook(Hook):
    """Tells the recorder of every epoch and evaluation, and stops a trial whose loss is no number any more."""

    priority = "LOW"  # after the optimiser and the schedulers, before the checkpoint (VERY_LOW)

    def __init__(self, recorder: Recorder, expected_losses: frozenset[str]) -> None:
        self.recorder = recorder
        self.expected_losses = expected_losses
        self.metrics: dict[str, float] = {}
        self.eval_seconds = 0.0
        self._sums: dict[str, Tensor | float] = {}
        self._iters = self._images = 0
        self._started = 0.0
        self._open = False
        self._kept: dict[str, Any] | None = None
        self._others: list[dict[str, Any]] = []

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take up the sums of an epoch that was left amid."""
        kept = [checkpoint["sums"], *checkpoint.get("sums_of_others", [])] if runner._resume and checkpoint.get("sums") else []
        self._kept = kept[agree.rank()] if len(kept) == agree.how_many() else shared_out(kept, agree.how_many())

    def before_train(self, runner: Any) -> None:
        """An evaluation that a stop cut off is made up for: it belongs between the epoch it was due after and the next."""
        loop, epoch = runner.val_loop, runner.epoch
        due = loop is not None and epoch > 0 and self._kept is None and is_evaluated(runner.train_loop, epoch)
        if due and agree.agreed(epoch not in self.recorder.record().evals):
            loop.run()

    def before_train_epoch(self, runner: Any) -> None:
        """Start the clock and the sums, or go on with those of the checkpoint."""
        kept, self._kept = self._kept or {}, None
        self._sums = dict(kept.get("losses", {}))
        self._iters, self._images = kept.get("iters", 0), kept.get("images", 0)
        self._started, self._open = time.perf_counter() - kept.get("seconds", 0.0), True

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Amid an epoch: its sums so far, of numbers only."""
        if self._open:
            self._check_finite(runner)
            checkpoint["sums"] = self._so_far()
            checkpoint.update({"sums_of_others": self._others} if self._others else {})

    def share(self, runner: Any) -> None:
        """On all workers, before a checkpoint amid an epoch: the one that writes it gets the others' sums."""
        self._others = agree.gathered(self._so_far())[1:]

    def _so_far(self) -> dict[str, Any]:
        spent = time.perf_counter() - self._started
        losses = {name: total.cpu() if isinstance(total, Tensor) else total for name, total in self._sums.items()}
        return {"losses": losses, "iters": self._iters, "images": self._images, "seconds": spent}

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None) -> None:
        """Add up the losses without waiting for the device; the first step shows whether the toggles' losses are really there."""
        losses = {k: v for k, v in (outputs or {}).items() if "loss" in k}
        if runner.iter == 0 or not self._sums:
            self._check_losses(set(losses))
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + (value.detach() if isinstance(value, Tensor) else value)
        self._iters += 1
        self._images += len(data_batch["inputs"]) if data_batch else 0
        if self._iters % LOOK_EVERY == 0:
            self._check_finite(runner)

    def _check_losses(self, names: set[str]) -> None:
        added = {name for name in names if name in ("loss_coarse", "loss_sdr")}
        if added != self.expected_losses:
            raise TrialFailed(f"the model computes the added losses {sorted(added)}, its toggles ask for {sorted(self.expected_losses)}")

    def _check_finite(self, runner: Any) -> dict[str, float]:
        """The mean losses of the epoch so far. What is no number once stays none in a sum, so a look from time to time misses nothing."""
        losses = {name: float(total) / max(1, self._iters) for name, total in self._sums.items()}
        if not all(math.isfinite(v) for v in losses.values()):
            raise TrialFailed(
                f"the loss is no number any more in epoch {runner.epoch + 1} (seen after its step {self._iters}): {losses}. "
                "Try a lower schedule.lr or set schedule.clip_grad"
            )
        return losses

    def after_train_epoch(self, runner: Any) -> None:
        """One ``epoch`` event: losses are means over the workers, images are those of all, memory is the most that one took."""
        seconds = time.perf_counter() - self._started
        losses, epoch = self._check_finite(runner), runner.epoch + 1
        self._open = False
        mine: dict[str, Any] = {"losses": losses, "images": self._images, "memory": peak_memory_mb()}
        workers = agree.gathered(mine)
        self.recorder.epoch(
            epoch,
            losses={name: sum(each["losses"][name] for each in workers) / len(workers) for name in losses},
            lr=float(runner.optim_wrapper.get_lr()["lr"][0]),
            seconds=seconds,
            images_per_second=sum(each["images"] for each in workers) / seconds,
            memory_mb=max(each["memory"] for each in workers),
        )

    def before_val_epoch(self, runner: Any) -> None:
        """Start the clock."""
        self._val_started = time.perf_counter()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """One ``eval`` event."""
        self.eval_seconds += time.perf_counter() - self._val_started
        self.metrics = {k: float(v) for k, v in (metrics or {}).items()}
        self.recorder.eval(runner.epoch, self.metrics)


def shared_out(sums: list[dict[str, Any]], workers: int) -> dict[str, Any] | None:
    """What each of ``workers`` goes on with of the sums that another number of workers left amid an epoch; None where there are none."""
    if not sums:
        return None
    losses = {name: sum(each["losses"][name] for each in sums) / len(sums) for name in sums[0]["losses"]}
    return {**sums[0], "losses": losses, "images": sum(each["images"] for each in sums) / workers}


def is_evaluated(loop: Any, epoch: int) -> bool:
    """Does mmengine's training loop evaluate after ``epoch`` (from 1)?"""
    return epoch >= loop.val_begin and (epoch % loop.val_interval == 0 or epoch == loop.max_epochs)


def finite_or_none(metrics: dict[str, float]) -> dict[str, float | None]:
    """NaN (nothing to measure) becomes None."""
    return {k: v if math.isfinite(v) else None for k, v in metrics.items()}
