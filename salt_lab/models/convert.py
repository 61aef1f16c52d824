"""The released code's weights of a SALT-Net head, under our names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from salt_lab.errors import WeightsError

#: released name (start of the key) -> ours, longest first where they share a start
RENAMED = {
    "salt_cls_refinement.conv.": "salt.vectors_hidden.0.",
    "salt_cls_refinement.bn.": "salt.vectors_hidden.1.",
    "salt_cls_refinement.proposal.": "salt.vectors_out.",
    "salt_cls_conv.conv.": "salt.cls_align.",
    "salt_cls_conv.bn.": "salt.cls_align.norm.",
    "reg_init_out.conv.": "salt.coarse_hidden.0.",
    "reg_init_out.bn.": "salt.coarse_hidden.1.",
    "reg_init_out.regression.": "salt.coarse_out.",
    "reg_init_out.scale_fs.": "salt.factors_out.",
    "salt_reg_conv.conv.": "salt.reg_align.",
    "salt_reg_conv.bn.": "salt.reg_align.norm.",
    "scales_init.": "salt.scales.",
    "salt_cls.": "gfl_cls.",
    "salt_reg.": "gfl_reg.",
}
#: the deformable convolutions, whose 3x3 kernel becomes K = 9 points in row-major order
ALIGN = ("salt.cls_align.weight", "salt.reg_align.weight")


def convert_head(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of a released SALT-Net head (keys without prefix) to one of :class:`~salt_lab.models.salt_net.SALTNetHead`.

    Keys that both share (towers, level scales, quality predictor, integral) pass unchanged.
    """
    ours = {}
    for name, value in released.items():
        start = next((old for old in RENAMED if name.startswith(old)), None)
        renamed = RENAMED[start] + name[len(start) :] if start else name
        ours[renamed] = value.flatten(2) if renamed in ALIGN else value
    return ours


def convert_state(state: Mapping[str, Tensor], prefix: str = "bbox_head.") -> dict[str, Tensor]:
    """A whole detector's state dict: the head's keys are converted, backbone and neck pass unchanged. Also a head's alone, without prefix."""
    if not any(k.startswith(prefix) for k in state):
        return convert_head(state)
    head = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    rest = {k: v for k, v in state.items() if not k.startswith(prefix)}
    return rest | {prefix + k: v for k, v in convert_head(head).items()}


def is_released(state: Mapping[str, Tensor]) -> bool:
    """Are these the names of the released SALT-Net code?"""
    return any("salt_cls_refinement." in name for name in state)


def convert_checkpoint(source: Path, target: Path, trust: bool = False) -> int:
    """Read a released checkpoint, write ours (safetensors where ``target`` ends so); an existing ``target`` is never overwritten.

    Args:
        source: the released checkpoint.
        target: the file to write.
        trust: the user's word that ``source`` may be unpickled whole.

    Returns:
        Number of tensors written.

    Raises:
        WeightsError: ``source`` cannot be read as plain tensors, is no SALT-Net checkpoint, or ``target`` exists.
    """
    from salt_lab.models.weight_names import unwrapped
    from salt_lab.models.weights_file import read_checkpoint, tensors_of, write_weights

    if target.exists():
        raise WeightsError(f"{target}: exists already: choose another name, nothing is overwritten")
    state = unwrapped(tensors_of(read_checkpoint(source, trust), source))
    if not is_released(state):
        raise WeightsError(f"{source}: no key of a released SALT-Net head (bbox_head.salt_cls_refinement...): is it a SALT-Net checkpoint?")
    converted = convert_state(state)
    write_weights(converted, target, {"converted_from": source.name})
    return len(converted)
