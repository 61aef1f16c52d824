"""The running mean of the weights (EMA): what is evaluated, and what a checkpoint's ``state_dict`` holds, where ``schedule.ema`` is set."""

from __future__ import annotations

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import EMAHook


@HOOKS.register_module()
class RunningMeanHook(EMAHook):
    """mmengine's EMAHook with ``mean <- (1 - momentum) * mean + momentum * weights`` after every step; batch norm's statistics are the last ones.

    The checkpoint has the mean under ``state_dict`` and the learnt weights under ``ema_state_dict``; resuming swaps them back, so that it
    goes on exactly. mmengine's hook starts its mean anew whenever the Runner is asked to run: an evaluation right after
    resuming would then measure the learnt weights. This one keeps it.

    Args:
        momentum: 0 to 1, small; 0.0002 forgets half of a weight in about 3,500 steps.
    """

    def __init__(self, momentum: float) -> None:
        super().__init__(momentum=momentum, strict_load=True)

    def before_run(self, runner: Any) -> None:
        """The mean starts as the first weights, once."""
        if not hasattr(self, "ema_model"):
            super().before_run(runner)
