"""The same backbone under the names of torchvision, timm and mmdet; names of mmdet's earlier versions.

ResNets have the same names in all three (timm's ``...d`` variants are other networks). MobileNetV2 has three sets of names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

#: blocks per stage of MobileNetV2 (torchvision counts features.1 to features.17 through, mmdet layer1 to layer7, timm blocks.0 to blocks.6)
MOBILENET_V2_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
#: what wrappers put in front: DistributedDataParallel, and torch.compile
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")
#: earlier mmdet's names in heads and deformable backbones, as regular expression -> today's
_EARLIER = ((r"^bbox_head\.fcos_(cls|reg|centerness)\.", r"bbox_head.conv_\1."), (r"\.conv2_offset\.", ".conv2.conv_offset."))


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what DistributedDataParallel and torch.compile put in front of them."""
    return {_WRAPPERS.sub("", name): value for name, value in state.items()}


def todays_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole detector's names of earlier mmdet versions as of 3.x; others pass."""
    renamed = dict(state)
    for old, new in _EARLIER:
        renamed = {re.sub(old, new, name): value for name, value in renamed.items()}
    return renamed


def backbone_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's state dict under mmdet's names, from torchvision's, timm's or mmdet's own.

    Of a whole detector's or classifier's checkpoint in mmdet's style ``backbone.`` is taken off; what else is in the file keeps its name.
    """
    bare = {name.removeprefix("backbone."): value for name, value in unwrapped(state).items()}
    if any(name.startswith("features.") for name in bare):
        return mobilenet_v2_names(bare)
    if "conv_stem.weight" in bare:
        return timm_mobilenet_v2_names(bare)
    return bare


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


#: timm's parts of a block -> mmdet's: of the first block, which has no expansion, and of all others
_TIMM_FIRST = {"conv_dw": "depthwise_conv.conv", "bn1": "depthwise_conv.bn", "conv_pw": "linear_conv.conv", "bn2": "linear_conv.bn"}
_TIMM_OTHER = {
    "conv_pw": "expand_conv.conv",
    "bn1": "expand_conv.bn",
    "conv_dw": "depthwise_conv.conv",
    "bn2": "depthwise_conv.bn",
    "conv_pwl": "linear_conv.conv",
    "bn3": "linear_conv.bn",
}
_TIMM_OUTER = {"conv_stem": "conv1.conv", "bn1": "conv1.bn", "conv_head": "conv2.conv", "bn2": "conv2.bn"}


def timm_mobilenet_v2_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's MobileNetV2 names (``conv_stem``, ``blocks.S.B...``, ``conv_head``) to mmdet's; other names pass."""
    renamed = {}
    for name, value in state.items():
        inner = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", name)
        part, _, leaf = name.partition(".")
        if inner and (ours := (_TIMM_FIRST if inner[1] == "0" else _TIMM_OTHER).get(inner[3])):
            name = f"layer{int(inner[1]) + 1}.{inner[2]}.{ours}.{inner[4]}"
        elif part in _TIMM_OUTER:
            name = f"{_TIMM_OUTER[part]}.{leaf}"
        renamed[name] = value
    return renamed
