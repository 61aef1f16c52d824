"""How sure an AP is, and a difference of two: the bootstrap over images.

The images of a validation set are a sample; with others AP would have come out differently. The bootstrap draws as many images from them again, with
replacement, and takes AP anew: the spread of many such draws is the spread that other images would give. Both arms of a difference are drawn with
the same images, so what a hard image does to both cancels.

Of a *difference* the percentile interval is given. It covers the difference on the population 93 to 97 % of the time from 50 images on, with
3 classes and with 30 of which most are rare; measured by simulation (``tests/evaluate/test_coverage.py``, figures: ``benchmarks/results/bootstrap``).

AP of *one* run is another matter: from few objects of a class it comes out too high, as precision is taken at its most favourable points, and on a
resample, which has fewer different ones, higher still. At val2017's size the percentile interval may not even hold the AP as measured. So the
draws are centred on it **(ours)**: the interval says how far AP scatters, not that AP is unbiased. Its coverage of the *population's* AP was 94 %
with 3 classes from 100 images on (89 % with 50), but 79 and 86 % with 30 classes and 60 and 200 images, where AP itself was 3.3 and 1.5 points
too high; no interval that we tried (percentile, basic, normal; BCa with 3 classes) repairs that. Both arms of a difference have this bias alike:
it cancels.

What is not in these intervals: other training seeds. See :func:`hierarchical` for both. Statistics after Efron and Tibshirani, An Introduction to
the Bootstrap (1993), chapters 13 and 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from salt_lab.errors import DataError, did_you_mean
from salt_lab.evaluate.draws import LEVEL, METRICS, RESAMPLES, Floats, Interval, draw, same_truth
from salt_lab.evaluate.hierarchical import Estimate, hierarchical

if TYPE_CHECKING:
    from salt_lab.evaluate.matching import Matches

__all__ = ["METRICS", "Draws", "Estimate", "Interval", "bootstrap", "hierarchical", "paired", "same_truth"]


@dataclass(frozen=True)
class Draws:
    """AP of one run, or a difference of two, in AP points (0 to 100): as measured, and on every resample of the images.

    ``is_difference``: of two runs; the draws of one run's AP are centred on its value (see above).

    ``values``: metric -> as measured. ``draws``: metric -> (R,); NaN where a resample has no object of that size at all.
    """

    values: Mapping[str, float]
    draws: Mapping[str, Floats]
    images: int
    seed: int
    is_difference: bool = False

    def interval(self, metric: str = "AP", level: float = LEVEL) -> Interval:
        """Percentile interval over the resamples that have a number; of one run's AP moved so that their mean is its value."""
        defined_R = self._defined(metric)
        if not len(defined_R):
            return Interval(np.nan, np.nan)
        shift = 0.0 if self.is_difference else self.values[metric] - defined_R.mean()
        return Interval(*map(float, np.quantile(defined_R + shift, [0.5 - level / 2, 0.5 + level / 2])))

    def sd(self, metric: str = "AP") -> float:
        """Standard error: the spread that other images would give."""
        defined_R = self._defined(metric)
        return float(defined_R.std(ddof=1)) if len(defined_R) > 1 else np.nan

    def p(self, metric: str = "AP") -> float:
        """Of a difference: two-sided p of "there is none on the population", by inverting the percentile interval; at least 2 / (R + 1)."""
        defined_R = self._defined(metric)
        if not len(defined_R):
            return np.nan
        side = min(np.count_nonzero(defined_R <= 0), np.count_nonzero(defined_R >= 0))
        return min(1.0, 2 * (side + 1) / (len(defined_R) + 1))

    def _defined(self, metric: str) -> Floats:
        if metric not in self.draws:
            raise DataError(f"metric: {did_you_mean('bootstrapped metric', metric, self.draws)}")
        if np.isnan(self.values[metric]):
            return np.empty(0)
        draws_R = self.draws[metric]
        return draws_R[~np.isnan(draws_R)]


def bootstrap(
    matches: Matches, *, resamples: int = RESAMPLES, seed: int = 0, metrics: Sequence[str] = tuple(METRICS), threads: int | None = None
) -> Draws:
    """AP of one run on ``resamples`` resamples of its images.

    Args:
        matches: the run, matched once.
        resamples: 1,000 give the ends of a 95 % interval to about 5 % of its width.
        seed: of the draws; the same seed gives the same numbers with any number of threads, and the same images for every run on them.
        metrics: names from :data:`METRICS`; "AP" alone takes a quarter of the time of all six.
        threads: at most so many; None = as many as cores may be used.

    Raises:
        DataError: an unknown metric, no image, or less than one resample.
    """
    values, draws = draw([matches], resamples=resamples, seed=seed, metrics=metrics, threads=threads)
    return Draws(
        {name: float(values[name][0]) for name in metrics},
        {name: draws[name][0] for name in metrics},
        images=len(matches.image_ids_I),
        seed=seed,
    )


def paired(
    variant: Matches,
    baseline: Matches,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    metrics: Sequence[str] = tuple(METRICS),
    threads: int | None = None,
) -> Draws:
    """``variant - baseline`` on the same resamples of the images; arguments as :func:`bootstrap`.

    It speaks of these two trained models on other images, not of other seeds.

    Raises:
        DataError: the two were not measured against the same objects; or as :func:`bootstrap`.
    """
    values, draws = draw([variant, baseline], resamples=resamples, seed=seed, metrics=metrics, threads=threads)
    return Draws(
        {name: float(values[name][0] - values[name][1]) for name in metrics},
        {name: draws[name][0] - draws[name][1] for name in metrics},
        images=len(variant.image_ids_I),
        seed=seed,
        is_difference=True,
    )
