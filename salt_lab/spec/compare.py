"""``compare``: which cell is the baseline of which.

A cell's baseline is the cell that is equal to it once the keys of ``compare.baseline`` are set. What cannot change the result does not
count: with the operator off there are no points, so ``salt.enabled: false`` is the one baseline of every number of points.
"""

from __future__ import annotations

from typing import Any

from salt_lab.errors import SpecError, did_you_mean
from salt_lab.spec.expansion import Draft, mapping
from salt_lab.spec.naming import names
from salt_lab.spec.reading import Source
from salt_lab.spec.settings import Layer, build, layer, over
from salt_lab.spec.trial import Trial, canonical, digest


def cell_key(trial: Trial) -> str:
    """12 hex digits that name a cell: the hash of its canonical trial without the seed."""
    return digest({key: value for key, value in canonical(trial).items() if key != "seed"})


def compared(source: Source, spoken: dict[str, str], drafts: dict[str, Draft], baseline: Layer) -> dict[str, str]:
    """The key of each cell's baseline. Raises SpecError where there is no baseline at all, or none for some cell."""
    if not baseline:
        return {}
    wanted: dict[str, str | SpecError] = {}
    for key, draft in drafts.items():
        try:
            wanted[key] = cell_key(build(source, over(draft.layer, baseline)))
        except SpecError as error:
            wanted[key] = error
    text = {key: setting.value for key, setting in baseline.items()}
    if not any(want in drafts for want in wanted.values()):
        impossible = next((want for want in wanted.values() if isinstance(want, SpecError)), None)
        raise impossible or source.error(
            "compare.baseline", text, "is in no cell of the study: add it to the axes or cases, or leave the comparison out (compare={})"
        )
    for key, want in wanted.items():
        if want not in drafts:
            raise source.error("compare.baseline", text, _unpaired(source, spoken[key], text, want))
    return {key: str(want) for key, want in wanted.items() if want != key}


def _unpaired(source: Source, name: str, text: dict[str, Any], want: str | SpecError) -> str:
    needed = f"the cell '{name}' has no baseline: the same cell with {names([text])[0]}"
    if isinstance(want, SpecError):
        why = str(want).removeprefix(f"{source.path}: ").rstrip(".")
        return f"{needed} cannot be built ({why}): exclude '{name}', or compare it with a cell that exists"
    return f"{needed} is not in the study: add that cell, or exclude '{name}'"


def read_baseline(source: Source, section: Any) -> Layer:
    """The section ``compare`` as a layer: what to set in a cell to get its baseline. Empty where nothing is compared."""
    compare = mapping(source, section, "compare", "{baseline: {salt.enabled: false}}")
    for key, value in compare.items():
        if key != "baseline":
            raise source.error(f"compare.{key}", value, did_you_mean("field of compare", key, ["baseline"]))
    return layer(source, mapping(source, compare.get("baseline"), "compare.baseline", "{salt.enabled: false}"), "compare.baseline")
