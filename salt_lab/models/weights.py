"""Starting a backbone, or a whole host, from a weights file, and saying what came of every tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from salt_lab.errors import WeightsError
from salt_lab.models.convert import convert_state, is_released
from salt_lab.models.weight_names import backbone_names, todays_names, unwrapped
from salt_lab.models.weights_file import read_checkpoint, tensors_of

#: why a tensor of the file is left out when the model has none of that name
NO_SUCH_PART = "the model has no such part"
#: groups and single tensors that a line of the report names before it counts the rest
_SHOWN = 12


class Loaded(NamedTuple):
    """What came of a file's and a model's tensors, by name. Batch norm's step counters are nobody's loss and not reported as new."""

    loaded: tuple[str, ...]  #: in the file and in the model
    skipped: dict[str, str]  #: in the file only, or with another shape -> why
    new: tuple[str, ...]  #: in the model only: they keep the values they had

    def report(self) -> str:
        """Three lines that a person can read: tensors counted by part, those with another shape by name."""
        shapes = [f"{name} {why}" for name, why in self.skipped.items() if why != NO_SUCH_PART]
        unused = [name for name, why in self.skipped.items() if why == NO_SUCH_PART]
        left_out = [*_first(shapes), *([f"{NO_SUCH_PART}: {_by_part(unused)}"] if unused else [])]
        return "\n".join(
            (
                f"loaded {len(self.loaded)} tensors: {_by_part(self.loaded) or 'none'}",
                f"skipped {len(self.skipped)} tensors of the file: {'; '.join(left_out) or 'none'}",
                f"new {len(self.new)} tensors, as initialised: {_by_part(self.new) or 'none'}",
            )
        )


def _by_part(names: Iterable[str]) -> str:
    counts = Counter(".".join(name.split(".")[:-1][:2]) or name for name in names)
    return ", ".join(_first([f"{part} {count}" for part, count in counts.items()]))


def _first(items: list[str]) -> list[str]:
    return items if len(items) <= _SHOWN else [*items[:_SHOWN], f"and {len(items) - _SHOWN} more"]


def read_weights(path: Path | str, trust: bool = False) -> dict[str, Tensor]:
    """State dict of a weights file (torch.save or safetensors), ready for a model of ours.

    Wrappers' prefixes (``module.``) are taken off, and the released SALT-Net code's names become ours (:mod:`salt_lab.models.convert`).

    Args:
        path: the file, or an address of one.
        trust: the user's word that it may be unpickled whole; see :func:`~salt_lab.models.weights_file.read_checkpoint`.

    Raises:
        WeightsError: the file is missing, damaged, holds more than plain values without ``trust``, or holds no tensors at all.
    """
    state = unwrapped(tensors_of(read_checkpoint(path, trust), path))
    return convert_state(state) if is_released(state) else state


def load_backbone(backbone: nn.Module, path: Path, trust: bool = False) -> Loaded:
    """Start ``backbone`` from a file with torchvision's, timm's or mmdet's names, bare or as part of a classifier or detector.

    Raises:
        WeightsError: unreadable, a shape that differs, or less than half of the backbone's tensors found.
    """
    state = backbone_names(read_weights(path, trust))
    own = backbone.state_dict()
    for name in [k for k in state if k in own]:
        if state[name].shape != own[name].shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, the backbone needs {tuple(own[name].shape)}: is it another width?"
            )
    result = _sort(own, state)
    _check_half(result, own, path, "is it another backbone's?")
    _put(own, state, result.loaded)
    return result


def load_host(model: nn.Module, path: Path | str, trust: bool = False) -> Loaded:
    """Start a whole detector from a checkpoint of it or its kin, such as mmdet's model zoo's ATSS for ATSS with SALT.

    What fits by name and shape is loaded; the operator's parts, and class predictors of another number of classes, keep their fresh values.

    Args:
        model: the detector, also inside DistributedDataParallel; changed in place.
        path: a weights file of a whole detector, or an address of one.
        trust: the user's word that it may be unpickled whole.

    Raises:
        WeightsError: unreadable, or less than half of the backbone's tensors found, which is then another detector's file or a backbone's.
    """
    own = getattr(model, "module", model).state_dict()
    state = todays_names(read_weights(path, trust))
    result = _sort(own, state)
    body = {name: value for name, value in own.items() if name.startswith("backbone.")}
    hint = "is it another network's? (a backbone's own file goes into backbone.init)"
    _check_half(result, body or own, path, hint)
    _put(own, state, result.loaded)
    return result


def _sort(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Loaded:
    """Which names go where; changes nothing."""
    loaded = tuple(name for name in own if name in state and state[name].shape == own[name].shape)
    fits, skipped = set(loaded), {}
    for name in state.keys() - fits:
        differs = f"{tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model" if name in own else NO_SUCH_PART
        skipped[name] = differs
    new = tuple(name for name in own if name not in fits and not name.endswith("num_batches_tracked"))
    return Loaded(loaded, dict(sorted(skipped.items())), new)


def _check_half(result: Loaded, own: Mapping[str, Tensor], path: Path | str, question: str) -> None:
    """Less than half of the backbone: that file was not meant."""
    wanted = [name for name in own if not name.endswith("num_batches_tracked")]
    found = len(set(wanted) & set(result.loaded))
    if found < len(wanted) / 2:
        shape = next((f", e.g. {name} is {why}" for name, why in result.skipped.items() if name in own), "")
        raise WeightsError(f"{path}: only {found} of the backbone's {len(wanted)} tensors are in it and fit{shape}: {question}")


@torch.no_grad()
def _put(own: Mapping[str, Tensor], state: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Copy by hand: load_state_dict would let heads rename what :func:`todays_names` has renamed already."""
    for name in names:
        own[name].copy_(state[name])


def register() -> None:
    """Register the initialiser that configs use, ``init_cfg=dict(type='BackboneWeights', checkpoint=PATH)``, and mmengine's doors."""
    from mmengine.logging import print_log
    from mmengine.registry import WEIGHT_INITIALIZERS

    from salt_lab.models.mmengine_doors import close_doors

    close_doors()
    if WEIGHT_INITIALIZERS.get("BackboneWeights") is not None:
        return

    @WEIGHT_INITIALIZERS.register_module(name="BackboneWeights")
    class BackboneWeights:
        """mmengine initialiser around :func:`load_backbone`; the log says what was loaded."""

        def __init__(self, checkpoint: str) -> None:
            self.checkpoint = Path(checkpoint)

        def __call__(self, module: nn.Module) -> None:
            result = load_backbone(module, self.checkpoint)
            print_log(f"backbone from {self.checkpoint.name}:\n{result.report()}", "current")
