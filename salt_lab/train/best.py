"""The weights of the best evaluation, kept where the study's ``retention`` asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from salt_lab.record.recorder import Recorder
from salt_lab.train import agree
from salt_lab.train.checkpoints import write_checkpoint
from salt_lab.train.retention import best_epoch


class BestHook(Hook):
    """Keeps the weights of the evaluation with the best AP so far, as ``best_epoch_N.pth``: those that were evaluated, without the optimiser.

    Args:
        recorder: has the earlier evaluations, of earlier attempts too.
    """

    priority = "VERY_LOW"

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._saving = False

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """On the worker that records."""
        if agree.is_first() and best_epoch(self.recorder.record().evals) == runner.epoch:
            folder = Path(runner.work_dir)
            path = write_checkpoint(folder, f"best_epoch_{runner.epoch}.pth", lambda name: self._write(runner, name))
            for other in folder.glob("best_epoch_*.pth"):
                if other != path:
                    other.unlink(missing_ok=True)

    def _write(self, runner: Any, name: str) -> None:
        self._saving = True
        try:
            where = {"epoch": runner.epoch, "iter": runner.iter}
            runner.save_checkpoint(runner.work_dir, name, save_optimizer=False, save_param_scheduler=False, meta=where)
        finally:
            self._saving = False

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Weights alone: with a running mean, the mean."""
        if self._saving:
            for key in set(checkpoint) - {"meta", "state_dict", "message_hub"}:
                del checkpoint[key]
