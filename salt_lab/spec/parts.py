"""What a trial is made of, as plain data: the operator's toggles, the backbone and the data set; the schedule is in :mod:`.schedule`.

Each part is valid from birth and can be written short: ``salt: true``, ``backbone: resnet18``, ``data: marks``, ``schedule: 1x``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, model_validator

from salt_lab.errors import did_you_mean
from salt_lab.spec.base import Number, Spec, known, spec_error

#: Hosts that the operator can be plugged into, with lambda_c of the released code (salt.md section 3): 1.0 on ATSS and SALT-Net, 0.5 on
#: FCOS and RetinaNet. The others are not in it: 1.0 is (ours).
COARSE_WEIGHTS = {
    "atss": 1.0, "fcos": 0.5, "fcos_plain": 0.5, "fovea": 1.0, "gfl": 1.0, "gflv2": 1.0, "reppoints": 1.0, "retinanet": 0.5, "salt_net": 1.0,
    "vfnet": 1.0,
}  # fmt: skip
SALT_HOSTS = tuple(COARSE_WEIGHTS)
#: Convolutions per tower of mmdet's hosts, and of the released SALT-Net.
HEAD_CONVS = {
    "atss": 4, "fcos": 4, "fcos_plain": 4, "fovea": 4, "gfl": 4, "gflv2": 4, "reppoints": 3, "retinanet": 4, "salt_net": 3, "vfnet": 3,
}  # fmt: skip
#: Comparison hosts without a SALT form: rival ways to align, and RetinaNet with its nine anchors.
PLAIN_HOSTS = ("autoassign", "ddod", "dyhead", "paa", "retinanet_9_anchors", "tood")
HOSTS = SALT_HOSTS + PLAIN_HOSTS
#: A host by the name of its config in mmdet: ``mmdet::tood/tood_r50_fpn_1x_coco.py``.
MMDET = "mmdet::"
#: Hosts whose class score can be multiplied with GFLv2's predicted quality, and whether it is unless the trial says otherwise.
QUALITY = {"gfl": False, "gflv2": True, "salt_net": True}
BACKBONES = ("host", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101")
LONG_SKIPS = ("none", "cls", "reg", "both")
#: The last stage that can be frozen: mmdet's ResNets have 4, its MobileNetV2 counts 7 blocks.
LAST_STAGE = {"mobilenet_v2": 7}


def known_host(name: str) -> str:
    """Accept a host of the table, or a config of mmdet by name; name the nearest host otherwise."""
    if name.startswith(MMDET):
        if not name.endswith(".py") or name == f"{MMDET}.py":
            raise spec_error(f"{MMDET} is followed by a config's path in mmdet, e.g. {MMDET}tood/tood_r50_fpn_1x_coco.py")
    elif name not in HOSTS:
        near = f"{did_you_mean('host', name, HOSTS)}; or any config of mmdet: {MMDET}tood/tood_r50_fpn_1x_coco.py"
        raise spec_error(near)
    return name


def _skip_name(value: Any) -> Any:
    return ("cls" if value else "none") if isinstance(value, bool) else value


def _enough_points(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value < 4:
        raise spec_error("a point set needs at least 4 points (one per side)")
    return value


def whole_groups(value: Any) -> Any:
    """Refuse a channel count that GroupNorm(32) cannot divide."""
    if isinstance(value, int) and not isinstance(value, bool) and (value < 32 or value % 32):
        raise spec_error("channels must be a multiple of 32 (GroupNorm has 32 groups): 32, 64, 128, 256")
    return value


class SaltToggles(Spec):
    """The operator's switches. Where ``enabled`` is false the others cannot change the result and leave the trial's id alone."""

    enabled: StrictBool = Field(False, description="Is the SALT operator in the head?")
    points: Annotated[StrictInt, Field(ge=4, le=64), BeforeValidator(_enough_points)] = Field(
        9, description="K: points per set, one per box side and K - 4 inside"
    )
    sdr_weight: Number = Field(
        0.0,
        ge=0,
        description="lambda_sdr: weight of the SDR loss (ours); 0 = no such term; from coarse_weight on it outvotes the ground truth",
    )
    coarse_weight: Number | None = Field(
        None, ge=0, description="lambda_c: weight of the coarse box loss; null = the host's published value"
    )
    sdr_kind: Literal["giou", "smooth_l1"] = Field("giou", description="SDR compares boxes by GIoU, or distances by smooth L1 (ours)")
    sdr_gate: StrictBool = Field(False, description="SDR only where the refined box is better than the coarse one (ours)")
    sdr_from_epoch: Annotated[StrictInt, Field(ge=1)] = Field(1, description="SDR begins with this epoch; before it the term is 0 (ours)")
    long_skip: Annotated[Literal["none", "cls", "reg", "both"], BeforeValidator(_skip_name)] = Field(
        "cls",
        description="Add the pyramid feature to the feature of this task before the operator; true = cls, false = none",
        json_schema_extra={"type": ["string", "boolean"], "enum": [*LONG_SKIPS, True, False]},
    )
    reg_at: Literal["r_points", "cell"] = Field(
        "r_points", description="Where box features are gathered; cell = not gathered, the host's own"
    )
    cls_at: Literal["c_points", "r_points", "cell"] = Field(
        "c_points", description="Where class features are gathered; cell = not gathered, the host's own"
    )
    stop_gradient: StrictBool = Field(True, description="Keep the class features' gradient out of the points' box side")
    levels: tuple[Annotated[StrictInt, Field(ge=3, le=7)], ...] | None = Field(
        None, description="Pyramid levels on which the operator acts, e.g. [3, 4, 5]; null = all (3 to 7)"
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_bool(cls, value: Any) -> Any:
        return {"enabled": value} if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _can_learn(self) -> SaltToggles:
        levels = self.levels
        if levels is not None and (not levels or list(levels) != sorted(set(levels))):
            raise spec_error(
                "name at least one level, each once, in order, e.g. [3, 4, 5]; to leave the operator out set salt: false", "levels"
            )
        taught = (
            self.reg_at == "r_points" or (self.cls_at != "cell" and not self.stop_gradient) or self.sdr_weight or self.coarse_weight != 0
        )
        if self.enabled and not taught:
            raise spec_error(
                "nothing would teach the coarse box: without coarse and SDR loss it learns through the R-points alone "
                "(reg_at: r_points, or stop_gradient: false). Give coarse_weight a value above 0",
                "coarse_weight",
            )
        return self


class Backbone(Spec):
    """The feature extractor and the width of everything after it."""

    name: Annotated[str, known("backbone", BACKBONES)] = Field(
        "resnet50", description="The network", json_schema_extra={"enum": list(BACKBONES)}
    )
    base_channels: Annotated[StrictInt, Field(ge=8)] = Field(64, description="ResNet stem width; 64 is the standard network")
    init: str | None = Field(
        None, description="Weights: a file, 'host' for the ones that mmdet's own host config names, or null for random"
    )
    frozen_stages: Annotated[StrictInt, Field(ge=-1, le=7)] | None = Field(
        None, description="Stages kept fixed; -1 = none, null = mmdet's habit: 1 with weights, none without"
    )
    batch_norm: Literal["train", "frozen"] | None = Field(
        None, description="'frozen' keeps the statistics fixed; null = mmdet's habit: frozen with weights, train without"
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_the_network(self) -> Backbone:
        last = LAST_STAGE.get(self.name, 4)
        if self.frozen > last:
            raise spec_error(f"{self.name} has stages up to {last}: choose -1 (none) to {last}", "frozen_stages")
        if self.base_channels != 64 and self.name in ("mobilenet_v2", "host"):
            raise spec_error(f"{self.name} has one width: leave base_channels at 64, or take a resnet", "base_channels")
        if self.base_channels != 64 and self.init == "host":
            raise spec_error("the host's weights fit base_channels 64 only: set base_channels to 64, or init to null", "init")
        if self.name not in ("resnet50", "host") and self.init == "host":
            raise spec_error(f"the host's weights are a resnet50's, not a {self.name}'s: name a weights file, or set init to null", "init")
        return self

    @property
    def frozen(self) -> int:
        """Stages kept fixed in force; -1 = none."""
        return (1 if self.init else -1) if self.frozen_stages is None else self.frozen_stages

    @property
    def norm_is_frozen(self) -> bool:
        """Are batch norm's statistics kept fixed?"""
        return bool(self.init) if self.batch_norm is None else self.batch_norm == "frozen"


class EmbeddedData(Spec):
    """The lab's own data set, drawn from a seed (salt_lab.data.marks): outlines give the extent, a mark off the centre the class."""

    kind: Literal["marks"] = Field("marks", description="The embedded data set")
    train_images: Annotated[StrictInt, Field(ge=1)] = Field(500, description="Training images")
    val_images: Annotated[StrictInt, Field(ge=1)] = Field(200, description="Validation images")
    image_size: Annotated[StrictInt, Field(ge=32)] = Field(112, description="Side of the square images, pixels")
    classes: Annotated[StrictInt, Field(ge=1, le=6)] = Field(3, description="Number of class marks")
    max_objects: Annotated[StrictInt, Field(ge=1, le=16)] = Field(4, description="Objects per image: 1 to this many")
    mark_offset: Number = Field(1.0, ge=0, le=1, description="Where the class mark lies: 0 = at the object's centre, 1 = at its rim")
    seed: Annotated[StrictInt, Field(ge=0)] = Field(0, description="Seed of the drawing; not the training seed")


class CocoData(Spec):
    """Any data set in COCO's format. In a study, paths may hold ${ENVIRONMENT} variables and are relative to the working directory."""

    kind: Literal["coco"] = Field("coco", description="Files in COCO's format; said by 'train' already")
    train: str = Field(min_length=1, description="Annotation file for training")
    val: str = Field(min_length=1, description="Annotation file for evaluation")
    images: str = Field(min_length=1, description="Folder of the images")
    val_images: str | None = Field(None, description="Folder of the evaluation images; null = same as images")
