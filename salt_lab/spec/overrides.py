"""``key=value`` on the command line, over what the study file says. An override that could change nothing is an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from salt_lab.errors import SpecError, did_you_mean
from salt_lab.spec.expansion import Plan
from salt_lab.spec.keys import GROUPS, LEAVES, same_key, unknown_key
from salt_lab.spec.reading import NOTHING, Source, parse_yaml
from salt_lab.spec.settings import Layer, place

#: The fields of a study, and how many names deep an override may reach into them (``compare.baseline.salt.enabled``: 2).
FIELDS = {
    "name": 0,
    "question": 0,
    "base": 0,
    "axes": 1,
    "zip": 0,
    "cases": 0,
    "exclude": 0,
    "one_at_a_time": 2,
    "seeds": 0,
    "compare": 2,
    "resources": 1,
    "early_stop": 1,
    "retention": 1,
}


class Override(NamedTuple):
    """One ``key=value``: its key, its value parsed as YAML, and its text."""

    key: str
    value: Any
    text: str

    @property
    def field(self) -> str:
        """The first name of the key."""
        return self.key.split(".")[0]

    def error(self, source: Source, message: str) -> SpecError:
        """An error about the override as it was typed."""
        return source.error(f"override {self.text}", NOTHING, message)


def parse_overrides(source: Source, texts: Sequence[str]) -> list[Override]:
    """Parse ``key=value`` texts. Raises SpecError for a wrong form, a value that is no YAML, an unknown key and a key given twice."""
    found: list[Override] = []
    for text in texts:
        override = _parse(source, text)
        if any(same_key(override.key, other.key) for other in found):
            raise override.error(source, f"{override.key} is given twice: keep one")
        if not (override.field in FIELDS or override.key in (*LEAVES, *GROUPS)):
            raise override.error(source, unknown_key(override.key, also=tuple(FIELDS)))
        found.append(override)
    return found


def _parse(source: Source, text: str) -> Override:
    key, equals, value = text.partition("=")
    key = key.strip().removeprefix("base.")
    if not equals or not key:
        raise source.error(f"override {text}", NOTHING, "an override is key=value, e.g. host=atss or seeds=[0,1]")
    try:
        return Override(key, parse_yaml(value), text)
    except (yaml.YAMLError, RecursionError):
        raise source.error(f"override {text}", NOTHING, "the value is not valid YAML: quote it, e.g. 'question=\"What: if?\"'") from None


def apply_to_document(source: Source, document: dict[str, Any], overrides: Sequence[Override]) -> list[Override]:
    """Put overrides of study fields and pins of axes into ``document``; return the rest, which are for the base."""
    rest = []
    for override in overrides:
        if override.field in FIELDS:
            _set_field(source, document, override)
        elif not _pin_axis(source, document, override):
            rest.append(override)
    return rest


def _set_field(source: Source, document: dict[str, Any], override: Override) -> None:
    depth = FIELDS[override.field]
    *outer, last = override.key.split(".", depth)
    if depth == 0 and last != override.field:
        raise override.error(source, f"replace the whole field: {override.field}=...")
    inner: Any = document
    for name in outer:
        if inner.get(name) is None:
            inner[name] = {}
        inner = inner[name]
        if not isinstance(inner, dict):
            raise override.error(source, f"{name} is no mapping in the file: replace it as a whole")
    if override.field == "axes" and outer:
        last = next((known for known in inner if same_key(known, last)), last)
    inner[last] = override.value
    source.overridden[".".join([*outer, last])] = override.text


def _pin_axis(source: Source, document: dict[str, Any], override: Override) -> bool:
    axes = document.get("axes")
    for key, values in axes.items() if isinstance(axes, dict) else ():
        plain = isinstance(values, list) and not any(isinstance(value, dict) for value in values)
        if key == override.key or (plain and same_key(key, override.key)):
            document["axes"][key] = [override.value]
            source.overridden[f"axes.{key}[0]"] = override.text
            return True
    return False


def base_layer(source: Source, overrides: Sequence[Override], plan: Plan) -> Layer:
    """The overrides of trial keys as a layer over the base. Raises SpecError where cells set the key themselves, so it would be lost."""
    result: Layer = {}
    taken = plan.taken()
    for override in overrides:
        source.overridden[override.key] = override.text
        one: Layer = {}
        place(source, one, override.key, override.value, override.key)
        for key, setting in one.items():
            if key in taken and not setting.general:
                raise override.error(source, _lost(key, taken[key]))
        result.update(one)
    return result


def _lost(key: str, origin: str) -> str:
    """Why an override is lost, and the field to replace instead: a whole section, an axis, a key that is varied, or a part."""
    names = origin.split("[")[0].split(".")
    if FIELDS[names[0]] == 0:
        names = names[:1]
    elif len(names) > 2 and names[1] in ("add_one", "leave_one_out"):
        names = names[:3]
    return f"would have no effect: {origin} sets {key} in the file: replace that with {'.'.join(names)}=..., or edit the file"


def check_fields(source: Source, document: dict[str, Any]) -> None:
    """Refuse a top-level key that no study has; say where it belongs if it is a trial's."""
    for key, value in document.items():
        if key == "seed":
            raise source.error(key, value, f"a study lists its seeds: write seeds: [{value}]")
        if key in LEAVES or key in GROUPS:
            raise source.error(key, value, f"is a key of a trial: write it under base, e.g. base: {{{key}: ...}}")
        if key not in FIELDS:
            raise source.error(key, value, did_you_mean("study field", key, FIELDS))
