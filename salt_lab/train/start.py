"""Starting a training from the weights of a whole detector: a trial's ``weights``, and ``load_from`` of an mmdet-style config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from salt_lab.errors import WeightsError
from salt_lab.models.weights import load_host
from salt_lab.spec.weights_file import whats_wrong


class StartFromHook(Hook):
    """Loads what fits of a checkpoint into the model after its initialisation, before the first step; the log says what came of it.

    To be registered on a start from scratch only: a training that goes on from its own checkpoint has its weights from there. The running
    mean of EMAHook copies the model at the first step, so it starts from the same weights.

    Args:
        source: weights file of a whole detector, or an address of one (``https://...``).
        trust: the user's word that it may be unpickled whole.
    """

    def __init__(self, source: str, trust: bool = False) -> None:
        self.source = source
        self.trust = trust

    def before_train(self, runner: Any) -> None:
        """On every worker alike, so that all start equal."""
        result = load_host(runner.model, self.source, self.trust)
        runner.logger.info(f"weights from {Path(self.source).name}:\n{result.report()}")


def check_load_from(settings: Any, config: str) -> None:
    """Look at the file that ``load_from`` of a config names, before anything starts.

    Raises:
        WeightsError: it cannot be used.
    """
    source = settings.get("load_from")
    if source and "://" not in source and (problem := whats_wrong(Path(source))) is not None:
        raise WeightsError(f"{config}: load_from = {source}: {problem}; correct it, or leave it out with load_from=null")


def take_load_from(settings: Any) -> list[Hook]:
    """Take ``load_from`` out of a config and give the hook that does its work; none where the training goes on (``settings.resume``).

    mmengine would resume from ``load_from`` instead of from the training's own last checkpoint, and would load a checkpoint of another
    network without complaint.
    """
    source, settings.load_from = settings.get("load_from"), None
    return [StartFromHook(source)] if source and not settings.resume else []
