"""The JSON schema of a study file, for editors: completion, the meaning of each key, and red lines under wrong values.

``experiments/study.schema.json`` is this, written with ``salt-lab schema > experiments/study.schema.json``. The first line
of a study names it: ``# yaml-language-server: $schema=study.schema.json``. It knows each field; :func:`salt_lab.spec.study.load_study` also
knows how they go together.
"""

from __future__ import annotations

import json
from typing import Any

from salt_lab.spec.early_stop import EarlyStop
from salt_lab.spec.exclude import ORDERS
from salt_lab.spec.expansion import MODES
from salt_lab.spec.keys import GROUPS, LEAVES
from salt_lab.spec.resources import Resources
from salt_lab.spec.retention import Retention
from salt_lab.spec.trial import SCHEDULES, Spec, Trial

Schema = dict[str, Any]


def study_schema() -> Schema:
    """The schema (JSON Schema 2020-12) as plain data."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "SALT lab study",
        "description": "A question, a base trial, what varies, the seeds, and what is compared with what",
        **_object(_sections()),
        "$defs": {**_shapes(), **_fields()},
    }


def schema_text() -> str:
    """The schema as the text of ``experiments/study.schema.json``."""
    return json.dumps(study_schema(), indent=2) + "\n"


def _sections() -> dict[str, Schema]:
    lists = _ref("lists")
    seed = {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}
    baseline = {"baseline": _said("Set these keys in a cell to find its baseline", **_ref("trial"))}
    return {
        "name": _said(
            "The study's name and its folder's; the file's name if absent", type="string", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
        ),
        "question": _said("What the study asks, in a sentence", type="string"),
        "base": _said("The trial that every cell starts from", **_ref("trial")),
        "axes": _said("Keys with lists of values; the cells are their product", **lists),
        "zip": _said(
            "Keys whose lists go together, entry by entry; each zip is one axis", anyOf=[lists, {"type": "array", "items": lists}]
        ),
        "cases": _said("Cells written out, each over the base", type="array", minItems=1, items=_ref("case")),
        "exclude": _said("Predicates that take cells out", type="array", items=_ref("predicate")),
        "one_at_a_time": _said("One factor at a time, over the base", **_object(_modes())),
        "seeds": _said("Training seeds; each cell is trained once with each", type="array", minItems=1, uniqueItems=True, items=seed),
        "compare": _said("What is compared with what", **_object(baseline)),
        "resources": _said("What each trial runs on; never changes a trial's id", **_object(_properties(Resources))),
        "retention": _said("What stays on the disk beside records and detections", **_object(_properties(Retention))),
        "early_stop": _said(
            "Stop trials that fall behind at a rung; for searches, not for a paper's table", anyOf=[_early_stop(), {"enum": [None, False]}]
        ),
    }


def _early_stop() -> Schema:
    """Fields of the section, with the short forms that it accepts: ``keep: 1/3``, ``group: host``."""
    fields = _properties(EarlyStop)
    fields["keep"] = {"anyOf": [fields["keep"], {"type": "string", "pattern": r"^\d+/\d+$"}]}
    fields["group"] = {"anyOf": [fields["group"], {"type": "string"}]}
    return {**_object(fields), "required": ["rungs"]}


def _modes() -> dict[str, Schema]:
    vary = _said("The base, then each value of each key alone", minProperties=1, **_ref("lists"))
    parts = {"type": "object", "minProperties": 1, "additionalProperties": _ref("part")}
    texts = {"add_one": "Parts: all off, each one added alone, all on", "leave_one_out": "Parts: all on, each one taken out"}
    return {mode: vary if mode == "vary" else _said(texts[mode], **parts) for mode in MODES}


def _shapes() -> dict[str, Schema]:
    """The shapes that several sections share: trial keys with values, with lists of values, with conditions."""
    keys = [key for key in (*GROUPS, *LEAVES) if key != "seed"]
    trial = {key: _ref(key) for key in keys}
    orders: dict[str, Schema] = {name: {"type": "number"} for name in ORDERS}
    others: dict[str, Schema] = {"ne": {}, "in": {"type": "array", "minItems": 1}, "not_in": {"type": "array", "minItems": 1}}
    condition = {key: {"anyOf": [_ref(key), _some(_ref(key)), _ref("operators")]} for key in keys}
    return {
        "trial": _object(trial),
        "lists": _object({key: _some(_ref(key)) for key in keys}),
        "case": _object({"name": {"type": "string", "minLength": 1}, **trial}),
        "part": {**_object({"off": _ref("trial"), "on": _ref("trial")}), "required": ["off", "on"]},
        "operators": {**_object({**orders, **others}), "minProperties": 1},
        "predicate": {**_object(condition), "minProperties": 1},
    }


def _fields() -> dict[str, Schema]:
    """Each key of a trial, and each group as a shorthand or a mapping of its fields."""
    top = _properties(Trial)
    fields = {key: top[key] for key in LEAVES if key in top and key != "seed"}
    for group, models in GROUPS.items():
        objects = [_object(_properties(model)) for model in models]
        for name in dict.fromkeys(name for one in objects for name in one["properties"]):
            versions = [one["properties"][name] for one in objects if name in one["properties"]]
            fields[f"{group}.{name}"] = versions[0] if len(versions) == 1 else {"anyOf": versions}
        fields[group] = {"description": top[group].get("description", ""), "anyOf": [_shorthand(group), *objects]}
    return fields


def _properties(model: type[Spec]) -> dict[str, Schema]:
    return {name: _clean(schema) for name, schema in model.model_json_schema()["properties"].items()}


def _shorthand(group: str) -> Schema:
    if group == "salt":
        return {"type": "boolean"}
    if group == "backbone":
        return {"enum": _properties(GROUPS[group][0])["name"]["enum"]}
    return {"enum": ["marks"] if group == "data" else list(SCHEDULES)}


def _clean(schema: Any) -> Any:
    """Without pydantic's titles, which only repeat the key."""
    if isinstance(schema, dict):
        return {key: _clean(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    return [_clean(value) for value in schema] if isinstance(schema, list) else schema


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _some(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _ref(key: str) -> Schema:
    return {"$ref": f"#/$defs/{key}"}


def _said(description: str, **schema: Any) -> Schema:
    return {"description": description, **schema}
