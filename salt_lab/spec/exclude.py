"""``exclude``: predicates that take cells out of a study before anything else is asked of them.

A predicate maps dotted keys to conditions that must all hold: a value, a list of values (any of them), or operators
({lt, le, gt, ge, ne, in, not_in}). A field that the cell does not have (``data.classes`` of COCO files) meets no condition.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from salt_lab.errors import did_you_mean
from salt_lab.spec.expansion import Draft, mapping, sequence
from salt_lab.spec.explain import explain, key_of
from salt_lab.spec.keys import GROUPS, LEAVES, SHORT, defaults, unknown_key
from salt_lab.spec.reading import Source
from salt_lab.spec.settings import Layer, layer
from salt_lab.spec.trial import Trial, flatten, unflatten

ORDERS: dict[str, Callable[[Any, Any], bool]] = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}
OPERATORS = (*ORDERS, "ne", "in", "not_in")


class Condition(NamedTuple):
    """One key and the test that its value must pass."""

    key: str
    test: Callable[[Any], bool]


def excluded(source: Source, drafts: list[Draft], section: Any) -> list[Draft]:
    """``drafts`` without those that a predicate matches. Raises SpecError for a wrong predicate and where no cell remains."""
    if section is None or section == []:
        return drafts
    predicates = [
        _predicate(source, one, f"exclude[{index}]") for index, one in enumerate(sequence(source, section, "exclude", "predicates"))
    ]
    kept = [draft for draft in drafts if not any(_matches(predicate, values_of(draft.layer)) for predicate in predicates)]
    if not kept:
        raise source.error("exclude", section, f"removes every one of the {len(drafts)} cells: narrow it, or give the axes more values")
    return kept


def values_of(settings: Layer) -> dict[str, Any]:
    """Every field of a cell, flat, with the defaults where it says nothing."""
    kind = settings["data.kind"].value if "data.kind" in settings else "marks"
    return {**defaults(kind), **{key: setting.value for key, setting in settings.items()}}


def _matches(predicate: list[Condition], values: Mapping[str, Any]) -> bool:
    return all(key in values and test(values[key]) for key, test in predicate)


def _predicate(source: Source, section: Any, field: str) -> list[Condition]:
    conditions = list(_conditions(source, mapping(source, section, field, "{host: fcos, salt.points: {gt: 9}}"), field, ""))
    if not conditions:
        raise source.error(field, section, "is an empty predicate: name a key and the value to leave out")
    return conditions


def _conditions(source: Source, section: Mapping[str, Any], field: str, prefix: str) -> Iterator[Condition]:
    for inner, wanted in section.items():
        key, where = f"{prefix}{inner}", f"{field}.{inner}"
        operators = isinstance(wanted, dict) and bool(wanted) and not (set(wanted) - set(OPERATORS))
        if key in GROUPS and isinstance(wanted, dict) and not operators:
            yield from _conditions(source, wanted, where, f"{key}.")
        elif SHORT.get(key, key) in LEAVES:
            yield _condition(source, SHORT.get(key, key), wanted, where)
        elif key == "schedule" and isinstance(wanted, str):
            yield from (Condition(leaf, _equals(setting.value)) for leaf, setting in layer(source, {key: wanted}, field).items())
        else:
            raise source.error(where, wanted, unknown_key(key))


def _condition(source: Source, key: str, wanted: Any, field: str) -> Condition:
    if key == "seed":
        raise source.error(field, wanted, "seeds are not part of a cell: list only the seeds you want under 'seeds'")
    if isinstance(wanted, dict):
        tests = [_operator(source, key, name, value, f"{field}.{name}") for name, value in wanted.items()]
        return Condition(key, lambda value: all(test(value) for test in tests))
    if not isinstance(wanted, list):
        return Condition(key, _equals(_check(source, key, wanted, field)))
    if not wanted:
        raise source.error(field, wanted, "is an empty list: name at least one value to leave out")
    options = [_stored(key, one) for one in wanted]
    return Condition(key, lambda value: same(value, wanted) or any(same(value, one) for one in options))


def _operator(source: Source, key: str, name: str, wanted: Any, field: str) -> Callable[[Any], bool]:
    if name not in OPERATORS:
        raise source.error(field, wanted, did_you_mean("operator", name, OPERATORS))
    if name in ("in", "not_in"):
        options = [_stored(key, one) for one in sequence(source, wanted, field, "values")]
        return lambda value: any(same(value, one) for one in options) == (name == "in")
    if name == "ne":
        stored = _check(source, key, wanted, field)
        return lambda value: not same(value, stored)
    if not _is_number(wanted):
        raise source.error(field, wanted, f"{name} compares numbers: give a number, or list the values with in: [...]")
    return lambda value: _is_number(value) and ORDERS[name](value, wanted)


def _check(source: Source, key: str, wanted: Any, field: str) -> Any:
    """The value as a trial stores it. A value that the field can never have is refused: a misspelt host would silently exclude nothing."""
    if key == "data.val_images":  # a number for the embedded data, a folder for COCO files
        return wanted
    try:
        Trial.model_validate(unflatten({key: wanted}))
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            compared = problem.get("ctx", {}).get("at")  # with other fields, which the predicate says nothing about
            if key_of(problem) == key and not compared and problem["type"] != "extra_forbidden":
                raise source.error(field, wanted, explain(problem)) from None
    return _stored(key, wanted)


def _stored(key: str, wanted: Any) -> Any:
    """``true`` of a long skip is stored as ``cls``; a value that needs other fields beside it stays as written."""
    try:
        return flatten(Trial.model_validate(unflatten({key: wanted})).model_dump(mode="json")).get(key, wanted)
    except ValidationError:
        return wanted


def _equals(wanted: Any) -> Callable[[Any], bool]:
    return lambda value: same(value, wanted)


def same(one: Any, other: Any) -> bool:
    """Equality of YAML values: 1 is 1.0 but not true."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
