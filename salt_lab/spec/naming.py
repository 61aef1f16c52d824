"""What tells the cells of a study apart: the keys in which they differ, and a short name for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from salt_lab.spec.keys import SHORT
from salt_lab.spec.settings import PATHS
from salt_lab.spec.trial import Trial, active, flatten

_LONG = {long: short for short, long in SHORT.items()}


def labels(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """For each trial the dotted keys, among those that differ between any of them, that can change its result.

    A key that is without effect in a trial (SALT's toggles when it is off) is absent there and makes no difference.
    """
    flats = [flatten({**active(trial), "seed": 0}) for trial in trials]
    seen: dict[str, set[str]] = {}
    for flat in flats:
        for key, value in flat.items():
            seen.setdefault(key, set()).add(json.dumps(value))
    differing = [key for key, values in seen.items() if len(values) > 1]
    return [{key: flat[key] for key in differing if key in flat} for flat in flats]


def names(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """One unique name per label: ``host=atss salt=on points=9``. Paths are cut to their last part where that is unique."""
    keys = sorted({key for cell in cells for key in cell})
    short = _short_keys(keys)
    brief = [" ".join(f"{short[key]}={_say(key, value)}" for key, value in cell.items()) for cell in cells]
    if len(set(brief)) == len(brief):
        return brief
    return [" ".join(f"{short[key]}={_say('', value)}" for key, value in cell.items()) for cell in cells]


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    last = {key: _LONG.get(key, key.rpartition(".")[2]) for key in keys}
    return {key: short if list(last.values()).count(short) == 1 else key for key, short in last.items()}


def _say(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return PurePath(value).name if key in PATHS else value
    return json.dumps(value, separators=(",", ":"))
