"""Patches of the model section: one per toggle, each leaving the rest alone."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from salt_lab.compose.hosts import host
from salt_lab.spec.trial import Backbone, Trial

#: mean and std of torchvision's and our own weights, RGB, 0-255; the caffe weights that FCOS names have others
RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
#: channels of mmdet's MobileNetV2 at out_indices (1, 2, 4, 6), strides 4 to 32
MOBILENET_V2_CHANNELS = [24, 32, 96, 320]


def patch_backbone(model: Any, backbone: Backbone) -> None:
    """Replace the host's backbone, unless the trial asks for just that one (ResNet-50 with the weights that the host names)."""
    if backbone == Backbone(name="resnet50", init="host"):
        return
    init, frozen, norm_eval = _init_cfg(model, backbone), backbone.frozen, backbone.norm_is_frozen
    if backbone.name == "mobilenet_v2":
        channels = MOBILENET_V2_CHANNELS
        model.backbone = dict(type="MobileNetV2", out_indices=(1, 2, 4, 6), frozen_stages=frozen, norm_eval=norm_eval, init_cfg=init)
    else:
        depth = int(backbone.name.removeprefix("resnet"))
        expansion = 1 if depth < 50 else 4
        channels = [backbone.base_channels * expansion * 2**stage for stage in range(4)]
        caffe = backbone.init == "host" and model.backbone.get("style") == "caffe"
        model.backbone.update(depth=depth, base_channels=backbone.base_channels, frozen_stages=frozen, norm_eval=norm_eval, init_cfg=init)
        if not caffe:
            model.backbone.update(style="pytorch", norm_cfg=dict(type="BN", requires_grad=True))
    if backbone.init != "host":
        model.data_preprocessor.update(RGB)
    model.neck.in_channels = channels


def _init_cfg(model: Any, backbone: Backbone) -> dict[str, Any] | None:
    if backbone.init == "host":
        return model.backbone.init_cfg
    if backbone.init is None:
        return None
    return dict(type="BackboneWeights", checkpoint=backbone.init)


def patch_width(model: Any, trial: Trial) -> None:
    """Channels of neck and head, convolutions per tower."""
    model.neck.out_channels = trial.channels
    model.bbox_head.update(in_channels=trial.channels, feat_channels=trial.channels)
    model.bbox_head.stacked_convs = trial.convs


def patch_salt(model: Any, trial: Trial) -> None:
    """The operator and its losses; without it nothing changes."""
    if not trial.salt.enabled:
        return
    model.bbox_head.type = host(trial.host).salt_head
    model.bbox_head.salt = dict(
        num_points=trial.salt.points,
        long_skip=trial.salt.long_skip,
        coarse_weight=trial.coarse_weight,
        sdr_weight=trial.salt.sdr_weight,
    )


def patch_classes(config: Config, classes: tuple[str, ...]) -> None:
    """Number of classes of the head."""
    config.model.bbox_head.num_classes = len(classes)
