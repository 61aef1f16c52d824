"""How large a checkpoint of a trial will be, before it is trained: its model is built and thrown away, in a process of its own **(ours)**.

So whoever asks has neither torch nor the model in memory afterwards. ``python -m salt_lab.train.weigh`` reads trials and writes sizes, as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from salt_lab.spec.trial import Trial

#: Numbers of the optimiser per weight that it trains, which a checkpoint holds beside the weight.
OPTIMIZER_STATES = {"sgd": 1, "adamw": 2}
PATIENCE = 300.0


class Weight(NamedTuple):
    """Bytes of a trial's files: ``weights`` of the model alone, ``checkpoint`` with the optimiser's state and the running mean (EMA)."""

    weights: int
    checkpoint: int


def weigh(trials: Sequence[Trial]) -> list[Weight] | None:
    """Bytes of each trial's checkpoint, to some percent; None where a model cannot be built, which the trial itself will tell."""
    order = json.dumps([trial.model_dump(mode="json") for trial in trials])
    command = [sys.executable, "-W", "ignore", "-m", "salt_lab.train.weigh"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, input=order, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=True)
        return [Weight(*found) for found in json.loads(done.stdout.splitlines()[-1])]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def weight_of(trial: Trial) -> Weight:
    """Build the trial's model and count. To be called after :func:`salt_lab.train.libraries.load_libraries`."""
    from mmdet.registry import MODELS

    from salt_lab.compose import compose

    settings: Any = compose(trial).model
    if "backbone" in settings:
        settings.backbone.init_cfg = None  # the size does not depend on the weights: none are read
    model = MODELS.build(settings)
    state = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    trained = sum(weight.numel() * weight.element_size() for weight in model.parameters() if weight.requires_grad)
    averaged = state if trial.schedule.ema is not None else 0
    return Weight(state, state + averaged + trained * OPTIMIZER_STATES[trial.schedule.optimizer])


def main() -> None:
    """One line: a pair of numbers for each trial."""
    from salt_lab.train.libraries import load_libraries

    trials = [Trial.model_validate(each) for each in json.load(sys.stdin)]
    load_libraries()
    sys.stdout.write(f"\n{json.dumps([weight_of(trial) for trial in trials])}\n")  # libraries may have begun a line


if __name__ == "__main__":
    main()
