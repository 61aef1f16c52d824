"""``benchmarks/axis_slopes.py``: arms that part by so many AP along an axis are found to do so."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from salt_lab.errors import UserError


@pytest.fixture(scope="module")
def slopes(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script, as a module."""
    return script("benchmarks/axis_slopes.py")


def runs() -> pd.DataFrame:
    """Without SALT AP falls by 30 from 0 to 1, with it by 10 + 2 * seed, and is 1 higher at 0; bent alike, which no difference feels."""
    rows = []
    for seed in range(3):
        for x in (0, 0.25, 0.5, 1.0):
            bend = 5 * x * (1 - x) + seed
            rows.append((f"salt=off mark_offset={x:g}", seed, 80 + bend - 30 * x))
            rows.append((f"salt=on mark_offset={x:g} reg_at=cell", seed, 81 + bend - (10 + 2 * seed) * x))
    return pd.DataFrame(rows, columns=["label", "seed", "AP"])


def test_the_slope_of_a_gain_is_how_fast_the_arms_part_whatever_both_do(slopes: ModuleType) -> None:
    [found] = slopes.partings(runs(), "mark_offset")
    assert (found.arm, found.other) == ("salt=on reg_at=cell", "salt=off")
    assert found.slopes == pytest.approx({0: 20.0, 1: 18.0, 2: 16.0}) and found.slope.delta == pytest.approx(18.0)
    half = 4.302653 * 2.0 / np.sqrt(3)  # t of 2 degrees of freedom at 97.5 %; the slopes' SD is 2
    assert (found.slope.low, found.slope.high) == pytest.approx((18 - half, 18 + half), rel=1e-6)
    assert found.mean.delta == pytest.approx(1 + 18 * 1.75 / 4), "over the four values, whose mean is 1.75 / 4"


@pytest.mark.parametrize(
    ("broken", "axis", "said"),
    [
        (lambda table: table, "points", "no points= in the cell salt=off mark_offset=0"),
        (lambda table: table.iloc[1:], "mark_offset", "a finished trial at the same three values"),
        (lambda table: table[table.seed == 0], "mark_offset", "the same two seeds or more"),
        (lambda table: table[table.label.str.contains("=0 |=1 |=0$|=1$")], "mark_offset", "three values or more"),
    ],
)
def test_arms_that_cannot_be_compared_along_the_axis_are_refused(slopes: ModuleType, broken, axis: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        slopes.partings(broken(runs()), axis)
