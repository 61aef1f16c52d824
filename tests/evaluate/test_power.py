"""How many seeds: equal to the published rule of thumb, to simulation, and to itself read backwards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from salt_lab.evaluate.hierarchical import _Arm, _estimate
from salt_lab.evaluate.power import (
    PUBLISHED,
    given_noise,
    least_of_images,
    mark_power,
    pairs_for_mark,
    pooled_noise,
    power_of,
    resolves,
    seeds_needed,
    smallest_seen,
)


def test_three_seeds_of_sd_015_resolve_034_ap_and_five_022():
    """The two figures of the design's note on noise."""
    assert round(resolves(3, 0.15, paired=False), 2) == 0.34
    assert round(resolves(5, 0.15, paired=False), 2) == 0.22


def test_what_is_resolved_is_half_the_interval_of_scipys_t_test():
    runs = np.array([1.0, 2.0, 4.0])
    interval = stats.ttest_ind(runs, runs + 7, equal_var=True).confidence_interval(0.95)
    assert resolves(3, runs.std(ddof=1), paired=False) == pytest.approx((interval.high - interval.low) / 2)
    interval = stats.ttest_1samp(runs, 0).confidence_interval(0.95)
    assert resolves(3, runs.std(ddof=1), paired=True) == pytest.approx((interval.high - interval.low) / 2)
    assert resolves(1, 0.15, paired=True) == math.inf, "one seed resolves nothing"


def test_an_effect_of_the_size_of_the_interval_is_missed_by_almost_every_second_study():
    assert power_of(resolves(5, 0.15, paired=False), 5, 0.15, paired=False) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("paired", "seeds"), [(True, 4), (False, 4), (True, 12)])
def test_the_power_is_what_simulated_studies_find(paired, seeds):
    rng, repeats, see, sd = np.random.default_rng(1), 4000, 0.5, 0.4
    if paired:
        p = stats.ttest_1samp(rng.normal(see, sd, (repeats, seeds)), 0, axis=1).pvalue
    else:
        p = stats.ttest_ind(rng.normal(see, sd, (repeats, seeds)), rng.normal(0, sd, (repeats, seeds)), axis=1).pvalue
    assert power_of(see, seeds, sd, paired=paired) == pytest.approx((p < 0.05).mean(), abs=0.025)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("sd", [0.02, 0.15, 1.25, 4.0])
def test_one_seed_fewer_than_needed_is_not_enough(paired, sd):
    needed = seeds_needed(0.3, sd, paired=paired)
    assert power_of(0.3, needed, sd, paired=paired) >= 0.8
    assert needed == 2 or power_of(0.3, needed - 1, sd, paired=paired) < 0.8


def test_needed_and_seen_are_one_question_read_forwards_and_backwards():
    for paired in (True, False):
        for seeds in (2, 3, 7, 40):
            seen = smallest_seen(seeds, 0.15, paired=paired)
            assert seeds_needed(seen * 1.001, 0.15, paired=paired) == seeds
            assert smallest_seen(seeds, 0.3, paired=paired) == pytest.approx(2 * seen, rel=1e-4), "twice the noise, twice the difference"


def test_large_effects_are_certain_where_scipys_noncentral_t_has_no_number():
    for effect, seeds in ((2.0, 100), (20.0, 2), (20.0, 5), (0.1, 10_000), (1e4, 3)):
        for paired in (True, False):
            power = power_of(effect, seeds, 1.0, paired=paired)
            assert 0.9 < power <= 1.0
    assert seeds_needed(1e6, 1e-3, paired=True) == 2


def test_what_no_number_of_seeds_can_show_is_said_to_be_beyond_reason():
    assert seeds_needed(0.001, 9.0, paired=True) is None


def test_the_spread_is_pooled_about_each_cells_own_mean():
    noise = pooled_noise([[1.0, 2.0, 3.0], [104.0, 106.0, 108.0], [50.0]], paired=True)
    assert noise.sd == pytest.approx(math.sqrt((2 + 8) / 4))
    assert (noise.df, noise.groups, noise.runs) == (4, 2, 6), "a single run says nothing of spread"
    assert pooled_noise([[1.0], []], paired=True) is None and pooled_noise([[1.0, 1.0]], paired=True) is None


def test_the_interval_of_the_spread_covers_the_true_one_95_times_of_100():
    rng, inside, repeats = np.random.default_rng(0), 0, 1500
    for _ in range(repeats):
        noise = pooled_noise(rng.normal(0, 0.15, (2, 3)).tolist(), paired=True)
        inside += noise.low <= 0.15 <= noise.high
    assert inside / repeats == pytest.approx(0.95, abs=0.02)


def test_the_published_spread_gives_the_reported_gaps_between_two_runs():
    rng = np.random.default_rng(0)
    for sd, gap in ((PUBLISHED.low, 0.1), (PUBLISHED.high, 0.3)):
        runs = rng.normal(40, sd, (200_000, 2))
        assert np.abs(runs[:, 0] - runs[:, 1]).mean() == pytest.approx(gap, rel=0.01)
    assert PUBLISHED.low < PUBLISHED.sd < PUBLISHED.high
    assert (given_noise(0.2).low, given_noise(0.2).sd, given_noise(0.2).high) == (0.2, 0.2, 0.2)


#: BCCD: SD of the differences between seeds, and what 87 images do to all seeds alike, AP points.
BCCD_SD, BCCD_IMAGES = 1.624, 0.706


def share_of_marks(see, pairs, studies=500, resamples=200):
    """Share of simulated studies in which the table's own test, over seeds and images, gives p < 0.05."""
    rng, marks = np.random.default_rng(5), 0
    for _ in range(studies):
        gain_N = see + rng.normal(0, BCCD_IMAGES) + rng.normal(0, BCCD_SD, pairs)
        draws_NR = gain_N[:, None] + rng.normal(0, BCCD_IMAGES, resamples)
        marks += _estimate([_Arm(gain_N, draws_NR, 1)], pairs, (pairs, pairs), 0.95, 0).p < 0.05
    return marks / studies


def test_the_pairs_for_the_tables_mark_earn_it_in_four_simulated_studies_of_five():
    pairs = pairs_for_mark(3.0, BCCD_SD, BCCD_IMAGES)
    assert pairs > seeds_needed(3.0, BCCD_SD, paired=True), "the images cost pairs"
    assert mark_power(3.0, pairs, BCCD_SD, BCCD_IMAGES) == pytest.approx(share_of_marks(3.0, pairs), abs=0.05)


def test_pairs_that_do_for_a_t_test_on_these_images_earn_the_tables_mark_in_less_than_every_second_study():
    pairs = seeds_needed(1.6, BCCD_SD, paired=True)
    assert power_of(1.6, pairs, BCCD_SD, paired=True) >= 0.8
    assert mark_power(1.6, pairs, BCCD_SD, BCCD_IMAGES) == pytest.approx(0.43, abs=0.01)
    assert pairs_for_mark(1.6, BCCD_SD, BCCD_IMAGES) is None, "and no number of pairs will do"
    assert mark_power(1.6, 100_000, BCCD_SD, BCCD_IMAGES) < 0.8


@pytest.mark.parametrize("pairs", [2, 3, 5, 40])
def test_without_image_noise_the_mark_is_the_paired_t_tests(pairs):
    for see in (0.1, 1.0, 3.0):
        assert mark_power(see, pairs, 1.2, 0.0) == pytest.approx(power_of(see, pairs, 1.2, paired=True), abs=2e-4)


def test_with_ever_so_many_seeds_the_least_difference_of_the_images_is_seen_with_the_power_asked_for():
    for power, alpha in ((0.8, 0.05), (0.9, 0.025)):
        least = least_of_images(BCCD_IMAGES, power=power, alpha=alpha)
        assert mark_power(least, 100_000, BCCD_SD, BCCD_IMAGES, alpha=alpha) == pytest.approx(power, abs=1e-3)
        assert pairs_for_mark(least, BCCD_SD, BCCD_IMAGES, power=power, alpha=alpha) is None
        needed = pairs_for_mark(1.2 * least, BCCD_SD, BCCD_IMAGES, power=power, alpha=alpha)
        assert mark_power(1.2 * least, needed, BCCD_SD, BCCD_IMAGES, alpha=alpha) >= power
        assert mark_power(1.2 * least, needed - 1, BCCD_SD, BCCD_IMAGES, alpha=alpha) < power
