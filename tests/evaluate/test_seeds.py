"""Statistics over seeds: equal to SciPy's own tests, honest where there are few runs, and right as often as they say."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from salt_lab.evaluate.seeds import (
    difference,
    holm,
    improvement,
    mean_over_seeds,
    paired_improvement,
    sign_flips,
    smallest_sign_flip_p,
    win_rate,
)

VARIANT = {0: 33.0, 1: 33.5, 2: 36.25, 3: 35.0}
BASELINE = {0: 30.0, 1: 31.0, 2: 32.5, 3: 34.5}


def by_seed(values):
    return dict(enumerate(map(float, values)))


def test_a_seeds_interval_is_the_one_that_scipys_t_test_gives():
    found = mean_over_seeds(list(VARIANT.values()))
    expected = stats.ttest_1samp(list(VARIANT.values()), 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.sd == pytest.approx(np.std(list(VARIANT.values()), ddof=1)) and found.n == 4


def test_one_seed_has_a_mean_and_neither_spread_nor_interval():
    found = mean_over_seeds([26.0])
    assert (found.mean, found.n) == (26.0, 1)
    assert all(map(math.isnan, (found.sd, found.low, found.high)))
    assert mean_over_seeds([math.nan]).n == 0, "an undefined AP is no run"


def test_arms_with_common_seeds_are_compared_seed_by_seed_as_scipys_paired_test_does():
    found = difference(VARIANT, BASELINE)
    test = stats.ttest_rel(list(VARIANT.values()), list(BASELINE.values()))
    interval = test.confidence_interval(0.95)
    assert (found.method, found.n) == ("paired", 4)
    assert (found.delta, found.low, found.high, found.p) == pytest.approx((2.4375, interval.low, interval.high, test.pvalue), rel=1e-9)


def test_a_run_whose_seed_the_other_arm_lacks_is_not_in_the_paired_difference():
    assert difference({**VARIANT, 9: 99.0}, BASELINE) == difference(VARIANT, BASELINE)
    assert difference({**VARIANT, 9: 99.0}, {**BASELINE, 9: math.nan}) == difference(VARIANT, BASELINE)


def test_arms_without_common_seeds_are_compared_by_welch():
    variant, baseline = list(VARIANT.values()), list(BASELINE.values())
    found = difference(VARIANT, {seed + 10: ap for seed, ap in BASELINE.items()})
    test = stats.ttest_ind(variant, baseline, equal_var=False)
    assert (found.method, found.n) == ("welch", 0)
    assert (found.delta, found.p) == pytest.approx((2.4375, test.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_one_pair_is_a_difference_without_an_interval_and_no_pair_is_nothing():
    one = difference({0: 30.0}, {0: 28.0, 1: 29.0})
    assert (one.delta, one.method, one.n) == (2.0, "one pair", 1)
    assert math.isnan(one.low) and math.isnan(one.p)
    assert difference({}, BASELINE).method == "none" and math.isnan(difference({}, BASELINE).delta)


def test_a_toggle_that_changes_nothing_at_all_has_p_1_and_not_a_division_by_zero():
    same = difference(BASELINE, BASELINE)
    assert (same.delta, same.p, same.low, same.high) == (0.0, 1.0, 0.0, 0.0)
    assert difference(BASELINE, {seed + 10: 31.0 for seed in range(4)}).method == "welch"
    assert difference(dict.fromkeys((0, 1), 31.0), dict.fromkeys((2, 3), 31.0)).p == 1.0


def test_the_sign_flip_test_counts_every_pattern_of_signs():
    differences = np.array([VARIANT[seed] - BASELINE[seed] for seed in range(4)])
    patterns = np.array(list(product((-1, 1), repeat=4)))
    share = np.mean(np.abs(patterns @ differences) >= abs(differences.sum()) - 1e-9)
    assert sign_flips(VARIANT, BASELINE).p == pytest.approx(share)


def test_no_difference_however_large_gets_below_the_smallest_sign_flip_p():
    for n in (2, 3, 5):
        found = sign_flips(by_seed([99] * n), by_seed(range(n)))
        assert found.p == pytest.approx(found.smallest) == smallest_sign_flip_p(n) == 2 ** (1 - n)
    assert smallest_sign_flip_p(5) > 0.05 > smallest_sign_flip_p(6), "five seeds cannot reach 0.05"
    assert math.isnan(sign_flips({0: 1.0}, {0: 0.0}).p)


def test_many_pairs_are_flipped_at_random_and_the_same_each_time():
    rng = np.random.default_rng(0)
    variant, baseline = by_seed(rng.normal(0.6, 1, 20)), by_seed(rng.normal(0, 1, 20))
    found = sign_flips(variant, baseline, seed=1)
    assert found == sign_flips(variant, baseline, seed=1)
    assert found.p == pytest.approx(difference(variant, baseline).p, abs=0.02), "normal differences: both tests agree"


def test_the_win_rate_is_mann_whitneys_u_and_a_tie_is_half_a_win():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 6, 7), rng.integers(0, 6, 9)
    assert win_rate(x, y) == pytest.approx(stats.mannwhitneyu(x, y).statistic / 63)
    assert win_rate([1.0], [1.0]) == 0.5
    assert math.isnan(win_rate([], [1.0]))


def test_three_seeds_of_three_that_win_do_not_prove_that_the_variant_always_wins():
    found = improvement(by_seed([3, 4, 5]), by_seed([0, 1, 2]))
    assert found.probability == 1.0 and found.high == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 3)), "p^3 = 0.025: Clopper and Pearson for three of three"
    assert math.isnan(improvement({0: 1.0}, {0: 0.0}).low), "one run: no interval"


def test_paired_improvement_asks_for_the_same_seed():
    variant, baseline = by_seed([1, 11, 21]), by_seed([0, 10, 20])
    assert paired_improvement(variant, baseline).probability == 1.0, "each seed gains"
    assert improvement(variant, baseline).probability == pytest.approx(6 / 9), "but a lucky baseline beats an unlucky variant"
    tied = paired_improvement(by_seed([1, 10]), by_seed([0, 10]))
    assert tied.probability == 0.75 and tied.high == 1.0
    assert tied.low == pytest.approx(stats.binomtest(1, 2).proportion_ci(method="exact").low), "a tie is a loss for the lower end"


def test_holm_is_the_step_down_of_bonferroni_and_leaves_out_what_has_no_p():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "none": math.nan})
    assert found["a"] == pytest.approx(0.03) and found["c"] == pytest.approx(0.06)
    assert found["b"] == pytest.approx(0.06), "never below the one before"
    assert math.isnan(found["none"]) and holm({"alone": 0.04}) == {"alone": 0.04}


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_paired_interval_covers_the_truth_95_times_of_100(n):
    rng, truth, inside, repeats = np.random.default_rng(n), 0.7, 0, 4000
    for _ in range(repeats):
        seed_effect = rng.normal(0, 2, n)  # what pairing takes out
        baseline = by_seed(30 + seed_effect + rng.normal(0, 0.3, n))
        found = difference(by_seed(30 + truth + seed_effect + rng.normal(0, 0.3, n)), baseline)
        inside += found.low <= truth <= found.high
    assert inside / repeats == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_the_interval_of_the_probability_of_improvement_covers_at_least_95_times_of_100(shift):
    rng, truth, inside, repeats = np.random.default_rng(7), stats.norm.cdf(shift / math.sqrt(2)), 0, 400
    for _ in range(repeats):
        found = improvement(by_seed(rng.normal(shift, 1, 5)), by_seed(rng.normal(0, 1, 5)))
        inside += found.low <= truth <= found.high
    assert inside / repeats >= 0.95
