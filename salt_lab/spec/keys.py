"""The keys of a trial in dotted form, read off the types of :mod:`salt_lab.spec.trial`, and what an unknown one may have meant."""

from __future__ import annotations

import difflib
from typing import Any

from salt_lab.errors import did_you_mean
from salt_lab.spec.trial import Backbone, CocoData, EmbeddedData, SaltToggles, Schedule, Spec, Trial, flatten

#: The fields of a trial that are mappings, with the types that fill them.
GROUPS: dict[str, tuple[type[Spec], ...]] = {
    "salt": (SaltToggles,),
    "backbone": (Backbone,),
    "data": (EmbeddedData, CocoData),
    "schedule": (Schedule,),
}
#: What ``salt: true``, ``backbone: resnet18`` and ``data: marks`` set.
SHORT = {"salt": "salt.enabled", "backbone": "backbone.name", "data": "data.kind"}


def _leaves() -> dict[str, str]:
    leaves: dict[str, str] = {}
    for name, field in Trial.model_fields.items():
        if name not in GROUPS:
            leaves[name] = field.description or ""
        for model in GROUPS.get(name, ()):
            for inner, inner_field in model.model_fields.items():
                text = inner_field.description or ""
                key = f"{name}.{inner}"
                leaves[key] = f"{leaves[key]}, or {text}" if key in leaves and name == "data" and inner != "kind" else text
    leaves["data.kind"] = "'marks' (the embedded data set) or 'coco' (files in COCO's format)"
    return leaves


#: Every dotted key of a trial with its meaning: ``LEAVES["salt.points"]``.
LEAVES: dict[str, str] = _leaves()


def same_key(one: str, other: str) -> bool:
    """Do two keys name the same field? ``salt`` is short for ``salt.enabled``."""
    return SHORT.get(one, one) == SHORT.get(other, other)


def defaults(kind: Any = "marks") -> dict[str, Any]:
    """The flat values of a trial that says nothing, for the given kind of data (a COCO data set has no default paths)."""
    flat = flatten(Trial().model_dump(mode="json"))
    if kind == "marks":
        return flat
    return {key: value for key, value in flat.items() if not key.startswith("data.")} | {"data.kind": kind, "data.val_images": None}


def unknown_key(key: str, also: tuple[str, ...] = ()) -> str:
    """Say that a trial has no such key and what was probably meant; ``also`` are other words that fit at the top level."""
    known = [name for name in LEAVES if name != "seed"]
    top = list(dict.fromkeys([*(name.split(".")[0] for name in known), *also]))
    group, _, leaf = key.rpartition(".")
    if group in GROUPS:
        return did_you_mean(f"key of {group}", leaf, [name.split(".", 1)[1] for name in known if name.startswith(f"{group}.")])
    if group and difflib.get_close_matches(group, GROUPS, n=1):
        return did_you_mean("key", group, top)
    if homes := [name for name in known if name.endswith(f".{leaf}")]:
        return f"no key named '{key}'. Did you mean {' or '.join(repr(name) for name in homes)}?"
    if near := difflib.get_close_matches(key, [*top, *known], n=1, cutoff=0.75):
        return f"no key named '{key}'. Did you mean '{near[0]}'? Choices: {', '.join(top)}"
    return did_you_mean("key", key, top)
