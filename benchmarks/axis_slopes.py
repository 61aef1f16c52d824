"""How fast the arms of a study part along one of its axes: ``python benchmarks/axis_slopes.py TABLE.runs.csv mark_offset``.

A straight line by least squares through the differences in AP between two arms over the axis's values, in each seed; its slope is in AP points for
one unit of the axis. Beside it the mean difference over the values. Intervals: 95 %, t over seeds; p: two-sided, not corrected for the number of
pairs.
"""

from __future__ import annotations

import sys
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from salt_lab.errors import UserError
from salt_lab.evaluate.seeds import SeedDifference, difference


class Parting(NamedTuple):
    """``arm`` minus ``other``: the slope of their difference over the axis and its mean over the values, and each seed's slope."""

    arm: str
    other: str
    slope: SeedDifference
    mean: SeedDifference
    slopes: dict[int, float]


def partings(runs: pd.DataFrame, axis: str) -> list[Parting]:
    """Of each two arms, the later in the table minus the earlier.

    Args:
        runs: a row a trial with ``label`` (a cell's name, words ``key=value``), ``seed`` and ``AP``, in percent.
        axis: the key of numbers, as the labels have it.

    Raises:
        UserError: no label has that key, or the arms do not have the same values and seeds, three values and two seeds at least.
    """
    values = runs.label.str.extract(rf"(?:^| ){axis}=([-+.\de]+)(?= |$)", expand=False).astype(float)
    arms = runs.label.str.replace(rf"(?:^| ){axis}=\S+", "", regex=True).str.strip()
    if values.isna().any():
        raise UserError(f"no {axis}= in the cell {runs.label[values.isna()].iloc[0]}")
    table = runs.assign(arm=arms, value=values).pivot(index=["arm", "value"], columns="seed", values="AP")
    names = list(dict.fromkeys(arms))
    tables = [table.loc[name] for name in names]
    places = [list(one.index) for one in tables]
    if table.isna().to_numpy().any() or any(one != places[0] for one in places) or len(places[0]) < 3 or table.shape[1] < 2:
        raise UserError("each arm needs a finished trial at the same three values or more, in the same two seeds or more")
    pairs = combinations(range(len(names)), 2)
    return [_parting(names[later], names[first], tables[later] - tables[first]) for first, later in pairs]


def _parting(arm: str, other: str, gaps: pd.DataFrame) -> Parting:
    nothing = dict.fromkeys(gaps.columns, 0.0)
    slopes = {seed: float(np.polyfit(gaps.index, gaps[seed], 1)[0]) for seed in gaps.columns}
    return Parting(arm, other, difference(slopes, nothing), difference(gaps.mean().to_dict(), nothing), slopes)


def main(path: str, axis: str) -> None:
    """Print the slopes of a table's runs."""
    for one in partings(pd.read_csv(path), axis):
        seeds = ", ".join(f"{slope:+.1f}" for slope in one.slopes.values())
        print(f"{one.arm}  minus  {one.other}:")
        print(f"    slope {_words(one.slope)}  seeds {seeds}; mean over {axis} {_words(one.mean)}")


def _words(found: SeedDifference) -> str:
    return f"{found.delta:+.1f} [{found.low:+.1f}, {found.high:+.1f}] p {found.p:.2g}"


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except (UserError, OSError, TypeError, KeyError, ValueError, AttributeError) as error:
        sys.exit(f"axis_slopes.py TABLE.runs.csv AXIS: {error}")
