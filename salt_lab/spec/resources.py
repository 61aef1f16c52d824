"""What a trial of a study runs on: workers, cores, GPUs and memory. Never part of a trial's identity: the result is the same trial's.

``resources: {gpus: 8}`` is eight workers with a GPU each, ``{workers: 2}`` two processes, ``{gpus: 0.5}`` two trials to a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StrictInt, ValidationError, model_validator

from salt_lab.errors import SpecError, did_you_mean
from salt_lab.spec.base import Number, Spec, spec_error
from salt_lab.spec.explain import explain
from salt_lab.spec.reading import NOTHING, Source


class Resources(Spec):
    """What one trial takes while it runs. ``schedule.batch`` is over all its workers.

    ``workers`` is filled in from ``gpus`` where only that is given; an integer ``gpus`` above 1 is one GPU for each worker.
    """

    workers: Annotated[StrictInt, Field(ge=1)] = Field(1, description="Processes that train one trial together")
    cpus: Annotated[StrictInt, Field(ge=1)] = Field(1, description="CPU cores (threads) of each worker")
    gpus: Number | None = Field(
        None,
        ge=0,
        description="GPUs of a trial: 8 = eight workers with one each, 0.5 = half of one, 0 = CPU; null = one per worker where there are any",
    )
    memory_gb: Number | None = Field(
        None,
        gt=0,
        description="Memory that each worker needs, GiB: of its GPU where it has one, else main memory; null = as measured, where it was",
    )

    @model_validator(mode="before")
    @classmethod
    def _a_worker_per_gpu(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("workers") is None:
            given = {key: one for key, one in value.items() if key != "workers"}
            gpus: Any = given.get("gpus")
            return {**given, "workers": int(gpus)} if _whole(gpus) and gpus >= 1 else given
        return value

    @model_validator(mode="after")
    def _agree(self) -> Resources:
        gpus = self.gpus
        if not gpus:
            return self
        if not _whole(gpus):
            if gpus > 1:
                raise spec_error(
                    f"must be a whole number above 1: {int(gpus)} or {int(gpus) + 1}; only a share of one GPU is a fraction", "gpus"
                )
            if self.workers > 1:
                raise spec_error(
                    f"a share of a GPU is for one worker, and workers = {self.workers}: set gpus to {self.workers}, or workers to 1", "gpus"
                )
        elif gpus != self.workers:
            raise spec_error(
                f"each worker has one GPU, so workers = {self.workers} and gpus = {gpus:g} do not go together: give one of the two",
                "gpus",
            )
        return self

    @property
    def gpus_per_worker(self) -> float | None:
        """GPUs of each worker: 0, a share, or 1; None where ``gpus`` leaves it to what there is."""
        return None if self.gpus is None else min(self.gpus, 1.0)

    def over(self, *, workers: int | None = None, cpus: int | None = None, gpus: float | None = None) -> Resources:
        """These resources with what the command line asks for instead; None = as they are.

        Asking for GPUs also asks for their workers, and asking for workers for a GPU each (or still none, where ``gpus`` is 0).

        Raises:
            ValidationError: what is asked for does not go together.
        """
        new: dict[str, Any] = self.model_dump(exclude_unset=True)
        if gpus is not None:
            new["gpus"] = gpus
            new["workers"] = workers if workers is not None else (None if gpus else self.workers)
        elif workers is not None:
            new |= {"workers": workers, "gpus": None if self.gpus else self.gpus}
        return Resources.model_validate({**new, **({} if cpus is None else {"cpus": cpus})})

    def settled(self, has_gpus: bool) -> Resources:
        """With ``gpus`` decided: where it is open, one per worker if there are GPUs, else none."""
        return self if self.gpus is not None else self.model_copy(update={"gpus": float(self.workers) if has_gpus else 0.0})

    def recorded(self) -> dict[str, float | None]:
        """What a record keeps: ``workers``, ``cpus`` (per worker) and ``gpus`` (of the trial)."""
        return {"workers": self.workers, "cpus": self.cpus, "gpus": self.gpus}


def read_resources(source: Source, value: Any) -> Resources:
    """The study's section ``resources``; all defaults where it is absent.

    Raises:
        SpecError: names the field, its value and what is wrong.
    """
    if value is None:
        return Resources()
    if not isinstance(value, Mapping):
        raise source.error("resources", value, "must be a mapping of its fields, e.g. {gpus: 8} or {workers: 2}")
    try:
        return Resources.model_validate(dict(value))
    except ValidationError as error:
        field, text = fault(error)
        raise source.error(f"resources.{field}" if field else "resources", value.get(field, NOTHING), text) from None


def check_shared(batch: int, workers: int) -> None:
    """Can ``schedule.batch`` be shared out equally over the workers?

    Raises:
        SpecError: no: a step would have another number of images than the trial says.
    """
    if batch % workers:
        raise SpecError(
            f"schedule.batch = {batch} cannot be shared out equally over {workers} workers; "
            f"take a batch that {workers} divides, or fewer workers"
        )


def fault(error: ValidationError) -> tuple[str, str]:
    """The field (empty where it is none) and what is wrong with it, in words."""
    problem = error.errors(include_url=False)[0]
    field = str(problem.get("ctx", {}).get("at") or next((part for part in problem["loc"]), ""))
    if problem["type"] == "extra_forbidden":
        return field, did_you_mean("key of resources", field, Resources.model_fields)
    meaning = Resources.model_fields[field].description if field in Resources.model_fields and problem["type"] != "spec" else None
    return field, explain(problem) + (f" ({meaning})" if meaning else "")


def _whole(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value == int(value)
