"""Seeds and images together: what another training *and* other images would do to a mean AP, or to the difference of two arms. (ours)

Runs of several seeds are measured on the same images. What a run's AP differs from the method's own has three sources: its seed, the images (which
move all seeds alike) and the two together (this seed on these images). Two of the three show in the spread over seeds on the images at hand:
Student's t says how far the mean may be off for it. The third, what the images do to all seeds alike, no number of seeds shows: it is the covariance
*between* different seeds over resamples of the images, drawn once for all runs.

The interval is that of the sum of the two: a seed part ``t(df) · se_seeds``, and an image part, the resampled mean's deviations, scaled to that
covariance. Its distribution function is a mean of t distributions, one per resample, so no more random numbers are drawn.

Why the seeds are not simply resampled as well (the plain hierarchical bootstrap): of 3 seeds, 3 draws with replacement have 2/3 of the variance that
they should, and no tails of t, so where seeds decide it is too narrow: its 95 % intervals covered as little as 77 % with 3 seeds and 65 % with 2 in
Gaussian simulations. And it counts the part of "this seed on these images" twice, so where images decide it is too wide (99 to 100 %). It is there to
compare, as :attr:`Estimate.plain`. Ours covered 94 to 98 % with 3 and 5 seeds and up to 99 % with 2, in the same simulations and on AP itself
(``benchmarks/results/bootstrap/coverage.md``), most where seeds and images matter alike. With 2 seeds it is honest and very wide: t has one degree
of freedom then, 12.7 standard errors on either side.

Letters: N runs, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from salt_lab.errors import DataError
from salt_lab.evaluate.draws import LEVEL, RESAMPLES, Floats, Interval, draw

if TYPE_CHECKING:
    from salt_lab.evaluate.matching import Matches


@dataclass(frozen=True)
class Estimate:
    """A mean AP over seeds, or a difference of two, in AP points, with its interval over seeds and images.

    ``method``: "seeds and images", or "images" where there are not two seeds to speak of: the interval is then about these very models.
    ``pairs``: seeds that both arms have and that were used; 0 where the arms are not paired, or there is one arm alone. ``runs``: of each arm.
    ``se_seeds``: standard error from seeds on these images, with ``df`` degrees of freedom; ``se_images``: from what images do to all seeds alike.
    ``p``: two-sided, of "the true value is 0". ``plain``: the hierarchical bootstrap that resamples the seeds too, too narrow.
    """

    value: float
    low: float
    high: float
    p: float
    method: str
    pairs: int
    runs: tuple[int, ...]
    se_seeds: float
    df: float
    se_images: float
    plain: Interval


class _Arm(NamedTuple):
    """One mean over runs that vary independently: per run as measured and per resample, and its sign in the sum."""

    value_N: Floats
    draws_NR: Floats
    sign: int


def hierarchical(
    variant_by_seed: Mapping[int, Matches],
    baseline_by_seed: Mapping[int, Matches] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    metrics: Sequence[str] = ("AP",),
    level: float = LEVEL,
    threads: int | None = None,
) -> dict[str, Estimate]:
    """Intervals over seeds and images, by metric.

    Paired by seed where both arms have two seeds or more in common; runs of other seeds are not used then. Otherwise, with two runs or more in
    each arm, the seeds' parts of the two arms add up (Welch's degrees of freedom). Otherwise the interval is over images alone.

    Args:
        variant_by_seed: training seed -> its run.
        baseline_by_seed: the other arm, on the same images; None = the mean of one arm, no difference.
        resamples, seed, metrics, threads: as for :func:`salt_lab.evaluate.bootstrap.bootstrap`.
        level: of the intervals.

    Raises:
        DataError: an arm without a run; runs on different ground truth; an unknown metric.
    """
    baseline = baseline_by_seed or {}
    if not variant_by_seed or (baseline_by_seed is not None and not baseline):
        raise DataError("hierarchical: an arm without a run: give at least one finished trial of each")
    common = sorted(variant_by_seed.keys() & baseline.keys())
    is_paired = len(common) >= 2 or (len(common) == 1 and min(len(variant_by_seed), len(baseline)) == 1)
    arms = [(variant_by_seed, 1), (baseline, -1)] if baseline else [(variant_by_seed, 1)]
    chosen = [(common if is_paired else sorted(runs), runs, sign) for runs, sign in arms]
    matches = [runs[number] for numbers, runs, _ in chosen for number in numbers]
    values, draws = draw(matches, resamples=resamples, seed=seed, metrics=metrics, threads=threads)
    found = {}
    for name in metrics:
        bounds = np.cumsum([0, *(len(numbers) for numbers, _, _ in chosen)])
        split = [_Arm(values[name][a:b], draws[name][a:b], sign) for a, b, (_, _, sign) in zip(bounds, bounds[1:], chosen, strict=False)]
        if is_paired:
            split = [_Arm(split[0].value_N - split[1].value_N, split[0].draws_NR - split[1].draws_NR, 1)]
        found[name] = _estimate(split, len(common) if is_paired else 0, tuple(len(numbers) for numbers, _, _ in chosen), level, seed)
    return found


def _estimate(arms: Sequence[_Arm], pairs: int, runs: tuple[int, ...], level: float, seed: int) -> Estimate:
    value = float(sum(arm.sign * arm.value_N.mean() for arm in arms))
    if np.isnan(value):
        nan = float("nan")
        return Estimate(nan, nan, nan, nan, "none", pairs, runs, nan, nan, nan, Interval(nan, nan))
    arms = _where_defined(arms)
    center_R = np.sum([arm.sign * arm.draws_NR.mean(axis=0) for arm in arms], axis=0)
    plain = _resample_seeds(arms, level, seed)
    if min(len(arm.value_N) for arm in arms) < 2:
        shift = 0.0 if len(runs) > 1 else value - center_R.mean()  # as bootstrap and paired do
        low, high = np.quantile(center_R + shift, [0.5 - level / 2, 0.5 + level / 2])
        side = min(np.count_nonzero(center_R <= 0), np.count_nonzero(center_R >= 0))
        p, spread = min(1.0, 2 * (side + 1) / (len(center_R) + 1)), float(center_R.std(ddof=1)) if len(center_R) > 1 else float("nan")
        return Estimate(value, float(low), float(high), p, "images", pairs, runs, float("nan"), float("nan"), spread, plain)
    se_seeds, df = _seed_part(arms)
    se_images = _image_part(arms)
    spread = float(center_R.std(ddof=1))
    around_R = value + (center_R - center_R.mean()) * (se_images / spread if spread > 0 else 0.0)
    low, high = (_quantile(share, around_R, se_seeds, df) for share in (0.5 - level / 2, 0.5 + level / 2))
    below = float(_below(0.0, around_R, se_seeds, df))
    return Estimate(value, low, high, min(1.0, 2 * min(below, 1 - below)), "seeds and images", pairs, runs, se_seeds, df, se_images, plain)


def _where_defined(arms: Sequence[_Arm]) -> list[_Arm]:
    """Without the resamples in which a run has no number."""
    defined_R = np.all([~np.isnan(arm.draws_NR).any(axis=0) for arm in arms], axis=0)
    return [_Arm(arm.value_N, arm.draws_NR[:, defined_R], arm.sign) for arm in arms]


def _seed_part(arms: Sequence[_Arm]) -> tuple[float, float]:
    """Standard error of the mean over seeds on these images, and its degrees of freedom (Welch and Satterthwaite for two arms)."""
    parts = [(float(arm.value_N.var(ddof=1)) / len(arm.value_N), len(arm.value_N) - 1) for arm in arms]
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, float(sum(df for _, df in parts))
    return total**0.5, total**2 / sum(variance**2 / df for variance, df in parts)


def _image_part(arms: Sequence[_Arm]) -> float:
    """Standard error from what the images do to all seeds alike: covariances between different runs only."""
    deviations = [arm.draws_NR - arm.draws_NR.mean(axis=1, keepdims=True) for arm in arms]
    variance = 0.0
    for i, mine in enumerate(deviations):
        for j, other in enumerate(deviations):
            covariance_NN = mine @ other.T / max(mine.shape[1] - 1, 1)
            if i == j:  # a run with itself is no pair of different ones
                covariance_NN = covariance_NN[np.eye(len(covariance_NN)) == 0]
            variance += arms[i].sign * arms[j].sign * float(covariance_NN.mean())
    return max(variance, 0.0) ** 0.5


def _below(x: float, around_R: Floats, se: float, df: float) -> float:
    """Probability that image part plus seed part is below ``x``."""
    from scipy import special

    if se == 0:
        return float(np.mean((around_R < x) + 0.5 * (around_R == x)))
    return float(special.stdtr(df, (x - around_R) / se).mean())


def _quantile(share: float, around_R: Floats, se: float, df: float) -> float:
    from scipy import optimize, special

    if se == 0:
        return float(np.quantile(around_R, share))
    reach = float(special.stdtrit(df, share)) * se
    low, high = float(around_R.min() + reach), float(around_R.max() + reach)  # the mixture's quantile lies between its parts'
    return low if high - low < 1e-12 else float(optimize.brentq(lambda x: _below(x, around_R, se, df) - share, low - 1e-9, high + 1e-9))


def _resample_seeds(arms: Sequence[_Arm], level: float, seed: int) -> Interval:
    """The plain hierarchical bootstrap: with each resample of the images also seeds drawn with replacement."""
    generator = np.random.default_rng([seed, 1])
    total_R = np.zeros(arms[0].draws_NR.shape[1])
    for arm in arms:
        runs, resamples = arm.draws_NR.shape
        drawn_NR = generator.integers(runs, size=(runs, resamples))
        total_R += arm.sign * np.take_along_axis(arm.draws_NR, drawn_NR, axis=0).mean(axis=0)
    return Interval(*map(float, np.quantile(total_R, [0.5 - level / 2, 0.5 + level / 2])))
