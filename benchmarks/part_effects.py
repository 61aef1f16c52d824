"""What each part changes on average over all combinations of the others: ``python benchmarks/part_effects.py TABLE.runs.csv``.

A study that adds each of three parts alone and takes each out alone has all eight combinations, a 2^3 factorial design. A part's main effect in
one seed is the mean AP of the four cells with it minus that of the four without; the interaction of two parts is what one of them changes with
the other, minus what it changes without it. Intervals: 95 %, t over seeds; p: two-sided; Holm's correction over the parts, and over the pairs.
"""

from __future__ import annotations

import sys
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pandas as pd

from salt_lab.errors import UserError
from salt_lab.evaluate.seeds import difference, holm

ALL_OFF, ALL_ON, ONLY, ALL_BUT = "all off", "all on", "only ", "all but "


class PartEffect(NamedTuple):
    """AP points of one part, or of the interaction of two: their mean over seeds, its 95 % interval, p, and each seed's."""

    name: str
    mean: float
    low: float
    high: float
    p: float
    seeds: np.ndarray


def part_effects(runs: pd.DataFrame) -> list[PartEffect]:
    """Main effects, then interactions of two.

    Args:
        runs: a row a trial with ``label`` (a cell's name in a study of one_at_a_time), ``seed`` and ``AP``, in percent.

    Raises:
        UserError: these are not three parts with all eight combinations, each in the same two seeds or more.
    """
    ap = runs.pivot(index="label", columns="seed", values="AP")
    parts = [label.removeprefix(ONLY) for label in ap.index if label.startswith(ONLY)]
    names = {on: _name(parts, on) for on in product((False, True), repeat=len(parts))}
    if len(parts) != 3 or (missing := [name for name in names.values() if name not in ap.index]):
        raise UserError(f"cells {', '.join(missing) if len(parts) == 3 else parts}: three parts are needed, with all eight combinations")
    table = ap.loc[list(names.values())]
    if table.isna().to_numpy().any() or table.shape[1] < 2:
        raise UserError("each of the eight cells needs a finished trial in each seed, in two seeds at least")
    has = np.array(list(names))
    main = [_effect(part, table, has[:, i]) for i, part in enumerate(parts)]
    # (both + neither - one - other) of the means over the third part is twice the difference of means over four cells
    both = [_effect(f"{parts[i]} x {parts[j]}", 2 * table, has[:, i] == has[:, j]) for i, j in combinations(range(3), 2)]
    return main + both


def _name(parts: list[str], on: tuple[bool, ...]) -> str:
    """What a study calls the combination."""
    if all(on) or not any(on):
        return ALL_ON if all(on) else ALL_OFF
    return ONLY + parts[on.index(True)] if sum(on) == 1 else ALL_BUT + parts[on.index(False)]


def _effect(name: str, table: pd.DataFrame, here: np.ndarray) -> PartEffect:
    """Of the cells ``here`` over the others, seed by seed."""
    there, elsewhere = table[here].mean(), table[~here].mean()
    found = difference(there.to_dict(), elsewhere.to_dict())
    return PartEffect(name, found.delta, found.low, found.high, found.p, (there - elsewhere).to_numpy())


def main(path: str) -> None:
    """Print the effects of a table's runs."""
    found = part_effects(pd.read_csv(path))
    for group in (found[:3], found[3:]):
        corrected = holm({one.name: one.p for one in group})
        for one in group:
            seeds = ", ".join(f"{value:+.2f}" for value in one.seeds)
            words = f"p {one.p:.2g}, Holm {corrected[one.name]:.2g}"
            print(f"{one.name:22s} {one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]  {words}  seeds {seeds}")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (UserError, OSError, IndexError, KeyError) as error:
        sys.exit(f"part_effects.py TABLE.runs.csv: {error}")
