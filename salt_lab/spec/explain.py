"""pydantic's errors in the lab's words: what is wrong with the value, and what it should be instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from salt_lab.errors import did_you_mean
from salt_lab.spec.keys import GROUPS, LEAVES, unknown_key

_LIMITS = {
    "greater_than_equal": ("ge", "must be at least {}"),
    "greater_than": ("gt", "must be greater than {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "less_than": ("lt", "must be less than {}"),
}
_TYPES = {
    "int": "must be an integer",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "tuple": "must be a list of integers",
    "finite_number": "must be a finite number",
    "model": "must be a mapping of its fields",
}


def key_of(problem: ErrorDetails) -> str:
    """The dotted trial key that an error is about: without the union's tag, without the index in a list, with the field that a comparison named."""
    parts = [part for part in problem["loc"] if isinstance(part, str)]
    if len(parts) > 1 and parts[0] == "data":
        del parts[1]
    if problem["type"] == "union_tag_invalid":
        parts.append("kind")
    if at := problem.get("ctx", {}).get("at"):
        parts.append(at)
    return ".".join(parts)


def explain(problem: ErrorDetails) -> str:
    """One sentence: what is wrong, then the field's meaning or its choices."""
    kind, context, key = problem["type"], problem.get("ctx", {}), key_of(problem)
    if kind == "spec":
        return str(context["text"])
    if kind == "missing" and not isinstance(problem["loc"][-1], int):
        return f"is missing: {_meaning(key)}"
    if kind == "extra_forbidden":
        return _foreign(key, problem)
    if kind in ("literal_error", "union_tag_invalid"):
        choices = re.findall(r"'([^']*)'", str(context.get("expected") or context.get("expected_tags")))
        return did_you_mean("kind of data" if key == "data.kind" else key, _plain(problem["input"], key), choices)
    return _with_meaning(_fault(kind, context, problem), key)


def _fault(kind: str, context: Mapping[str, Any], problem: ErrorDetails) -> str:
    if kind in _LIMITS:
        limit, text = _LIMITS[kind]
        return text.format(f"{context[limit]:g}" if isinstance(context[limit], float) else context[limit])
    if kind in ("missing", "too_long", "too_short"):
        return "has the wrong number of entries"
    return next((text for name, text in _TYPES.items() if kind.startswith(name)), problem["msg"])


def _foreign(key: str, problem: ErrorDetails) -> str:
    if key in LEAVES and key.startswith("data."):
        return f"'{key}' is no key of {problem['loc'][1]} data: leave it out, or describe the data in one mapping (data: {{...}})"
    return unknown_key(key)


def _with_meaning(fault: str, key: str) -> str:
    return f"{fault} ({_meaning(key)})" if key in LEAVES else fault


def _meaning(key: str) -> str:
    return LEAVES.get(key) or f"one of {', '.join(GROUPS)}"


def _plain(value: Any, key: str) -> Any:
    return value.get("kind") if key == "data.kind" and isinstance(value, Mapping) else value
