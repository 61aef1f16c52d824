"""How often an interval holds the truth: many data sets drawn from :mod:`salt_lab.testing.population`, an interval from each.

Coverages are counts, so a figure from M data sets has a standard error of its own: 0.7 points at 95 % with M = 1,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from salt_lab.evaluate.bootstrap import Interval, bootstrap, hierarchical, paired
from salt_lab.evaluate.draws import draw
from salt_lab.evaluate.matching import Matches
from salt_lab.testing.population import draw_images, run_on

#: Abilities of variant and baseline: about 3.6 AP apart.
ABILITIES = (0.15, 0.0)


@dataclass(frozen=True)
class Coverage:
    """Of ``sets`` intervals: how many, in percent, lie below the truth, hold it, lie above it, and their mean width in AP points."""

    below: float
    covered: float
    above: float
    width: float
    sets: int


def covered(intervals: Sequence[Interval], truth: float) -> Coverage:
    """Count. Intervals without numbers count as not covering."""
    ends_M2 = np.array(intervals, dtype=float)
    below, above = 100 * float((ends_M2[:, 1] < truth).mean()), 100 * float((ends_M2[:, 0] > truth).mean())
    inside = 100 * float(((ends_M2[:, 0] <= truth) & (truth <= ends_M2[:, 1])).mean())
    return Coverage(below, inside, above, float((ends_M2[:, 1] - ends_M2[:, 0]).mean()), len(ends_M2))


def true_ap(spread: float = 0.0, images: int = 200_000, seeds: int = 1, shares: Sequence[float] = (0.6, 0.3, 0.1)) -> tuple[float, float]:
    """Population AP of variant and baseline: each on ``images`` images, in as many parts as there are ``seeds``.

    ``spread``: standard deviation of the shift of ability that a training seed makes. The shifts are the midpoints of equally likely slices of the
    normal distribution, not random: the mean over seeds is then exact to a hundredth of a point with 20.
    """
    from scipy import stats

    generator = np.random.default_rng(12345)
    shift_S = spread * stats.norm.ppf((np.arange(seeds) + 0.5) / seeds)
    drawn = draw_images(generator, images, shares)
    means = [[_ap(run_on(drawn, generator, ability + shift)) for shift in shift_S] for ability in ABILITIES]
    return float(np.mean(means[0])), float(np.mean(means[1]))


def _ap(run: Matches) -> float:
    return float(draw([run], resamples=1, seed=0, metrics=["AP"])[0]["AP"][0])


def over_images(
    images: int, sets: int, resamples: int, shares: Sequence[float] = (0.6, 0.3, 0.1), first: int = 0
) -> tuple[list[Interval], list[Interval]]:
    """Intervals of the difference, and of the variant's own AP, on ``sets`` data sets of ``images`` images; data set k is the same in every call."""
    of_difference, of_variant = [], []
    for number in range(first, first + sets):
        generator = np.random.default_rng([images, number])
        drawn = draw_images(generator, images, shares)
        variant, baseline = (run_on(drawn, generator, ability) for ability in ABILITIES)
        of_difference.append(paired(variant, baseline, resamples=resamples, seed=number, metrics=["AP"]).interval())
        of_variant.append(bootstrap(variant, resamples=resamples, seed=number, metrics=["AP"]).interval())
    return of_difference, of_variant


def over_seeds_and_images(
    images: int, sets: int, resamples: int, seeds: int, spread: float, *, share_seeds: bool = True
) -> tuple[list[Interval], list[Interval]]:
    """Intervals of the difference by :func:`~salt_lab.evaluate.hierarchical.hierarchical`, ours and the plain ones, on ``sets`` data sets with
    fresh seeds each. ``share_seeds``: the arms have their seeds' numbers in common (and nothing else)."""
    ours, plain = [], []
    for number in range(sets):
        generator = np.random.default_rng([images, seeds, number])
        drawn = draw_images(generator, images)
        variant, baseline = (
            {seed: run_on(drawn, generator, ability + spread * generator.normal()) for seed in range(seeds)} for ability in ABILITIES
        )
        if not share_seeds:
            baseline = {100 + seed: run for seed, run in baseline.items()}
        found = hierarchical(variant, baseline, resamples=resamples, seed=number)["AP"]
        ours.append(Interval(found.low, found.high))
        plain.append(found.plain)
    return ours, plain
