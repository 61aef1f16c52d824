"""How many seeds does it take? From the spread of runs to the number of seeds, and back to what a number of seeds can tell.

Two questions that are often confused, both answered here:

- *resolve*: how wide is the 95 % interval of a difference with n seeds? Half of it is t * SD * sqrt(2 / n) for two arms of independent runs and
  t * SD / sqrt(n) for n pairs, t being Student's quantile (2n - 2 or n - 1 degrees of freedom).
- *see with 80 % power*: how large must the true difference be so that four studies of five find p < 0.05? Larger: an effect of the size of the
  interval's half is missed by every second study.

And a third, of the studies' table, whose mark counts the images too (:mod:`salt_lab.evaluate.hierarchical`): :func:`mark_power`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from salt_lab.evaluate.seeds import LEVEL, t_quantile

Floats = NDArray[np.float64]

#: Beyond this many seeds an answer is "more than that".
MOST_SEEDS = 100_000
#: Mean distance of two runs of one config that authors and users report on COCO, in AP: implus/GFocal#8 (0.1), mmdetection#2558 (0.2), #3496 (0.3).
REPORTED_GAPS = (0.1, 0.3)
#: Mean distance of two normal draws = 2 / sqrt(pi) of their standard deviation.
GAP_PER_SD = 2 / math.sqrt(math.pi)
#: Points of the integrals over the spread that a study happens to find.
NODES = 64


@dataclass(frozen=True)
class Noise:
    """The spread that decides: ``sd`` in AP points, of the differences within a seed if ``paired``, else of one arm's runs.

    ``low`` to ``high``: what the sd may as well be (95 %, from ``df`` degrees of freedom; equal to it where it was given). ``source``: "record",
    "published" or "given". ``groups`` cells with ``runs`` seeds or pairs altogether are behind a record's.
    """

    sd: float
    low: float
    high: float
    paired: bool
    source: str
    df: int = 0
    groups: int = 0
    runs: int = 0


#: For a study without a spread of its own. 0.15 AP a run; the reported gaps belong to SDs of 0.09 to 0.27.
PUBLISHED = Noise(0.15, REPORTED_GAPS[0] / GAP_PER_SD, REPORTED_GAPS[1] / GAP_PER_SD, paired=False, source="published")


def given_noise(sd: float) -> Noise:
    """A spread of one arm's runs that somebody knows, in AP points, without an uncertainty."""
    return Noise(sd, sd, sd, paired=False, source="given")


def pooled_noise(groups: Sequence[Sequence[float]], *, paired: bool) -> Noise | None:
    """One spread from several groups of numbers (a cell's runs, or its differences to the baseline), each about its own mean.

    The interval is the chi-square one, for normal numbers of one common spread in independent groups (cells that share a baseline are not quite
    that, and their interval is a little too narrow). None where no group has two numbers, or nothing varies.
    """
    useful = [np.asarray(group, dtype=np.float64) for group in groups if len(group) >= 2]
    df = sum(len(group) - 1 for group in useful)
    squares = float(sum(((group - group.mean()) ** 2).sum() for group in useful))
    if not squares > 0:
        return None
    tail = (1 - LEVEL) / 2
    low, high = (math.sqrt(squares / stats.chi2.ppf(q, df)) for q in (1 - tail, tail))
    return Noise(math.sqrt(squares / df), low, high, paired, "record", df, len(useful), sum(map(len, useful)))


def resolves(seeds: int, sd: float, *, paired: bool, level: float = LEVEL) -> float:
    """Half the width of the t interval of a difference with ``seeds`` seeds in each arm, in AP points; infinite below two seeds.

    >>> [round(resolves(n, 0.15, paired=False), 2) for n in (3, 5)]
    [0.34, 0.22]
    """
    if seeds < 2:
        return math.inf
    df = seeds - 1 if paired else 2 * seeds - 2
    return t_quantile(df, level) * sd * math.sqrt((1 if paired else 2) / seeds)


def power_of(see: float, seeds: int, sd: float, *, paired: bool, alpha: float = 0.05) -> float:
    """Chance that a two-sided t test finds a true difference of ``see`` AP with ``seeds`` seeds in each arm (statsmodels' TTestPower for pairs,
    TTestIndPower for independent arms)."""
    from statsmodels.stats.power import TTestIndPower, TTestPower

    effect = abs(see) / sd
    power = float((TTestPower() if paired else TTestIndPower()).power(effect, seeds, alpha))
    return _power_by_f(effect, seeds, paired, alpha) if math.isnan(power) else power


def _power_by_f(effect: float, seeds: int, paired: bool, alpha: float) -> float:
    """The same number where SciPy's noncentral t is NaN (large effects): the square of a noncentral t is a noncentral F."""
    df, nc2 = (seeds - 1, effect**2 * seeds) if paired else (2 * seeds - 2, effect**2 * seeds / 2)
    power = float(stats.ncf.sf(special.stdtrit(df, 1 - alpha / 2) ** 2, 1, df, nc2))
    return 1.0 if math.isnan(power) else power


def seeds_needed(see: float, sd: float, *, paired: bool, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Fewest seeds in each arm (at least 2) with which a true difference of ``see`` AP is found with this power; None: over :data:`MOST_SEEDS`."""
    return _fewest(lambda seeds: power_of(see, seeds, sd, paired=paired, alpha=alpha) >= power)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """Least number, from 2 to :data:`MOST_SEEDS`, that is enough, where every larger one is too; None: there is none."""
    few, many = 1, 2
    while not enough(many):
        few, many = many, 2 * many
        if few >= MOST_SEEDS:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many if many <= MOST_SEEDS else None


def smallest_seen(seeds: int, sd: float, *, paired: bool, power: float = 0.8, alpha: float = 0.05) -> float:
    """Least true difference, in AP points, that is found with this power; infinite below two seeds."""
    if seeds < 2:
        return math.inf
    top = sd
    while power_of(top, seeds, sd, paired=paired, alpha=alpha) < power:
        top *= 2
    gap = optimize.brentq(lambda see: power_of(see, seeds, sd, paired=paired, alpha=alpha) - power, 1e-9 * sd, top, xtol=1e-6 * sd)
    return float(gap)


def mark_power(see: float, pairs: int, sd: float, se_images: float, *, alpha: float = 0.05) -> float:
    """Chance that a true difference of ``see`` AP gets p < ``alpha`` from seeds *and* images, as the table asks it. (ours)

    The test is that of :mod:`salt_lab.evaluate.hierarchical` for paired seeds, with a normal image part of known ``se_images``: the difference is
    held against an image part plus ``t(pairs - 1)`` times its standard error over seeds. What a study finds, mean and spread, is independent for
    normal noise, so the chance is one integral over the spread. With ``se_images`` 0 it is the paired t test's, :func:`power_of`.

    Args:
        see: true difference, AP points.
        pairs: of seeds, at least 2.
        sd: of the differences within a seed, on the same images, AP points.
        se_images: standard error of the difference from what images do to all seeds alike, AP points; no seed shrinks it.
        alpha: level of the two-sided test.
    """
    node_K, twice_K = np.polynomial.legendre.leggauss(NODES)  # on -1 to 1
    weight_K: Floats = twice_K / 2
    chi2_K = stats.chi2.ppf((node_K + 1) / 2, pairs - 1) / (pairs - 1)
    found_K = sd * np.sqrt(chi2_K / pairs)
    # t times a standard error is a normal number of random variance: the reference distribution is a mean of normal ones
    spread_KJ = np.sqrt(se_images**2 + found_K[:, None] ** 2 / chi2_K[None, :])
    low_K: Floats = np.zeros(NODES)
    high_K: Floats = se_images * special.ndtri(1 - alpha / 4) + found_K * special.stdtrit(pairs - 1, 1 - alpha / 4)
    for _ in range(50):
        middle_K = (low_K + high_K) / 2
        beyond_K = special.ndtr(-middle_K[:, None] / spread_KJ) @ weight_K
        low_K, high_K = np.where(beyond_K > alpha / 2, middle_K, low_K), np.where(beyond_K > alpha / 2, high_K, middle_K)
    true = math.sqrt(se_images**2 + sd**2 / pairs)
    return float((special.ndtr((see - high_K) / true) + special.ndtr((-see - high_K) / true)) @ weight_K)


def least_of_images(se_images: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The true difference, in AP points, that the table shows with this power at the very best, however many seeds are trained. (ours)

    (z(1 - alpha / 2) + z(power)) * se_images: the images alone, as if normal.

    >>> round(least_of_images(0.706), 2)
    1.98
    """
    return float(special.ndtri(1 - alpha / 2) + special.ndtri(power)) * se_images


def pairs_for_mark(see: float, sd: float, se_images: float, *, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Fewest pairs of seeds (at least 2) with which :func:`mark_power` reaches ``power``; None: no number of seeds does, or one over
    :data:`MOST_SEEDS`. (ours)"""
    if see <= least_of_images(se_images, power=power, alpha=alpha):
        return None
    return _fewest(lambda pairs: mark_power(see, pairs, sd, se_images, alpha=alpha) >= power)
