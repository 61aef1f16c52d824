"""Reading weights files (plain tensors only, never a pickle of unknown origin) and starting a backbone from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from salt_lab.errors import WeightsError

#: blocks per stage of MobileNetV2 (torchvision counts features.1 to features.17 through, mmdet layer1 to layer7)
MOBILENET_V2_BLOCKS = (1, 2, 3, 4, 3, 3, 1)


def read_weights(path: Path) -> dict[str, Tensor]:
    """State dict of a ``.pth`` file (bare, or under ``state_dict`` or ``model``), read with ``weights_only``.

    Raises:
        WeightsError: the file is missing, cut short, holds more than plain tensors, or holds no tensors at all.
    """
    import torch

    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a bad file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: cannot be read as a weights file ({reason}); expected tensors saved by torch.save") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    tensors = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, dict) else {}
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors by name; expected a state dict")
    return tensors


def mobilenet_v2_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's MobileNetV2 names (``features.N...``) to mmdet's (``conv1``, ``layerL.B``, ``conv2``); other names pass."""
    block_of = {}
    number = 1
    for layer, count in enumerate(MOBILENET_V2_BLOCKS, start=1):
        for block in range(count):
            block_of[number] = f"layer{layer}.{block}"
            number += 1
    last = number
    part = {"0": "conv", "1": "bn"}
    renamed = {}
    for name, value in state.items():
        outer = re.fullmatch(r"features\.(\d+)\.([01])\.(\w+)", name)
        inner = re.fullmatch(r"features\.(\d+)\.conv\.(\d)(?:\.([01]))?\.(\w+)", name)
        if outer and int(outer[1]) in (0, last):
            renamed[f"{'conv1' if outer[1] == '0' else 'conv2'}.{part[outer[2]]}.{outer[3]}"] = value
        elif inner and int(inner[1]) in block_of:
            renamed[f"{block_of[int(inner[1])]}.{_mobilenet_part(int(inner[1]), inner[2], inner[3], part)}.{inner[4]}"] = value
        else:
            renamed[name] = value
    return renamed


def _mobilenet_part(number: int, index: str, sub: str | None, part: Mapping[str, str]) -> str:
    """The first block has no expansion; the linear convolution and its norm are not nested."""
    names = ["depthwise_conv", "linear_conv"] if number == 1 else ["expand_conv", "depthwise_conv", "linear_conv"]
    at = int(index)
    if sub is not None:
        return f"{names[at]}.{part[sub]}"
    return f"linear_conv.{'conv' if at == len(names) - 1 else 'bn'}"


def load_backbone(backbone: nn.Module, path: Path) -> tuple[int, int, int]:
    """Start ``backbone`` from a file: torchvision's or mmdet's names, with or without a ``backbone.`` or ``module.`` prefix.

    Returns:
        Number of tensors (loaded, left fresh in the model, unused in the file).

    Raises:
        WeightsError: unreadable, a shape that differs, or less than half of the backbone's tensors found.
    """
    state = {re.sub(r"^(module\.)?(backbone\.)?", "", k): v for k, v in read_weights(path).items()}
    state = mobilenet_v2_names(state)
    own = backbone.state_dict()
    found = {k: v for k, v in state.items() if k in own}
    for name, value in found.items():
        if value.shape != own[name].shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(value.shape)}, the backbone needs {tuple(own[name].shape)}: is it another width?"
            )
    wanted = [k for k in own if not k.endswith("num_batches_tracked")]
    missing = [k for k in wanted if k not in found]
    if len(missing) > len(wanted) / 2:
        raise WeightsError(
            f"{path}: only {len(wanted) - len(missing)} of the backbone's {len(wanted)} tensors are in it: is it another backbone's?"
        )
    backbone.load_state_dict(found, strict=False)
    return len(found), len(missing), len(state) - len(found)


def register() -> None:
    """Register the initialiser under the name that configs use: ``init_cfg=dict(type='BackboneWeights', checkpoint=PATH)``."""
    from mmengine.logging import print_log
    from mmengine.registry import WEIGHT_INITIALIZERS

    if WEIGHT_INITIALIZERS.get("BackboneWeights") is not None:
        return

    @WEIGHT_INITIALIZERS.register_module(name="BackboneWeights")
    class BackboneWeights:
        """mmengine initialiser around :func:`load_backbone`; the log says what was loaded."""

        def __init__(self, checkpoint: str) -> None:
            self.checkpoint = Path(checkpoint)

        def __call__(self, module: nn.Module) -> None:
            loaded, fresh, unused = load_backbone(module, self.checkpoint)
            print_log(
                f"backbone from {self.checkpoint.name}: {loaded} tensors loaded, {fresh} fresh, {unused} in the file unused", "current"
            )
