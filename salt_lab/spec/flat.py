"""Nested plain data as one level of dotted keys and back, and a short name for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(plain: Mapping[str, Any]) -> str:
    """12 hex digits of the SHA-256 of ``plain`` as sorted JSON."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys; lists and empty mappings are values.

    >>> flatten({"host": "atss", "salt": {"points": 9}})
    {'host': 'atss', 'salt.points': 9}
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten`. Raises ValueError where a key is both a value and a mapping."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, leaf = key.split(".")
        inner: Any = nested
        for group in groups:
            inner = inner.setdefault(group, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or leaf in inner:
            raise ValueError(f"{key} is both a value and a mapping")
        inner[leaf] = value
    return nested
