"""Patches of the model section: one per toggle, each leaving the rest alone.

A toggle that has no place in the host's config is refused with the field, the value and the reason, before anything is built.
"""

from __future__ import annotations

import copy
from typing import Any, NoReturn

from mmengine.config import Config

from salt_lab.compose.anyhost import set_classes, short_type
from salt_lab.compose.hosts import host_of
from salt_lab.errors import SpecError
from salt_lab.spec.trial import Backbone, Trial

#: mean and std of torchvision's and our own weights, RGB, 0-255; the caffe weights that FCOS names have others
RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
#: channels of mmdet's MobileNetV2 at out_indices (1, 2, 4, 6), strides 4 to 32
MOBILENET_V2_CHANNELS = (24, 32, 96, 320)
MOBILENET_V2_STAGES = (1, 2, 4, 6)
#: number of the finest pyramid level of all hosts, P3 with stride 8
FINEST = 3


def _refuse(trial: Trial, field: str, value: Any, why: str) -> NoReturn:
    raise SpecError(f"{field} = {value!r} with host = '{trial.host}': {why}")


def patch_head(model: Any, trial: Trial) -> None:
    """The host's own head where mmdet's is not it: another type (GFLv2), or one anchor a location (RetinaNet)."""
    chosen = host_of(trial)
    if chosen.plain_head:
        model.bbox_head.type = chosen.plain_head
    for section, values in chosen.head_patch.items():
        _one_scale(model.bbox_head[section])
        model.bbox_head[section].update(copy.deepcopy(values))


def _one_scale(anchor_generator: Any) -> None:
    """mmdet's generators take either ``scales`` or octaves."""
    anchor_generator.pop("scales", None)


def network(backbone: Any) -> str:
    """What a backbone section is called in a trial: ``resnet50``, ``mobilenet_v2``, or its type where trials have no word for it."""
    kind = short_type(backbone)
    return {"ResNet": f"resnet{backbone.get('depth')}", "MobileNetV2": "mobilenet_v2"}.get(kind, kind)


def patch_backbone(model: Any, trial: Trial) -> None:
    """Put the trial's network in the place of the host's.

    ``host`` is the network that the config names, untouched but for its weights; without weights nothing of it stays frozen. ``resnet50`` with
    the host's weights is mmdet's own section to the letter. Every other name is that network without extras of the host's (deformable
    convolutions, attention blocks).

    Raises:
        SpecError: the host's neck does not take this network, or the host's weights are another network's.
    """
    backbone = trial.backbone
    if backbone.name == "host":
        _keep_network(model, trial)
    elif backbone.init == "host":
        if network(model.backbone) != backbone.name:
            own = network(model.backbone)
            _refuse(
                trial,
                "backbone.init",
                "host",
                f"the weights are a {own}'s, not a {backbone.name}'s. Set backbone.name to host, or init to null",
            )
        if backbone != Backbone(name="resnet50", init="host"):
            model.backbone.update(frozen_stages=backbone.frozen, norm_eval=backbone.norm_is_frozen)
    else:
        _replace_network(model, trial)
        model.data_preprocessor.update(RGB)


def _keep_network(model: Any, trial: Trial) -> None:
    backbone, own = trial.backbone, model.backbone
    if backbone.init != "host":
        own.init_cfg = _init_cfg(backbone)
        own.pop("pretrained", None)
    asked = {"frozen_stages": backbone.frozen_stages, "norm_eval": backbone.batch_norm and backbone.norm_is_frozen}
    if backbone.init is None:  # random weights that nothing may change would stay random
        asked = {"frozen_stages": backbone.frozen, "norm_eval": backbone.norm_is_frozen}
    field = {"frozen_stages": "backbone.frozen_stages", "norm_eval": "backbone.batch_norm"}
    for key, value in asked.items():
        said = getattr(backbone, field[key].partition(".")[2])
        if value is not None and key in own:
            own[key] = value
        elif said is not None:
            _refuse(trial, field[key], said, f"its {network(own)} has no {key} to set. Leave it at null")


def _replace_network(model: Any, trial: Trial) -> None:
    backbone = trial.backbone
    stages = _stages(model, trial)
    common = dict(frozen_stages=backbone.frozen, norm_eval=backbone.norm_is_frozen, init_cfg=_init_cfg(backbone))
    if backbone.name == "mobilenet_v2":
        widths = MOBILENET_V2_CHANNELS
        section = dict(type="MobileNetV2", out_indices=tuple(MOBILENET_V2_STAGES[stage] for stage in stages), **common)
    else:
        depth = int(backbone.name.removeprefix("resnet"))
        widths = tuple(backbone.base_channels * (1 if depth < 50 else 4) * 2**stage for stage in range(4))
        section = dict(type="ResNet", depth=depth, base_channels=backbone.base_channels, num_stages=4, out_indices=stages, **common)
        section |= dict(style="pytorch", norm_cfg=dict(type="BN", requires_grad=True))
    model.backbone = section
    neck = necks_of(model)[0]
    neck.in_channels = widths[stages[0]] if isinstance(neck.in_channels, int) else [widths[stage] for stage in stages]


def _stages(model: Any, trial: Trial) -> tuple[int, ...]:
    """Which of the four stages (strides 4, 8, 16, 32) the host's neck reads: the last ones, as many as it has inputs."""
    own, necks = model.get("backbone", {}), necks_of(model)
    inputs = necks[0].get("in_channels", []) if necks else []
    widths = [inputs] if isinstance(inputs, int) else list(inputs)
    known = tuple(own.get("out_indices", range(4) if len(widths) == 4 else ()))
    fits = 1 <= len(widths) == len(known) <= 4 and widths == sorted(widths)
    if not fits or not isinstance(necks[0].get("out_channels"), int) or "rfp_backbone" in necks[0]:
        reads = f"its {short_type(necks[0])} reads {inputs}" if necks else "it has no neck between backbone and heads"
        _refuse(trial, "backbone.name", trial.backbone.name, f"its {network(own)} cannot be replaced, {reads}. Set backbone.name to host")
    return known if short_type(own) == "ResNet" else tuple(range(4 - len(known), 4))


def _init_cfg(backbone: Backbone) -> dict[str, Any] | None:
    return None if backbone.init is None else dict(type="BackboneWeights", checkpoint=backbone.init)


def necks_of(model: Any) -> list[Any]:
    """The host's necks in order; DyHead's stack has two."""
    neck = model.get("neck")
    return list(neck) if isinstance(neck, (list, tuple)) else [neck] if neck else []


def own_width(model: Any) -> int | None:
    """Channels that the host's necks hand to its heads; None where they are not all alike."""
    last = necks_of(model)[-1] if necks_of(model) else {}
    width = last.get("out_channels", last.get("in_channels"))  # a refining neck (Libra's) hands on what it reads
    return width if isinstance(width, int) else None


def patch_width(model: Any, trial: Trial) -> None:
    """Channels of necks and heads.

    Raises:
        SpecError: the host has no one width, or ties others to it in ways that are not known here.
    """
    own = own_width(model)
    if trial.channels in (own, None):
        return
    places = _places_of_width(model)
    if own is None or not places or any(section.get(keys[0]) != own for section, keys in places):
        _refuse(
            trial, "channels", trial.channels, "the widths of its neck and heads hang together in a way of its own. Leave channels at null"
        )
    for section, keys in places:
        section.update({key: trial.channels for key in keys if section.get(key) == own})


def _places_of_width(model: Any) -> list[tuple[Any, tuple[str, ...]]]:
    """Sections with the keys that follow the necks' width, the one that must be there first; empty for an unknown structure."""
    head_keys = ("in_channels", "feat_channels", "point_feat_channels")
    first, *later = necks_of(model)
    places: list[tuple[Any, tuple[str, ...]]] = [(first, ("out_channels",)), *((neck, ("in_channels", "out_channels")) for neck in later)]
    if isinstance(model.get("bbox_head"), dict) and "decoder" not in model:
        return [*places, (model.bbox_head, head_keys)]
    roi = model.get("roi_head")
    if not isinstance(roi, dict) or not {"bbox_head", "bbox_roi_extractor"} <= roi.keys() or {"shared_head", "grid_head"} & roi.keys():
        return []
    places.append((model.get("rpn_head") or {}, head_keys))
    for key, inner in (("bbox_roi_extractor", ("out_channels",)), ("bbox_head", ("in_channels",))):
        places += [(section, inner) for section in (roi[key] if isinstance(roi[key], list) else [roi[key]])]
    return places


def patch_convs(model: Any, trial: Trial) -> None:
    """Convolutions per tower.

    Raises:
        SpecError: the host has no towers of a depth to choose.
    """
    if trial.convs is None:
        return
    head: Any = model.get("bbox_head")
    if not isinstance(head, dict) or "stacked_convs" not in head:
        _refuse(
            trial,
            "head_convs",
            trial.head_convs,
            "its config has no stacked_convs, so no towers of a depth to choose. Leave head_convs at null",
        )
    head["stacked_convs"] = trial.convs


def patch_salt(model: Any, trial: Trial) -> None:
    """The operator and its losses; without it nothing changes."""
    salt = trial.salt
    if not salt.enabled:
        return
    model.bbox_head.type = host_of(trial).salt_head
    model.bbox_head.salt = dict(
        num_points=salt.points,
        long_skip=salt.long_skip,
        coarse_weight=trial.coarse_weight,
        sdr_weight=salt.sdr_weight,
        sdr_kind=salt.sdr_kind,
        sdr_gate=salt.sdr_gate,
        sdr_from_epoch=salt.sdr_from_epoch,
        reg_at=salt.reg_at,
        cls_at=salt.cls_at,
        stop_gradient=salt.stop_gradient,
        levels=None if salt.levels is None else [level - FINEST for level in salt.levels],
    )


def patch_classes(config: Config, trial: Trial, classes: tuple[str, ...]) -> None:
    """Number of classes, wherever a head has one.

    Raises:
        SpecError: no head has.
    """
    if not set_classes(config.model, len(classes)):
        raise SpecError(
            f"host = '{trial.host}': no head of this config says how many classes it tells apart, so it cannot be fitted to the data"
        )


def patch_for_data(config: Config) -> None:
    """Data and schedule are the trial's, the same for every host: no batch is resized on its way in, and epochs are what the log counts."""
    config.model.get("data_preprocessor", {}).pop("batch_augments", None)
    config.log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
