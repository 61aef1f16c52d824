"""A trial as plain data: host + toggles + data + schedule + seed, and the id that is a hash of what can change its result.

No torch, no ray, no mlflow here: ``salt-lab plan`` reads this file and must start in under half a second.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, field_validator, model_validator

from salt_lab.spec.base import Spec, spec_error
from salt_lab.spec.flat import digest, flatten, unflatten
from salt_lab.spec.parts import (
    BACKBONES,
    COARSE_WEIGHTS,
    HEAD_CONVS,
    HOSTS,
    MMDET,
    PLAIN_HOSTS,
    QUALITY,
    SALT_HOSTS,
    Backbone,
    CocoData,
    EmbeddedData,
    SaltToggles,
    known_host,
    whole_groups,
)
from salt_lab.spec.schedule import SCHEDULES, Schedule
from salt_lab.spec.weights_file import by_content

__all__ = [
    "BACKBONES",
    "COARSE_WEIGHTS",
    "HEAD_CONVS",
    "HOSTS",
    "PLAIN_HOSTS",
    "SALT_HOSTS",
    "SCHEDULES",
    "Backbone",
    "CocoData",
    "EmbeddedData",
    "SaltToggles",
    "Schedule",
    "Spec",
    "Trial",
    "active",
    "canonical",
    "digest",
    "flatten",
    "trial_id",
    "unflatten",
    "without_folders",
]


class Trial(Spec):
    """One training run, fully described. Its :func:`trial_id` is a hash of exactly the fields that can change its result."""

    host: Annotated[str, AfterValidator(known_host)] = Field(
        "atss",
        description="The detector that the operator is plugged into, or mmdet::CONFIG for any config of mmdet, without SALT",
        json_schema_extra={"anyOf": [{"enum": list(HOSTS)}, {"pattern": rf"^{MMDET}.+\.py$"}]},
    )
    salt: SaltToggles = Field(default_factory=SaltToggles, description="The operator's toggles; true/false for on/off with defaults")
    backbone: Backbone = Field(default_factory=Backbone, description="Backbone; a name alone takes the defaults")
    channels: Annotated[StrictInt, Field(ge=32, multiple_of=32), BeforeValidator(whole_groups)] | None = Field(
        None, description="Channels of neck and head; a multiple of GroupNorm's 32 groups; null = the host's own (256)"
    )
    head_convs: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Convolutions per tower; null = the host's own (4; SALT-Net, VFNet and RepPoints 3)"
    )
    quality: StrictBool | None = Field(
        None, description="Multiply the class score with GFLv2's predicted quality; null = the host's own (on: gflv2, salt_net; off: gfl)"
    )
    weights: str | None = Field(None, min_length=1, description="Checkpoint of a whole detector to start from; SALT's parts start fresh")
    data: Annotated[EmbeddedData | CocoData, Field(discriminator="kind")] = Field(
        default_factory=EmbeddedData, description="Embedded data set (kind: marks) or COCO files (train, val, images)"
    )
    schedule: Schedule = Field(default_factory=Schedule, description="Learning schedule; 1x and 2x are mmdet's")
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = Field(0, description="Seed of initialisation, order and augmentation")

    @field_validator("data", mode="before")
    @classmethod
    def _say_the_kind(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, Mapping) and "kind" not in value:
            return {"kind": "coco" if {"train", "val", "images"} & set(value) else "marks", **value}
        return value

    @model_validator(mode="before")
    @classmethod
    def _keep_a_configs_network(cls, value: Any) -> Any:
        """A config of mmdet comes with its own backbone unless the trial names another."""
        if isinstance(value, Mapping) and str(value.get("host", "")).startswith(MMDET) and "name" not in _as_mapping(value.get("backbone")):
            return {**value, "backbone": {"name": "host", **_as_mapping(value.get("backbone"))}}
        return value

    @model_validator(mode="after")
    def _can_be_built(self) -> Trial:
        if self.salt.enabled and self.host not in SALT_HOSTS:
            raise spec_error(
                f"{self.host} is a comparison host and has no SALT form; hosts with SALT: {', '.join(SALT_HOSTS)}. Leave the combination out "
                f"with exclude: [{{host: '{self.host}', salt.enabled: true}}]",
                "host",
            )
        if self.salt.enabled and self.salt.sdr_weight and self.salt.sdr_from_epoch > self.schedule.epochs:
            raise spec_error(
                f"the trial has {self.schedule.epochs} epochs, so SDR would never begin: lower it, or set salt.sdr_weight to 0",
                "salt.sdr_from_epoch",
            )
        if self.host == "vfnet" and self.schedule.amp:
            raise spec_error(
                "mmdet's VFNet cannot learn in mixed precision (its loss mixes number formats): set amp to false", "schedule.amp"
            )
        if self.quality is not None and self.host not in QUALITY:
            raise spec_error(
                f"{self.host} has no quality predictor to switch: leave quality at null, or take {', '.join(QUALITY)}", "quality"
            )
        return self

    @property
    def coarse_weight(self) -> float:
        """lambda_c in force: the toggle's value, or the host's published one."""
        return COARSE_WEIGHTS[self.host] if self.salt.coarse_weight is None else self.salt.coarse_weight

    @property
    def sdr_outvotes(self) -> bool:
        """Is SDR so heavy that the coarse box no longer learns from the ground truth? See :func:`salt_lab.models.losses.sdr_loss_sum`."""
        salt = self.salt
        return salt.enabled and salt.sdr_kind == "giou" and salt.sdr_weight >= self.coarse_weight and salt.sdr_weight > 0

    @property
    def convs(self) -> int | None:
        """Convolutions per tower in force: ``head_convs``, or the host's own; None where only its config knows."""
        return HEAD_CONVS.get(self.host) if self.head_convs is None else self.head_convs

    @property
    def has_quality(self) -> bool:
        """Is the class score multiplied with a predicted quality?"""
        return QUALITY.get(self.host, False) if self.quality is None else self.quality


def _as_mapping(backbone: Any) -> dict[str, Any]:
    return dict(backbone) if isinstance(backbone, Mapping) else {} if backbone is None else {"name": backbone}


#: Channels of neck and head of every host of the table.
OWN_WIDTH = 256
#: Values of later fields that mean "as before they existed": left out of the canonical form, so that earlier records keep their trials.
AS_BEFORE: dict[str, Any] = {
    "quality": None, "weights": None, "schedule.ema": None, "schedule.scale_lr": False,
    "schedule.memory_format": "contiguous",
    "salt.sdr_kind": "giou", "salt.sdr_gate": False, "salt.sdr_from_epoch": 1,
    "salt.reg_at": "r_points", "salt.cls_at": "c_points", "salt.stop_gradient": True,
    "salt.levels": None,
}  # fmt: skip


def active(trial: Trial) -> dict[str, Any]:
    """The trial as written, JSON types, without the fields that cannot change its result (SALT's toggles when it is off, ...)."""
    plain = trial.model_dump(mode="json")
    plain["salt"] = _active_salt(plain["salt"]) if trial.salt.enabled else {"enabled": False}
    if trial.schedule.decay != "step":
        del plain["schedule"]["milestones"]
    if trial.backbone.name in ("mobilenet_v2", "host"):
        del plain["backbone"]["base_channels"]
    return plain


def _active_salt(salt: dict[str, Any]) -> dict[str, Any]:
    idle = set()
    if not salt["sdr_weight"]:
        idle |= {"sdr_kind", "sdr_gate", "sdr_from_epoch"}
    if salt["cls_at"] == "cell":
        idle |= {"stop_gradient"}
        if salt["reg_at"] == "cell":
            idle |= {"points"}
    return {key: value for key, value in salt.items() if key not in idle}


def canonical(trial: Trial) -> dict[str, Any]:
    """Nested plain dict (JSON types) of exactly the fields that can change the result, with every ``null`` default resolved.

    ``Trial.model_validate(canonical(trial))`` is a trial with the same canonical form. A field that is added later must stay out of
    it at the value that means "as before" (:data:`AS_BEFORE`), or every earlier record loses its trial.
    """
    plain = active(trial)
    plain["head_convs"] = trial.convs
    plain["channels"] = OWN_WIDTH if trial.channels is None and trial.host in HOSTS else trial.channels
    if trial.host in QUALITY:
        plain["quality"] = None if trial.has_quality == QUALITY[trial.host] else trial.has_quality
    plain["backbone"] |= {"frozen_stages": trial.backbone.frozen, "batch_norm": "frozen" if trial.backbone.norm_is_frozen else "train"}
    if trial.salt.enabled:
        plain["salt"]["coarse_weight"] = trial.coarse_weight
        plain["salt"]["long_skip"] = {"cls": True, "none": False}.get(trial.salt.long_skip, trial.salt.long_skip)
        plain["salt"]["levels"] = None if trial.salt.levels == (3, 4, 5, 6, 7) else plain["salt"]["levels"]
    if trial.schedule.decay == "step":
        plain["schedule"]["milestones"] = list(trial.schedule.drops)
    if isinstance(trial.data, CocoData):
        plain["data"]["val_images"] = trial.data.val_images or trial.data.images
    return unflatten({key: value for key, value in flatten(plain).items() if key not in AS_BEFORE or value != AS_BEFORE[key]})


def without_folders(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A canonical trial as it reads on any machine: of its files only the names."""
    data, backbone = dict(plain["data"]), dict(plain["backbone"])
    if data.get("kind") == "coco":
        data = {key: os.path.basename(str(value)) for key, value in data.items()}
    if backbone.get("init"):
        backbone["init"] = os.path.basename(backbone["init"])
    weights = {"weights": os.path.basename(plain["weights"])} if plain.get("weights") else {}
    return {**plain, "data": data, "backbone": backbone, **weights}


def trial_id(trial: Trial, data_fingerprint: str) -> str:
    """12 hex digits that name the trial wherever its files lie.

    ``data_fingerprint`` (from ``salt_lab.data.fingerprint``) stands for the data's content, and the SHA-256 of a weights file for its path.
    """
    plain = canonical(trial)
    plain["data"] = data_fingerprint
    plain["backbone"]["init"] = by_content(trial.backbone.init)
    if trial.weights:
        plain["weights"] = by_content(trial.weights)
    return digest(plain)
