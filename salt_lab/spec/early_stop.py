"""``early_stop``: trials that fall behind end at a rung instead of at their last epoch. Asked for by a study, never part of a trial's identity.

``early_stop: {rungs: [3, 6], keep: 1/3}``: after the evaluations of epochs 3 and 6 a trial goes on if it is among the best third of the
study's trials that have got there so far. Who decides, and from what, stands in :mod:`salt_lab.train.early_stop`.

It answers "which of these is best?" for less. It does not answer "how much does this change?": a mean over the seeds that were not stopped
is a mean over lucky seeds. So it is off unless asked for, a stopped trial is in no number, and a baseline of ``compare`` is never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StrictInt, ValidationError, field_validator, model_validator

from salt_lab.errors import did_you_mean
from salt_lab.spec.base import Number, Spec, spec_error
from salt_lab.spec.explain import explain
from salt_lab.spec.keys import LEAVES, SHORT
from salt_lab.spec.reading import NOTHING, Source

if TYPE_CHECKING:
    from salt_lab.spec.study import Cell
    from salt_lab.spec.trial import Schedule

EXAMPLE = "{rungs: [3, 6], keep: 1/3}"


class EarlyStop(Spec):
    """Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020) in the form that
    stops trials and promotes none. ``min_peers`` and ``group`` are (ours)."""

    kind: Literal["asha"] = Field("asha", description="asha: asynchronous successive halving by AP")
    rungs: Annotated[tuple[Annotated[StrictInt, Field(ge=1)], ...], Field(min_length=1)] = Field(
        description="Epochs after whose evaluation a trial may be stopped, increasing, before the last epoch"
    )
    keep: Number = Field(1 / 3, gt=0, le=1, description="Share of the trials at a rung that go on, e.g. 1/3 or 0.34; 1 stops nobody")
    min_peers: Annotated[StrictInt, Field(ge=1)] = Field(3, description="Nobody is stopped by a comparison with fewer other trials")
    group: tuple[str, ...] = Field((), description="Keys in which competitors must agree, e.g. host: trials of one host compete")

    @field_validator("keep", mode="before")
    @classmethod
    def _as_fraction(cls, value: Any) -> Any:
        """YAML has no fractions: ``1/3`` arrives as text."""
        if not isinstance(value, str):
            return value
        try:
            return float(Fraction(value))
        except (ValueError, ZeroDivisionError):
            raise spec_error("must be a number or a fraction, e.g. 0.34 or 1/3") from None

    @field_validator("group", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else [] if value is None else value

    @field_validator("group")
    @classmethod
    def _known(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if SHORT.get(key, key) not in LEAVES:
                raise spec_error(did_you_mean("key of a trial", key, LEAVES))
        return tuple(dict.fromkeys(SHORT.get(key, key) for key in keys))

    @model_validator(mode="after")
    def _in_order(self) -> EarlyStop:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise spec_error("must increase, e.g. [3, 6]", "rungs")
        return self

    def __str__(self) -> str:
        alike = f", among trials of the same {' and '.join(self.group)}" if self.group else ""
        epochs = f"epoch{'s' if len(self.rungs) > 1 else ''} {', '.join(map(str, self.rungs))}"
        return f"{self.kind} at {epochs}: the best {self.keep * 100:.3g} % go on{alike}, once there are {self.min_peers} others"


def read_early_stop(source: Source, value: Any, cells: Sequence[Cell]) -> EarlyStop | None:
    """The study's section ``early_stop``; None where it is absent, ``null`` or ``false``.

    Raises:
        SpecError: names the field, its value and what is wrong: also a rung at which some cell of the study is not evaluated.
    """
    if value is None or value is False:
        return None
    if not isinstance(value, Mapping):
        raise source.error("early_stop", value, f"must be a mapping, e.g. {EXAMPLE}, or null for none")
    try:
        rules = EarlyStop.model_validate(dict(value))
    except ValidationError as error:
        field, text = _fault(error)
        raise source.error(f"early_stop.{field}" if field else "early_stop", value.get(field, NOTHING), text) from None
    for cell in cells:
        for rung in rules.rungs:
            if problem := _unfit(rung, cell.trial.schedule):
                raise source.error("early_stop.rungs", list(rules.rungs), f"at epoch {rung} the cell '{cell.name}' {problem}")
    return rules


def _unfit(rung: int, schedule: Schedule) -> str:
    """Why no decision can be made at this rung; empty where one can."""
    if rung >= schedule.epochs:
        return f"is at its end (schedule.epochs = {schedule.epochs}) and nothing is left to stop: take earlier rungs"
    if not schedule.eval_every:
        return "is not evaluated (schedule.eval_every = 0): set it to a number that divides the rungs"
    if rung % schedule.eval_every:
        every = schedule.eval_every
        return f"is not evaluated (schedule.eval_every = {every}): take multiples of {every}, or set schedule.eval_every to 1"
    return ""


def _fault(error: ValidationError) -> tuple[str, str]:
    """The field (empty where it is none) and what is wrong with it, in words."""
    problem = error.errors(include_url=False)[0]
    field = str(problem.get("ctx", {}).get("at") or next((part for part in problem["loc"]), ""))
    if problem["type"] == "extra_forbidden":
        return field, did_you_mean("key of early_stop", field, EarlyStop.model_fields)
    meaning = EarlyStop.model_fields[field].description if field in EarlyStop.model_fields and problem["type"] != "spec" else None
    if problem["type"] == "missing":
        return field, f"is missing: {meaning}, e.g. {EXAMPLE}"
    return field, explain(problem) + (f" ({meaning})" if meaning else "")
