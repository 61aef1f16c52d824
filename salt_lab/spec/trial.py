"""A trial as plain data: host + toggles + data + schedule + seed, and the id that is a hash of what can change its result.

No torch, no ray, no mlflow here: ``salt-lab plan`` reads this file and must start in under half a second.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictInt, field_validator, model_validator

from salt_lab.spec.parts import (
    BACKBONES,
    COARSE_WEIGHTS,
    HEAD_CONVS,
    HOSTS,
    SCHEDULES,
    Backbone,
    CocoData,
    EmbeddedData,
    SaltToggles,
    Schedule,
    Spec,
    known,
    spec_error,
    whole_groups,
)

__all__ = [
    "BACKBONES",
    "COARSE_WEIGHTS",
    "HEAD_CONVS",
    "HOSTS",
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

    host: Annotated[str, known("host", HOSTS)] = Field(
        "atss", description="The detector that the operator is plugged into", json_schema_extra={"enum": list(HOSTS)}
    )
    salt: SaltToggles = Field(default_factory=SaltToggles, description="The operator's toggles; true/false for on/off with defaults")
    backbone: Backbone = Field(default_factory=Backbone, description="Backbone; a name alone takes the defaults")
    channels: Annotated[StrictInt, Field(ge=32, multiple_of=32), BeforeValidator(whole_groups)] = Field(
        256, description="Channels of the FPN and the head; a multiple of GroupNorm's 32 groups"
    )
    head_convs: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Convolutions per tower; null = the host's own (4; SALT-Net 3)"
    )
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

    @model_validator(mode="after")
    def _can_be_built(self) -> Trial:
        if self.host == "salt_net" and not self.salt.enabled:
            raise spec_error(
                "salt_net without SALT is GFLv2, which is not built yet: use host gfl as the plain host, and leave the combination out "
                "with exclude: [{host: salt_net, salt.enabled: false}]",
                "host",
            )
        return self

    @property
    def coarse_weight(self) -> float:
        """lambda_c in force: the toggle's value, or the host's published one."""
        return COARSE_WEIGHTS[self.host] if self.salt.coarse_weight is None else self.salt.coarse_weight

    @property
    def convs(self) -> int:
        """Convolutions per tower in force: ``head_convs``, or the host's own."""
        return HEAD_CONVS[self.host] if self.head_convs is None else self.head_convs


def active(trial: Trial) -> dict[str, Any]:
    """The trial as written, JSON types, without the fields that cannot change its result (SALT's toggles when it is off, ...)."""
    plain = trial.model_dump(mode="json")
    if not trial.salt.enabled:
        plain["salt"] = {"enabled": False}
    if trial.schedule.decay != "step":
        del plain["schedule"]["milestones"]
    if trial.backbone.name == "mobilenet_v2":
        del plain["backbone"]["base_channels"]
    return plain


def canonical(trial: Trial) -> dict[str, Any]:
    """Nested plain dict (JSON types) of exactly the fields that can change the result, with every ``null`` default resolved.

    ``Trial.model_validate(canonical(trial))`` is a trial with the same canonical form. A field that is added later must stay out of
    it at the value that means "as before", or every earlier record loses its trial.
    """
    plain = active(trial)
    plain["head_convs"] = trial.convs
    plain["backbone"] |= {"frozen_stages": trial.backbone.frozen, "batch_norm": "frozen" if trial.backbone.norm_is_frozen else "train"}
    if trial.salt.enabled:
        plain["salt"]["coarse_weight"] = trial.coarse_weight
    if trial.schedule.decay == "step":
        plain["schedule"]["milestones"] = list(trial.schedule.drops)
    if isinstance(trial.data, CocoData):
        plain["data"]["val_images"] = trial.data.val_images or trial.data.images
    return plain


def without_folders(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A canonical trial as it reads on any machine: of its files only the names."""
    data, backbone = dict(plain["data"]), dict(plain["backbone"])
    if data.get("kind") == "coco":
        data = {key: os.path.basename(str(value)) for key, value in data.items()}
    if backbone.get("init"):
        backbone["init"] = os.path.basename(backbone["init"])
    return {**plain, "data": data, "backbone": backbone}


def digest(plain: Mapping[str, Any]) -> str:
    """12 hex digits of the SHA-256 of ``plain`` as sorted JSON."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def trial_id(trial: Trial, data_fingerprint: str) -> str:
    """12 hex digits that name the trial wherever its files lie.

    ``data_fingerprint`` (from ``salt_lab.data.fingerprint``) stands for the data's content, and the SHA-256 of a weights file for its path.
    """
    plain = canonical(trial)
    plain["data"] = data_fingerprint
    init = trial.backbone.init
    if init and os.path.isfile(init):
        state = os.stat(init)
        plain["backbone"]["init"] = "sha256:" + _file_sha256(os.path.abspath(init), state.st_size, state.st_mtime_ns)
    return digest(plain)


@lru_cache(maxsize=64)
def _file_sha256(path: str, size: int, mtime_ns: int) -> str:
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys; lists and empty mappings are values.

    >>> flatten({"host": "atss", "salt": {"points": 9}})
    {'host': 'atss', 'salt.points': 9}
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten`. Raises ValueError where a key is both a value and a mapping."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, leaf = key.split(".")
        inner: Any = nested
        for group in groups:
            inner = inner.setdefault(group, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or leaf in inner:
            raise ValueError(f"{key} is both a value and a mapping")
        inner[leaf] = value
    return nested
