"""Hooks of a trial: tell the recorder what happens, and make every epoch's randomness a function of seed and epoch alone."""

from __future__ import annotations

import math
import time
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import set_random_seed
from torch import Tensor

from salt_lab.errors import TrialFailed
from salt_lab.record.recorder import Recorder
from salt_lab.train.cost import peak_memory_mb


class ReseedHook(Hook):
    """Seeds all generators anew before each epoch, so that a resumed trial goes on exactly as one that was never interrupted."""

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Any) -> None:
        """Epochs get seeds far apart."""
        set_random_seed((self.seed * 1_000_003 + runner.epoch * 7919) % 2**31)


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

    def before_train_epoch(self, runner: Any) -> None:
        """Start the clock and the sums."""
        self._sums, self._iters, self._images, self._started = {}, 0, 0, time.perf_counter()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None) -> None:
        """Add up the losses without waiting for the device; the first step shows whether the toggles' losses are really there."""
        losses = {k: v for k, v in (outputs or {}).items() if "loss" in k}
        if runner.iter == 0 or not self._sums:
            self._check_losses(set(losses))
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + (value.detach() if isinstance(value, Tensor) else value)
        self._iters += 1
        self._images += len(data_batch["inputs"]) if data_batch else 0

    def _check_losses(self, names: set[str]) -> None:
        added = {name for name in names if name in ("loss_coarse", "loss_sdr")}
        if added != self.expected_losses:
            raise TrialFailed(f"the model computes the added losses {sorted(added)}, its toggles ask for {sorted(self.expected_losses)}")

    def after_train_epoch(self, runner: Any) -> None:
        """One ``epoch`` event."""
        seconds = time.perf_counter() - self._started
        losses = {name: float(total) / self._iters for name, total in self._sums.items()}
        epoch = runner.epoch + 1
        if not all(math.isfinite(v) for v in losses.values()):
            raise TrialFailed(
                f"the loss is no number any more in epoch {epoch}: {losses}. Try a lower schedule.lr or set schedule.clip_grad"
            )
        self.recorder.epoch(
            epoch,
            losses=losses,
            lr=float(runner.optim_wrapper.get_lr()["lr"][0]),
            seconds=seconds,
            images_per_second=self._images / seconds,
            memory_mb=peak_memory_mb(),
        )

    def before_val_epoch(self, runner: Any) -> None:
        """Start the clock."""
        self._val_started = time.perf_counter()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """One ``eval`` event."""
        self.eval_seconds += time.perf_counter() - self._val_started
        self.metrics = {k: float(v) for k, v in (metrics or {}).items()}
        self.recorder.eval(runner.epoch, self.metrics)


def finite_or_none(metrics: dict[str, float]) -> dict[str, float | None]:
    """NaN (nothing to measure) becomes None."""
    return {k: v if math.isfinite(v) else None for k, v in metrics.items()}
