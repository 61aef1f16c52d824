"""``benchmarks/part_effects.py``: what was put into eight cells as effects of parts comes out again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from salt_lab.errors import UserError

NAMES = ("all off", "only c", "only b", "all but a", "only a", "all but b", "all but c", "all on")


@pytest.fixture(scope="module")
def effects(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script, as a module."""
    return script("benchmarks/part_effects.py")


def runs(noise: float = 0.0) -> pd.DataFrame:
    """Parts a, b, c are worth 3, -1 and 0.5 AP; a and b together 2 more. Three seeds, 50, 51 and 52 AP without anything; a baseline beside them."""
    draw = np.random.default_rng(0)
    rows = [("no SALT", seed, 49.0) for seed in range(3)]
    for name, (a, b, c) in zip(NAMES, product((0, 1), repeat=3), strict=True):
        rows += [(name, seed, 50 + seed + 3 * a - b + 0.5 * c + 2 * a * b + noise * draw.normal()) for seed in range(3)]
    return pd.DataFrame(rows, columns=["label", "seed", "AP"]).sample(frac=1, random_state=1)


def test_effects_and_interactions_are_those_that_were_put_in(effects: ModuleType) -> None:
    found = {one.name: one.mean for one in effects.part_effects(runs(noise=1e-3))}
    expected = {"a": 4.0, "b": 0.0, "c": 0.5, "a x b": 2.0, "a x c": 0.0, "b x c": 0.0}  # a: 3 without b, 5 with it
    assert found == pytest.approx(expected, abs=0.01)


def test_the_interval_is_the_paired_t_of_the_seeds(effects: ModuleType) -> None:
    one = effects.part_effects(runs(noise=1.0))[0]
    half = 4.302653 * one.seeds.std(ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom at 97.5 %
    assert (one.high - one.mean, one.mean - one.low) == pytest.approx((half, half), rel=1e-6)
    assert one.mean == pytest.approx(one.seeds.mean())


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda table: table[table.label != "all but b"], "cells all but b"),
        (lambda table: table[(table.label != "all on") | (table.seed != 2)], "a finished trial in each seed"),
        (lambda table: table[table.seed == 0], "in two seeds at least"),
        (lambda table: table[table.label != "only c"], "three parts are needed"),
    ],
)
def test_a_design_with_a_hole_is_refused(effects: ModuleType, broken, said: str) -> None:
    with pytest.raises(UserError, match=said):
        effects.part_effects(broken(runs()))
