"""Settings: one field of a trial, its value and where that value was written, so that an error can point there.

A *layer* maps dotted keys to settings. A trial is built from layers, later over earlier: the base, then the cell. Inside one layer
the more specific key wins (``schedule: 1x`` with ``schedule.epochs: 6`` is the 1x schedule for six epochs); two equally specific
settings of one key are an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from salt_lab.errors import SpecError, did_you_mean
from salt_lab.spec.explain import explain, key_of
from salt_lab.spec.keys import GROUPS, LEAVES, SHORT, unknown_key
from salt_lab.spec.reading import NOTHING, Source, show
from salt_lab.spec.trial import SCHEDULES, Trial, unflatten

#: Keys whose values are paths: environment variables are put in, and the path is made absolute.
PATHS = ("data.train", "data.val", "data.images", "data.val_images", "backbone.init", "weights")
#: ``${NAME}``, or ``${NAME:-FOLDER}`` with what stands in where it is not set, as a shell writes it.
_VARIABLE = re.compile(r"\$\{([^}]*?)(?::-([^}]*))?\}")


class Setting(NamedTuple):
    """A value and the place in the study where it stands. ``general``: it came with a preset, so a written key wins over it."""

    value: Any
    origin: str
    general: bool = False


Layer = dict[str, Setting]


def layer(source: Source, values: Mapping[str, Any], origin: str) -> Layer:
    """Read a mapping of trial keys, dotted or nested, into a layer. ``origin`` is where the mapping stands ("base", "cases[2]").

    Raises SpecError for an unknown key (with the near match), a key that is set twice, and a shorthand that is none.
    """
    result: Layer = {}
    for key, value in values.items():
        place(source, result, key, value, f"{origin}.{key}" if origin else key)
    return result


def check_key(source: Source, key: str, value: Any, origin: str) -> None:
    """Refuse what is no key of a trial, naming the near match; and ``seed``, which belongs to the study."""
    if key == "seed":
        raise source.error(
            origin, value, f"training seeds are the study's: write seeds: {show(value if isinstance(value, list) else [value])}"
        )
    if key not in LEAVES and key not in GROUPS:
        raise source.error(origin, value, unknown_key(key))


def place(source: Source, into: Layer, key: str, value: Any, origin: str) -> None:
    """Add one trial key, which may be a group (``salt``) with a mapping or a shorthand as its value."""
    check_key(source, key, value, origin)
    if key in GROUPS and isinstance(value, Mapping):
        for inner, inner_value in value.items():
            place(source, into, f"{key}.{inner}", inner_value, f"{origin}.{inner}")
    elif key in GROUPS:
        _place_shorthand(source, into, key, value, origin)
    else:
        put(source, into, key, Setting(value, origin))
        if key == "data.train":
            put(source, into, "data.kind", Setting("coco", origin, general=True))


def _place_shorthand(source: Source, into: Layer, key: str, value: Any, origin: str) -> None:
    wanted = bool if key == "salt" else str
    if not isinstance(value, wanted):
        shorthand = {"salt": "true or false", "backbone": "a backbone's name", "data": "'marks'", "schedule": "1x or 2x"}[key]
        raise source.error(origin, value, f"{key} is a mapping of its fields, or {shorthand}")
    if key != "schedule":
        put(source, into, SHORT[key], Setting(value, origin))
        return
    if value not in SCHEDULES:
        raise source.error(origin, value, did_you_mean("schedule", value, SCHEDULES))
    for field, preset in SCHEDULES[value].items():
        put(source, into, f"schedule.{field}", Setting(preset, origin, general=True))


def put(source: Source, into: Layer, key: str, new: Setting) -> None:
    """Set ``key`` unless a more specific setting holds it. Raises SpecError where two equally specific ones meet."""
    old = into.get(key)
    if old is None or (old.general and not new.general):
        into[key] = new
    elif old.general == new.general and not (new.general and old.value == new.value):
        other = "it is given twice, dotted and nested" if old.origin == new.origin else f"{old.origin} sets {key} too"
        raise source.error(new.origin, new.value, f"{other}: keep one of them")


def combine(source: Source, layers: Iterable[Layer]) -> Layer:
    """Layers of equal rank (the values of several axes) in one. Raises SpecError where two set the same key."""
    result: Layer = {}
    for one in layers:
        for key, setting in one.items():
            put(source, result, key, setting)
    return result


def over(below: Layer, above: Layer) -> Layer:
    """``above`` over ``below``. A change of the kind of data drops the other kind's fields."""
    kept = dict(below)
    kind = above.get("data.kind")
    if kind is not None and kind.value != (below["data.kind"].value if "data.kind" in below else "marks"):
        kept = {key: setting for key, setting in below.items() if not key.startswith("data.")}
    return {**kept, **above}


def build(source: Source, settings: Layer, seed: int = 0) -> Trial:
    """The trial that a layer describes, with paths made absolute. Raises SpecError that points to where the wrong value stands."""
    values = {key: _expanded(source, key, setting) for key, setting in settings.items()}
    try:
        return Trial.model_validate({**unflatten(values), "seed": seed})
    except ValidationError as error:
        raise _translated(source, settings, error) from None


def _translated(source: Source, settings: Layer, error: ValidationError) -> SpecError:
    problem = error.errors(include_url=False)[0]
    key = key_of(problem)
    setting = settings.get(key)
    if setting is None:
        return source.error(key, NOTHING, explain(problem))
    message = explain(problem)
    if isinstance(setting.value, list) and key not in ("schedule.image_size", "schedule.milestones", "salt.levels"):
        message += f": to compare several values make it an axis, axes.{key}"
    return source.error(setting.origin, setting.value, message)


def _expanded(source: Source, key: str, setting: Setting) -> Any:
    value = setting.value
    if key not in PATHS or not isinstance(value, str) or not value:
        return value
    for name, default in _VARIABLE.findall(value):
        if not (os.environ.get(name) or default):
            message = f"the environment variable {name} is not set: export {name}=..., or override {key}=..."
            raise source.error(setting.origin, value, message)
    path = _VARIABLE.sub(lambda match: os.environ.get(match.group(1)) or match.group(2), value)
    if key in ("backbone.init", "weights") and (path == "host" or "://" in path):
        return path
    return os.path.abspath(os.path.expanduser(path))
