"""Statistics over seeds: what a handful of runs says about a mean, and about the difference of two arms.

A run's AP is one number; here are means of such numbers, in the unit of what comes in (AP: points of 0-100). Everything is about *other seeds on
the same images*; what other images would change is :mod:`salt_lab.evaluate.bootstrap`'s part. What each interval assumes: docs/statistics.md.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

LEVEL = 0.95
#: Up to this many pairs every pattern of signs is counted (2^14 = 16,384); beyond, :data:`RANDOM_FLIPS` random ones.
MOST_EXACT_PAIRS = 14
RANDOM_FLIPS = 99_999
Key = TypeVar("Key")


@dataclass(frozen=True)
class SeedMean:
    """Mean over ``n`` seeds with its t interval. ``sd``: sample standard deviation (n - 1). One seed has no sd and no interval: NaN."""

    mean: float
    sd: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class SeedDifference:
    """``variant - baseline`` over seeds.

    ``method``: "paired" (seed by seed; ``n`` pairs), "welch" (arms without two common seeds, unequal variances; ``n`` is 0), "one pair" (a
    difference and no interval) or "none" (nothing to subtract). ``sd`` is that of the paired differences, NaN unless paired. ``p`` is two-sided,
    of the t test that belongs to the interval; NaN where there is no interval.
    """

    delta: float
    sd: float
    low: float
    high: float
    p: float
    n: int
    method: str


@dataclass(frozen=True)
class SignFlips:
    """``p`` (two-sided) of the sign-flip test, and the ``smallest`` p that so many pairs can give at all."""

    p: float
    smallest: float
    n: int


@dataclass(frozen=True)
class Improvement:
    """Probability that a run of the variant beats one of the baseline, ties counted half, with its 95 % interval.

    ``paired``: a run of the *same seed*; otherwise any two runs.
    """

    probability: float
    low: float
    high: float
    n: int
    paired: bool


def mean_over_seeds(values: Sequence[float], level: float = LEVEL) -> SeedMean:
    """Mean, sample SD and Student's t interval of the mean, for runs that differ in their seed alone.

    >>> found = mean_over_seeds([26.0, 27.0, 28.0])
    >>> found.mean, found.sd, round(found.low, 3), round(found.high, 3)
    (27.0, 1.0, 24.516, 29.484)
    """
    runs_S = _finite(values)
    n = len(runs_S)
    if n == 0:
        return SeedMean(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(runs_S.mean())
    if n == 1:
        return SeedMean(mean, math.nan, math.nan, math.nan, 1)
    sd = float(runs_S.std(ddof=1))
    half = t_quantile(n - 1, level) * sd / math.sqrt(n)
    return SeedMean(mean, sd, mean - half, mean + half, n)


def t_quantile(df: float, level: float = LEVEL) -> float:
    """The number of standard errors on either side of an interval with this level: Student's t with ``df`` degrees of freedom."""
    return float(special.stdtrit(df, 0.5 + level / 2))


def difference(variant: Mapping[int, float], baseline: Mapping[int, float], level: float = LEVEL) -> SeedDifference:
    """Difference of two arms, from AP by seed: paired where at least two seeds are in both arms, Welch's otherwise.

    Paired: t interval and t test of the differences over the common seeds; runs of other seeds are not used, so that the difference is the one
    that the table's two columns of common seeds show. Welch: ``scipy.stats.ttest_ind(equal_var=False)``, with two runs or more in each arm.
    """
    variant, baseline = _defined(variant), _defined(baseline)
    common = sorted(variant.keys() & baseline.keys())
    differences_S = np.array([variant[seed] - baseline[seed] for seed in common])
    if len(common) >= 2:
        return _paired(differences_S, level)
    if min(len(variant), len(baseline)) >= 2:
        return _welch(list(variant.values()), list(baseline.values()), level)
    if len(common) == 1:
        return SeedDifference(float(differences_S[0]), math.nan, math.nan, math.nan, math.nan, 1, "one pair")
    return SeedDifference(math.nan, math.nan, math.nan, math.nan, math.nan, 0, "none")


def _paired(differences_S: NDArray[np.float64], level: float) -> SeedDifference:
    found = mean_over_seeds(differences_S.tolist(), level)
    error = found.sd / math.sqrt(found.n)
    if error > 0:
        p = 2 * float(special.stdtr(found.n - 1, -abs(found.mean) / error))
    else:  # the same difference in every seed, to the last bit: arms that are one and the same, as a rule
        p = 1.0 if found.mean == 0 else 0.0
    return SeedDifference(found.mean, found.sd, found.low, found.high, p, found.n, "paired")


def _welch(variant: Sequence[float], baseline: Sequence[float], level: float) -> SeedDifference:
    delta = float(np.mean(variant) - np.mean(baseline))
    if np.ptp(variant) == 0 and np.ptp(baseline) == 0:
        return SeedDifference(delta, math.nan, delta, delta, 1.0 if delta == 0 else 0.0, 0, "welch")
    with warnings.catch_warnings():  # SciPy warns where one arm's runs are equal, and is right all the same
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_ind(variant, baseline, equal_var=False)
    low, high = test.confidence_interval(level)
    return SeedDifference(delta, math.nan, float(low), float(high), float(test.pvalue), 0, "welch")


def smallest_sign_flip_p(pairs: int) -> float:
    """The least two-sided p that ``pairs`` paired seeds can give in the sign-flip test: 2^(1 - n), only the two patterns of equal signs.

    >>> [smallest_sign_flip_p(n) for n in (3, 5, 6)]
    [0.25, 0.0625, 0.03125]
    """
    return min(1.0, 2.0 ** (1 - pairs))


def sign_flips(variant: Mapping[int, float], baseline: Mapping[int, float], seed: int = 0) -> SignFlips:
    """Permutation test beside the t test: does the mean difference stand out if each seed's sign is as likely plus as minus?

    It assumes no bell shape, only that the differences are symmetric about 0 if there is no effect. Exact up to :data:`MOST_EXACT_PAIRS` pairs
    (``scipy.stats.permutation_test``), else from random flips drawn from ``seed``. p is NaN with fewer than two pairs.
    """
    variant, baseline = _defined(variant), _defined(baseline)
    common = sorted(variant.keys() & baseline.keys())
    n = len(common)
    if n < 2:
        return SignFlips(math.nan, smallest_sign_flip_p(n), n)
    test = stats.permutation_test(
        ([variant[one] for one in common], [baseline[one] for one in common]),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if n <= MOST_EXACT_PAIRS else RANDOM_FLIPS,
        rng=np.random.default_rng(seed),
    )
    return SignFlips(float(test.pvalue), smallest_sign_flip_p(n), n)


def win_rate(variant: Sequence[float], baseline: Sequence[float]) -> float:
    """P(X > Y) + P(X = Y) / 2 over all pairs of a variant's run and a baseline's run: Mann-Whitney's U / (n m), the probability of improvement
    of Agarwal et al. 2021 (rliable) for one task. NaN where an arm is empty.

    >>> win_rate([3.0, 5.0], [1.0, 4.0])
    0.75
    """
    x_S, y_S = _finite(variant), _finite(baseline)
    if not (len(x_S) and len(y_S)):
        return math.nan
    return float((x_S[:, None] > y_S).mean() + 0.5 * (x_S[:, None] == y_S).mean())


def improvement(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Improvement:
    """Probability that any run of the variant beats any run of the baseline (unpaired), from AP by seed.

    The interval (ours) is Clopper and Pearson's exact binomial one, as if the runs of the smaller arm were so many independent pairs. All
    n x m comparisons say at least as much as those pairs, so it is wide rather than wrong: in simulation it covers 99 % or more, also where the
    arms do not overlap at all and the usual large-sample interval has no width. One run in an arm has no interval.
    """
    variant, baseline = _defined(variant), _defined(baseline)
    n = min(len(variant), len(baseline))
    share = win_rate(list(variant.values()), list(baseline.values()))
    return Improvement(share, *_exact_interval(share * n, share * n, n), n, paired=False)


def paired_improvement(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Improvement:
    """Probability that the variant beats the baseline *of the same seed*, over the common seeds; the exact binomial interval of the count of
    wins, which takes ties as losses for its lower end and as wins for its upper."""
    variant, baseline = _defined(variant), _defined(baseline)
    signs_S = np.sign([variant[seed] - baseline[seed] for seed in sorted(variant.keys() & baseline.keys())])
    n, wins, ties = len(signs_S), int((signs_S > 0).sum()), int((signs_S == 0).sum())
    share = (wins + ties / 2) / n if n else math.nan
    return Improvement(share, *_exact_interval(wins, wins + ties, n), n, paired=True)


def _exact_interval(least: float, most: float, n: int) -> tuple[float, float]:
    if n < 2:
        return math.nan, math.nan
    from statsmodels.stats.proportion import proportion_confint

    low, high = (proportion_confint(count, n, alpha=1 - LEVEL, method="beta") for count in (least, most))
    return float(low[0]) if least > 0 else 0.0, float(high[1]) if most < n else 1.0


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Holm's correction (1979) for as many comparisons as have a p: the chance of one false mark among all stays below the level, whatever the
    dependence between them (here: cells that share a baseline). NaN stays NaN and counts for nothing. By statsmodels.

    >>> holm({"a": 0.01, "b": 0.04})
    {'a': 0.02, 'b': 0.04}
    """
    known = {key: p for key, p in p_values.items() if not math.isnan(p)}
    if len(known) < 2:
        return dict(p_values)
    from statsmodels.stats.multitest import multipletests

    adjusted = multipletests(list(known.values()), method="holm")[1]
    return {**p_values, **{key: float(p) for key, p in zip(known, adjusted, strict=True)}}


def _defined(by_seed: Mapping[int, float]) -> dict[int, float]:
    return {seed: float(value) for seed, value in by_seed.items() if value is not None and not math.isnan(value)}


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    runs_S = np.asarray(values, dtype=np.float64)
    return runs_S[~np.isnan(runs_S)]
