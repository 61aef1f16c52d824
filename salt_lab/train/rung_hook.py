"""The end of a trial at a rung, inside mmengine's loop: after the epoch's checkpoint and evaluation, all workers together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook

from salt_lab.train.early_stop import Rungs


class RungHook(Hook):
    """Asks the rungs after each evaluation, and ends the training loop where they say so. Every worker needs one; that of rank 0 decides.

    ``stopped`` says afterwards whether that happened. The journal has it already; the epoch's checkpoint is on the disk, to go on from.
    """

    priority = "VERY_LOW"  # after RecordHook (LOW): the own AP is in the journal before others are read

    def __init__(self, rungs: Rungs | None) -> None:
        self.rungs = rungs
        self.stopped = False

    def before_train(self, runner: Any) -> None:
        """A process killed between the evaluation of a rung and its decision decides now.

        Where the evaluation is missing too, RecordHook has made up for it by now, and the decision with it.
        """
        if runner.epoch and not self.stopped:
            self._stop_if(runner, lambda rungs: rungs.on_resuming(runner.epoch))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """The evaluation of ``runner.epoch`` is in the journal."""
        self._stop_if(runner, lambda rungs: rungs.after_evaluation(runner.epoch))

    def _stop_if(self, runner: Any, ask: Callable[[Rungs], bool]) -> None:
        answer = [is_main_process() and self.rungs is not None and ask(self.rungs)]
        broadcast_object_list(answer)
        if answer[0]:
            self.stopped = runner.train_loop.stop_training = True
