"""Proof that the toggles took effect: what the built model and runner really have, against what the trial asks for."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook
from torch import nn

from salt_lab.compose.anyhost import short_type
from salt_lab.compose.hosts import host_of, mmdet_config
from salt_lab.compose.model import FINEST, network
from salt_lab.errors import TrialFailed
from salt_lab.spec.parts import MMDET, QUALITY
from salt_lab.spec.trial import Trial, canonical, flatten

#: class of a head -> host, where the class alone says it; a SALT head's class is "SALT" and the host's
HEADS = {
    "AutoAssignHead": "autoassign", "DDODHead": "ddod", "FoveaHead": "fovea", "GFLHead": "gfl", "GFLv2Head": "gflv2", "NetHead": "salt_net",
    "PAAHead": "paa", "RepPointsHead": "reppoints", "TOODHead": "tood", "VFNetHead": "vfnet",
}  # fmt: skip
#: what a detector may be made of
PARTS = ("rpn_head", "roi_head", "bbox_head")
#: what heads call their towers; TOOD has one for both tasks
TOWERS = ("cls_convs", "inter_convs")
#: toggles of the trial that the canonical form leaves out at their default, but that a built model has all the same
SALT_TOGGLES = ("long_skip", "reg_at", "cls_at", "stop_gradient", "sdr_kind", "sdr_gate", "sdr_from_epoch")


def effective(runner: Any) -> dict[str, Any]:
    """Read the toggles back from the built model, optimiser, loops and hooks: dotted keys as in :func:`salt_lab.spec.trial.canonical`.

    Nothing is taken from the configuration where the built object can be asked: K is the kernel size of the point convolution's weight, the
    tower's depth is the number of its convolutions. ``heads`` names the classes of the heads.
    """
    model = runner.model.module if hasattr(runner.model, "module") else runner.model
    return built(model) | {"seed": runner.seed} | _training(runner)


def built(model: Any) -> dict[str, Any]:
    """The part of :func:`effective` that the model alone tells: host, network, width, depth, operator."""
    backbone = model.backbone
    found = {"heads": heads(model), "host": host_name(model), "backbone.name": _backbone_name(backbone)} | _head(model)
    if type(backbone).__name__ == "ResNet":
        found["backbone.base_channels"] = backbone.conv1.out_channels if hasattr(backbone, "conv1") else backbone.stem[-3].out_channels
    return found


def heads(model: Any) -> str:
    """Classes of the detector's heads: ``ATSSHead``, ``RPNHead + StandardRoIHead``."""
    return " + ".join(type(getattr(model, part)).__name__ for part in PARTS if getattr(model, part, None) is not None)


def host_name(model: Any) -> str:
    """Which host this model is, by its parts; the names of its heads if it is none of the table."""
    head: Any = getattr(model, "bbox_head", None)
    kind, necks = heads(model).removeprefix("SALT"), [type(neck).__name__ for neck in _necks(model)]
    if kind == "ATSSHead" and necks == ["FPN", "DyHead"]:
        return "dyhead"
    if necks != ["FPN"]:
        return kind
    if kind == "ATSSHead":
        return "atss"
    if kind == "RetinaHead":
        return {1: "retinanet", 9: "retinanet_9_anchors"}.get(head.num_base_priors, kind)
    if kind == "FCOSHead":
        tricks = {head.norm_on_bbox, head.centerness_on_reg, head.center_sampling}
        return "fcos" if tricks == {True} else "fcos_plain" if tricks == {False} else kind
    return HEADS.get(kind, kind)


def _necks(model: Any) -> list[Any]:
    neck = getattr(model, "neck", None)
    return list(neck) if isinstance(neck, nn.Sequential) else [] if neck is None else [neck]


def _head(model: Any) -> dict[str, Any]:
    """Width and depth of the towers, and what was plugged into them."""
    head = getattr(model, "bbox_head", None) or model
    towers = [_first_level(tower) for name in TOWERS if isinstance(tower := getattr(head, name, None), nn.ModuleList)]
    widths = {neck.out_channels for neck in _necks(model)[-1:] if isinstance(getattr(neck, "out_channels", None), int)}
    widths |= {tower[0].conv.out_channels for tower in towers if len(tower) and hasattr(tower[0], "conv")}
    found: dict[str, Any] = {"salt.enabled": hasattr(head, "salt"), "quality": hasattr(head, "reg_conf")}
    if widths:
        found["channels"] = widths.pop() if len(widths) == 1 else sorted(widths)
    if towers:
        found["head_convs"] = len(towers[0])
    return found | (_salt(head) if found["salt.enabled"] else {})


def _first_level(tower: Any) -> Any:
    """Heads with a norm of their own for each level have a tower a level."""
    return tower[0] if len(tower) and isinstance(tower[0], nn.ModuleList) else tower


def _salt(head: Any) -> dict[str, Any]:
    salt, levels = head.salt, len(head.salt.scales)
    aligns = [layer for layer in (salt.reg_align, salt.cls_align) if layer is not None]
    points = {layer.weight.shape[2] for layer in aligns} | ({salt.vectors_out.out_channels // 2} if salt.vectors_out is not None else set())
    gathered = {"salt.points": points.pop() if len(points) == 1 else sorted(points)} if points else {}
    return gathered | {
        "salt.long_skip": salt.long_skip,
        "salt.reg_at": "cell" if salt.reg_align is None else "r_points",
        "salt.cls_at": "cell" if salt.cls_align is None else "r_points" if salt.vectors_out is None else "c_points",
        "salt.stop_gradient": salt.stop_gradient,
        "salt.levels": None if len(salt.levels) == levels else [FINEST + level for level in salt.levels],
        "salt.coarse_weight": head.coarse_weight,
        "salt.sdr_weight": head.sdr_weight,
        "salt.sdr_kind": head.sdr_kind,
        "salt.sdr_gate": head.sdr_gate,
        "salt.sdr_from_epoch": head.sdr_from_epoch,
    }


def _training(runner: Any) -> dict[str, Any]:
    """Optimiser, loop and hooks. ``schedule.lr`` is the peak rate in force, whatever scaled it."""
    wrapper = runner.optim_wrapper
    group = wrapper.optimizer.param_groups[0]
    averaged = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    orders = (hook.memory_format for hook in runner.hooks if type(hook).__name__ == "MemoryFormatHook")
    return {
        "schedule.epochs": runner.max_epochs,
        "schedule.lr": wrapper.optimizer.defaults.get("lr", group.get("initial_lr", group["lr"])),
        "schedule.optimizer": type(wrapper.optimizer).__name__.lower(),
        "schedule.batch": runner.train_dataloader.batch_sampler.batch_size * runner.world_size,
        "schedule.amp": type(wrapper).__name__ == "AmpOptimWrapper",
        "schedule.clip_grad": (wrapper.clip_grad_kwargs or {}).get("max_norm"),
        "schedule.ema": averaged[0].ema_cfg.get("momentum") if averaged else None,
        "schedule.memory_format": next(orders, "contiguous"),
    }


def _backbone_name(backbone: nn.Module) -> str:
    kind = type(backbone).__name__
    return {"MobileNetV2": "mobilenet_v2", "ResNet": f"resnet{getattr(backbone, 'depth', '')}"}.get(kind, kind)


def asked_of(trial: Trial) -> dict[str, Any]:
    """What :func:`effective` should find: the canonical trial, its left-out defaults, and what only the host's config knows."""
    asked = flatten(canonical(trial))
    asked |= {"quality": trial.has_quality, "schedule.lr": trial.schedule.peak_lr}
    asked |= {f"schedule.{key}": getattr(trial.schedule, key) for key in ("ema", "amp", "clip_grad", "memory_format")}
    if trial.salt.enabled:
        asked |= {f"salt.{key}": getattr(trial.salt, key) for key in SALT_TOGGLES}
        asked["salt.levels"] = canonical(trial)["salt"].get("levels")
    for key in ("head_convs", "channels"):
        if asked[key] is None:  # its config's own
            del asked[key]
    model = mmdet_config(host_of(trial).config).model if MMDET in trial.host or trial.backbone.name == "host" else None
    if model is not None and trial.host.startswith(MMDET):
        del asked["host"]
        asked["heads"] = " + ".join(short_type(model[part]) for part in PARTS if model.get(part))
    if model is not None and trial.backbone.name == "host":
        asked["backbone.name"] = network(model.backbone)
    return asked


def check_effective(trial: Trial, found: dict[str, Any]) -> None:
    """Compare with the trial.

    Raises:
        TrialFailed: a toggle did not take effect; names each, asked and found.
    """
    asked = asked_of(trial)
    wrong = [
        f"{key} is {value!r}, asked {asked[key]!r}" for key, value in found.items() if key in asked and not _same(key, value, asked[key])
    ]
    if wrong:
        raise TrialFailed(f"the built model is not what the trial asks for: {'; '.join(wrong)}")


def _same(key: str, found: Any, asked: Any) -> bool:
    """GFL, GFLv2 and SALT-Net differ by quality predictor, depth and operator alone, each compared for itself."""
    return found == asked or (key == "host" and found in QUALITY and asked in QUALITY)
