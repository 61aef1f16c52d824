"""What a study keeps on the disk beside its records. Never part of a trial's identity, and never about records or detections: those stay.

``retention: {checkpoints: best_and_last, disk_gb: 200}``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from salt_lab.errors import did_you_mean
from salt_lab.spec.base import Number, Spec
from salt_lab.spec.explain import explain
from salt_lab.spec.reading import NOTHING, Source

EXAMPLE = "{checkpoints: last, disk_gb: 200}"


class Retention(Spec):
    """Which checkpoints of a finished trial stay, and how much disk the study's trials may take. (ours)"""

    checkpoints: Literal["best_and_last", "last", "none"] = Field(
        "last",
        description="Of a finished trial: the last checkpoint; also the weights with the best AP of all its evaluations; or none of them",
    )
    disk_gb: Number | None = Field(
        None,
        gt=0,
        description="Disk for the trials that this study trains, GiB: the oldest finished trials' checkpoints go first; null = no limit",
    )

    def recorded(self) -> dict[str, Any]:
        """What a launch keeps."""
        return self.model_dump()


def read_retention(source: Source, value: Any) -> Retention:
    """The study's section ``retention``; all defaults where it is absent.

    Raises:
        SpecError: names the field, its value and what is wrong.
    """
    if value is None:
        return Retention()
    if not isinstance(value, Mapping):
        raise source.error("retention", value, f"must be a mapping of its fields, e.g. {EXAMPLE}")
    try:
        return Retention.model_validate(dict(value))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = str(next(iter(problem["loc"]), ""))
        if problem["type"] == "extra_forbidden":
            text = did_you_mean("key of retention", field, Retention.model_fields)
        else:
            text = f"{explain(problem)} ({Retention.model_fields[field].description})" if field else explain(problem)
        raise source.error(f"retention.{field}" if field else "retention", value.get(field, NOTHING), text) from None
