"""From a study's sections to its cells before validation: the product of axes and zips, the cases, and one factor at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from salt_lab.errors import did_you_mean
from salt_lab.spec.naming import names
from salt_lab.spec.reading import NOTHING, Source, show
from salt_lab.spec.settings import Layer, check_key, combine, layer, over, place

MODES = ("vary", "add_one", "leave_one_out")


class Draft(NamedTuple):
    """A cell as written: what it sets over the base, and its name where the study gives one."""

    layer: Layer
    name: str | None = None


Factor = list[Layer]  # the values of one axis, or the rows of one zip


class Plan(NamedTuple):
    """The sections that make cells, read and checked for form."""

    factors: list[Factor]
    cases: list[Draft]
    singles: list[Draft]

    def taken(self) -> dict[str, str]:
        """Each key that some cell sets, with a place that sets it."""
        layers = [*itertools.chain(*self.factors), *(draft.layer for draft in (*self.cases, *self.singles))]
        return {key: setting.origin for one in layers for key, setting in one.items()}


def read_plan(source: Source, document: Mapping[str, Any]) -> Plan:
    """Read ``axes``, ``zip``, ``cases`` and ``one_at_a_time``. Raises SpecError for a wrong form, an empty axis, an unknown key."""
    return Plan(
        factors=[*_axes(source, document.get("axes")), *_zips(source, document.get("zip"))],
        cases=list(_cases(source, document.get("cases"))),
        singles=list(_one_at_a_time(source, document.get("one_at_a_time"))),
    )


def expand(source: Source, base: Layer, plan: Plan) -> list[Draft]:
    """All cells over the base, in the order of the file. A study that makes none otherwise is its base alone."""
    drafts: list[Draft] = []
    if plan.factors or not (plan.cases or plan.singles):
        drafts += [Draft(combine(source, chosen)) for chosen in itertools.product(*plan.factors)]
    return [Draft(over(base, draft.layer), draft.name) for draft in (*drafts, *plan.cases, *plan.singles)]


def mapping(source: Source, value: Any, field: str, example: str) -> Mapping[str, Any]:
    """``value`` if it is a mapping; SpecError with an example otherwise. An absent section is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise source.error(field, value, f"must be a mapping, e.g. {field.rsplit('.', 1)[-1]}: {example}")
    return value


def sequence(source: Source, value: Any, field: str, what: str) -> list[Any]:
    """``value`` if it is a list with something in it; SpecError otherwise."""
    if not isinstance(value, list):
        raise source.error(field, value, f"must be a list of {what}, e.g. [{'...' if value is None else show(value)}]")
    if not value:
        raise source.error(field, value, f"is empty: give at least one of its {what}, or leave it out")
    return value


def _values(source: Source, key: str, values: Any, field: str) -> list[Layer]:
    check_key(source, key, values, field)
    layers: list[Layer] = []
    for index, value in enumerate(sequence(source, values, field, "values")):
        one: Layer = {}
        place(source, one, key, value, f"{field}[{index}]")
        layers.append(one)
    return layers


def _axes(source: Source, axes: Any) -> Iterator[Factor]:
    for key, values in mapping(source, axes, "axes", "{host: [atss, gfl]}").items():
        yield _values(source, key, values, f"axes.{key}")


def _zips(source: Source, zips: Any) -> Iterator[Factor]:
    groups = zips if isinstance(zips, list) else [zips]
    for index, group in enumerate(groups):
        field = f"zip[{index}]" if isinstance(zips, list) else "zip"
        columns = {}
        for key, values in mapping(source, group, field, "{host: [atss, gfl], schedule.lr: [0.01, 0.02]}").items():
            columns[key] = _values(source, key, values, f"{field}.{key}")
        lengths = {key: len(column) for key, column in columns.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise source.error(field, NOTHING, f"lists of different length: {said}: a zip pairs them one to one")
        if columns:
            yield [combine(source, row) for row in zip(*columns.values(), strict=True)]


def _cases(source: Source, cases: Any) -> Iterator[Draft]:
    if cases is None:
        return
    for index, case in enumerate(sequence(source, cases, "cases", "cells")):
        field = f"cases[{index}]"
        values = dict(mapping(source, case, field, "{host: atss, salt: true}"))
        name = values.pop("name", None)
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise source.error(f"{field}.name", name, "must be text: the name of the cell in tables")
        yield Draft(layer(source, values, field), name)


def _one_at_a_time(source: Source, section: Any) -> Iterator[Draft]:
    field = "one_at_a_time"
    modes = mapping(source, section, field, "{vary: {salt.points: [5, 9]}}")
    for mode, parts in modes.items():
        if mode not in MODES:
            raise source.error(f"{field}.{mode}", parts, did_you_mean("mode of one_at_a_time", mode, MODES))
        if not parts:
            raise source.error(f"{field}.{mode}", parts, "is empty: name at least one " + ("key" if mode == "vary" else "part"))
    if "vary" in modes:
        yield from _vary(source, modes["vary"], f"{field}.vary")
    if "add_one" in modes:
        yield from _add_one(source, modes["add_one"], f"{field}.add_one")
    if "leave_one_out" in modes:
        yield from _leave_one_out(source, modes["leave_one_out"], f"{field}.leave_one_out")


def _vary(source: Source, keys: Any, field: str) -> Iterator[Draft]:
    yield Draft({}, "base")
    for key, values in mapping(source, keys, field, "{salt.points: [5, 9]}").items():
        for value, one in zip(values, _values(source, key, values, f"{field}.{key}"), strict=True):
            yield Draft(one, names([{key: value}])[0])


def _add_one(source: Source, parts: Any, field: str) -> Iterator[Draft]:
    off, on = _parts(source, parts, field)
    yield Draft(combine(source, off.values()), "all off")
    for added in on:
        yield Draft(combine(source, [on[part] if part == added else off[part] for part in on]), f"only {added}")
    yield Draft(combine(source, on.values()), "all on")


def _leave_one_out(source: Source, parts: Any, field: str) -> Iterator[Draft]:
    off, on = _parts(source, parts, field)
    yield Draft(combine(source, on.values()), "all on")
    for removed in on:
        yield Draft(combine(source, [off[part] if part == removed else on[part] for part in on]), f"all but {removed}")


def _parts(source: Source, parts: Any, field: str) -> tuple[dict[str, Layer], dict[str, Layer]]:
    example = "{off: {salt.sdr_weight: 0.0}, on: {salt.sdr_weight: 1.0}}"
    off: dict[str, Layer] = {}
    on: dict[str, Layer] = {}
    for part, states in mapping(source, parts, field, f"{{sdr: {example}}}").items():
        where = f"{field}.{part}"
        if not isinstance(states, dict) or set(states) != {"off", "on"}:
            raise source.error(where, states, f"must say what off and on are, e.g. {part}: {example}")
        off[part] = layer(source, mapping(source, states["off"], f"{where}.off", "{salt.sdr_weight: 0.0}"), f"{where}.off")
        on[part] = layer(source, mapping(source, states["on"], f"{where}.on", "{salt.sdr_weight: 1.0}"), f"{where}.on")
        if off[part].keys() != on[part].keys():
            raise source.error(where, states, "off and on must set the same keys, or one of them would lean on the base")
    return off, on
