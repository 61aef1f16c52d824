"""What every section of a study's data has in common: it is frozen, an unknown field is an error, and errors are in the lab's own words."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from salt_lab.errors import did_you_mean


def spec_error(text: str, at: str = "") -> PydanticCustomError:
    """An error in the lab's own words for a validator to raise; ``at`` names the field that is wrong when several were compared."""
    return PydanticCustomError("spec", "{text}", {"text": text, "at": at})


def known(kind: str, choices: tuple[str, ...]) -> AfterValidator:
    """Accept only ``choices``; name the nearest one otherwise."""

    def check(name: str) -> str:
        if name not in choices:
            raise spec_error(did_you_mean(kind, name, choices))
        return name

    return AfterValidator(check)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise spec_error("must be a number, not true or false")
    return value


Number = Annotated[float, BeforeValidator(_no_bool)]


class Spec(BaseModel):
    """Frozen, keyword-only data; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
