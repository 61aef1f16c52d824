"""Proof that the toggles took effect: what the built model and runner really have, against what the trial asks for."""

from __future__ import annotations

from typing import Any

from torch import nn

from salt_lab.errors import TrialFailed
from salt_lab.spec.trial import Trial, canonical, flatten

#: name of a head's class, without and with the operator -> host
HEADS = {"FCOSHead": "fcos", "ATSSHead": "atss", "GFLHead": "gfl"}
SALT_HEADS = {"SALTFCOSHead": "fcos", "SALTATSSHead": "atss", "SALTGFLHead": "gfl", "SALTNetHead": "salt_net"}


def effective(runner: Any) -> dict[str, Any]:
    """Read the toggles back from the built model, optimiser and loops: dotted keys as in :func:`salt_lab.spec.trial.canonical`.

    Nothing is taken from the configuration where the built object can be asked: K is the kernel size of the point convolution's
    weight, the tower's depth is the number of its convolutions.
    """
    model = runner.model.module if hasattr(runner.model, "module") else runner.model
    head, backbone = model.bbox_head, model.backbone
    kind = type(head).__name__
    found: dict[str, Any] = {
        "host": HEADS.get(kind) or SALT_HEADS.get(kind, kind),
        "salt.enabled": hasattr(head, "salt"),
        "channels": head.cls_convs[0].conv.out_channels,
        "head_convs": len(head.cls_convs),
        "backbone.name": _backbone_name(backbone),
        "seed": runner.seed,
        "schedule.epochs": runner.max_epochs,
        "schedule.lr": runner.optim_wrapper.optimizer.param_groups[0].get(
            "initial_lr", runner.optim_wrapper.optimizer.param_groups[0]["lr"]
        ),
        "schedule.optimizer": type(runner.optim_wrapper.optimizer).__name__.lower(),
        "schedule.batch": runner.train_dataloader.batch_sampler.batch_size * runner.world_size,
    }
    if type(backbone).__name__ == "ResNet":
        found["backbone.base_channels"] = backbone.conv1.out_channels
    return found | (_salt(head) if found["salt.enabled"] else {})


def _salt(head: Any) -> dict[str, Any]:
    points = {head.salt.reg_align.weight.shape[2], head.salt.cls_align.weight.shape[2], head.salt.vectors_out.out_channels // 2}
    return {
        "salt.points": points.pop() if len(points) == 1 else sorted(points),
        "salt.long_skip": head.salt.long_skip,
        "salt.coarse_weight": head.coarse_weight,
        "salt.sdr_weight": head.sdr_weight,
    }


def _backbone_name(backbone: nn.Module) -> str:
    kind = type(backbone).__name__
    return {"MobileNetV2": "mobilenet_v2", "ResNet": f"resnet{getattr(backbone, 'depth', '')}"}.get(kind, kind)


def check_effective(trial: Trial, found: dict[str, Any]) -> None:
    """Compare with the trial.

    Raises:
        TrialFailed: a toggle did not take effect; names each, asked and found.
    """
    asked = flatten(canonical(trial))
    wrong = [f"{key} is {value!r}, asked {asked[key]!r}" for key, value in found.items() if key in asked and asked[key] != value]
    if wrong:
        raise TrialFailed(f"the built model is not what the trial asks for: {'; '.join(wrong)}")
