"""How long and how a model learns, as plain data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, model_validator

from salt_lab.errors import did_you_mean
from salt_lab.spec.base import Number, Spec, spec_error

_ONE_X: dict[str, Any] = {
    "batch": 16, "image_size": [1333, 800], "optimizer": "sgd", "lr": 0.01, "weight_decay": 1e-4, "decay": "step", "milestones": None,
    "warmup_iters": 500, "clip_grad": None,
}  # fmt: skip
#: mmdet's published schedules. ``milestones: null`` is 8, 11 of 12 epochs and 16, 22 of 24.
SCHEDULES: dict[str, dict[str, Any]] = {"1x": {"epochs": 12, **_ONE_X}, "2x": {"epochs": 24, **_ONE_X}}


class Schedule(Spec):
    """How long and how the model learns, the same for both arms of a comparison. ``1x`` and ``2x`` are mmdet's published schedules."""

    epochs: Annotated[StrictInt, Field(ge=1)] = Field(12, description="Passes over the training images")
    batch: Annotated[StrictInt, Field(ge=1)] = Field(16, description="Images per optimiser step, over all workers")
    image_size: tuple[StrictInt, StrictInt] = Field((1333, 800), description="Longest and shortest side after resizing, pixels")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd has momentum 0.9")
    lr: Number = Field(0.01, gt=0, description="Peak learning rate")
    weight_decay: Number = Field(1e-4, ge=0, description="Weight decay")
    decay: Literal["step", "cosine"] = Field("step", description="step: a tenth at each milestone; cosine: to zero at the end")
    milestones: tuple[StrictInt, ...] | None = Field(None, description="Epochs at which the rate drops; null = 2/3 and 11/12 of the epochs")
    warmup_iters: Annotated[StrictInt, Field(ge=0)] = Field(500, description="Steps of linear warm-up")
    clip_grad: Number | None = Field(None, gt=0, description="Largest gradient norm; null = no clipping")
    eval_every: Annotated[StrictInt, Field(ge=0)] = Field(
        1, description="Evaluate each this many epochs and at the end; 0 = at the end only"
    )
    flip: Number = Field(0.5, ge=0, le=1, description="Probability of mirroring an image")
    amp: StrictBool = Field(False, description="Automatic mixed precision (GPU)")
    ema: Number | None = Field(
        None, gt=0, lt=1, description="Momentum of a running mean of the weights, which is then evaluated, e.g. 0.0002; null = none"
    )
    memory_format: Literal["contiguous", "channels_last"] = Field(
        "contiguous",
        description="Order of images, features and kernels in memory: contiguous = channel by channel; channels_last = each cell's channels "
        "side by side, the same numbers to rounding and often faster",
    )
    scale_lr: StrictBool = Field(False, description="lr is meant for 16 images a step: scale it by batch / 16")

    @model_validator(mode="before")
    @classmethod
    def _accept_preset(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in SCHEDULES:
            raise spec_error(did_you_mean("schedule", value, SCHEDULES))
        return SCHEDULES[value]

    @model_validator(mode="after")
    def _in_order(self) -> Schedule:
        longest, shortest = self.image_size
        if not longest >= shortest >= 32:
            raise spec_error("is the longest side, then the shortest, each at least 32 pixels, e.g. [1333, 800]", "image_size")
        steps = self.milestones or ()
        if any(step < 1 for step in steps) or list(steps) != sorted(set(steps)):
            raise spec_error("milestones are epochs from 1 on, increasing, e.g. [8, 11]", "milestones")
        if steps and steps[-1] >= self.epochs:
            raise spec_error(
                f"every milestone must come before the last epoch (epochs = {self.epochs}); null takes 2/3 and 11/12 of it", "milestones"
            )
        return self

    @property
    def peak_lr(self) -> float:
        """Learning rate in force: ``lr``, scaled linearly from 16 images a step to ``batch`` where asked."""
        return self.lr * self.batch / 16 if self.scale_lr else self.lr

    @property
    def drops(self) -> tuple[int, ...]:
        """Epochs at which the rate falls to a tenth: the milestones, or 2/3 and 11/12 of the epochs; none under cosine decay."""
        if self.decay != "step":
            return ()
        if self.milestones is not None:
            return self.milestones
        return tuple(sorted({step for step in (2 * self.epochs // 3, 11 * self.epochs // 12) if 1 <= step < self.epochs}))
