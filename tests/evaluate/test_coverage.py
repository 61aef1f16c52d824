"""Do 95 % intervals hold the truth 95 % of the time? Data sets drawn from a population whose AP is known, an interval from each.

All draws have fixed seeds, so a test gives the same count every time; the bounds leave room for counting 100 to 200 sets (1.5 to 2 points of
standard error). ``benchmarks/bootstrap.py --coverage`` counts more of them and at more sizes.
"""

from __future__ import annotations

import numpy as np
import pytest

from salt_lab.evaluate.bootstrap import Interval
from salt_lab.testing.coverage import covered, over_images, over_seeds_and_images, true_ap
from salt_lab.testing.population import draw_images, run_on


def test_counting_coverage_by_hand():
    found = covered([Interval(0, 1), Interval(2, 3), Interval(-3, -1), Interval(0.5, 0.5)], truth=0.5)
    assert (found.below, found.covered, found.above) == (25, 50, 25) and found.width == 1


def test_the_population_has_what_intervals_have_to_cope_with():
    generator = np.random.default_rng(0)
    images = draw_images(generator, 2000)
    able, less = (run_on(images, generator, ability) for ability in (0.5, 0.0))
    found = [np.bincount(run.det_image_D, run.det_tp_ATD[0, 0], 2000) for run in (able, less)]
    assert found[0].sum() > found[1].sum()  # ability shows
    assert np.corrcoef(found[0], found[1])[0, 1] > 0.5  # both find more in the same images
    assert set(np.unique(images.obj_category_G)) == {0, 1, 2}


@pytest.mark.slow
def test_a_paired_interval_covers_the_difference_on_the_population():
    variant, baseline = true_ap(images=100_000)
    of_difference, of_variant = over_images(images=60, sets=200, resamples=200)
    assert 93 <= covered(of_difference, variant - baseline).covered <= 97
    assert 90 <= covered(of_variant, variant).covered <= 97  # biased upwards from so few images: the docstring says so


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.03, 0.2])
def test_three_seeds_and_images_together_cover_the_difference_and_resampled_seeds_do_not(spread):
    variant, baseline = true_ap(spread, images=10_000, seeds=10)
    ours, plain = over_seeds_and_images(images=60, sets=100, resamples=100, seeds=3, spread=spread)
    assert 93 <= covered(ours, variant - baseline).covered <= 99
    if spread == 0.2:
        assert covered(plain, variant - baseline).covered < 90
