"""What the table's mark takes: seeds and images together, and no word of it where the images' part is not known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from salt_lab.evaluate.power import PUBLISHED, Noise, given_noise, mark_power, pairs_for_mark, power_of
from salt_lab.report.image_draws import StudyImages
from salt_lab.report.power import Ask, mark, study_power

#: BCCD's two comparisons: spread between seeds, and what 87 images leave.
NOISE = Noise(1.624, 0.973, 4.667, paired=True, source="record", df=4, groups=2, runs=6)
IMAGES = StudyImages(se_images=0.706, se_seeds=0.94, images=87, groups=2, paired=True, reason="")


def test_below_what_the_images_leave_there_are_no_seeds_but_a_number_of_images():
    found = mark(Ask(see=1.6), NOISE, IMAGES)
    assert found.never and found.needed is None and found.needed_low is None
    assert found.least == pytest.approx(2.8016 * 0.706, rel=1e-3)
    assert found.images == math.ceil(87 * (found.least / 1.6) ** 2)
    more = replace(IMAGES, images=found.images + 1, se_images=0.706 * math.sqrt(87 / (found.images + 1)))
    assert not mark(Ask(see=1.6), NOISE, more).never, "with so many images some number of seeds does"


def test_above_it_the_pairs_are_a_range_and_holms_first_step_asks_for_more():
    one, every = mark(Ask(see=2.5), NOISE, IMAGES), mark(Ask(see=2.5), NOISE, IMAGES, comparisons=2)
    assert one.needed_low < one.needed < one.needed_high and one.needed == 11
    assert every.level == 0.025 and every.needed > one.needed and every.least > one.least


def test_a_spread_of_one_arms_runs_counts_as_if_its_two_runs_had_nothing_in_common():
    found = mark(Ask(see=3.0), given_noise(1.0), IMAGES)
    assert found.needed == found.needed_low == found.needed_high == pairs_for_mark(3.0, math.sqrt(2), IMAGES.se_images)
    two_arms = power_of(1.0, 400, 1.0, paired=False)
    assert mark_power(1.0, 400, math.sqrt(2), 0.0) == pytest.approx(two_arms, abs=1e-3), "with many seeds it is the t test of two arms"


@pytest.mark.parametrize(
    "images",
    [
        None,
        replace(IMAGES, reason="no detections here", se_images=math.nan, se_seeds=math.nan),
        replace(IMAGES, se_seeds=math.nan),  # one seed: what is its own on these images cannot be told apart
        replace(IMAGES, se_images=math.nan),
        replace(IMAGES, paired=False),  # of an AP, not of a difference
    ],
)
def test_nothing_is_said_of_the_mark_where_the_images_part_of_a_difference_is_not_known(images):
    assert mark(Ask(), PUBLISHED, images) is None
    found = study_power(None, Ask(), sd=0.15, images=images)
    assert (found.mark, found.mark_all, found.needed) == (None, None, 6)


def test_images_that_leave_nothing_leave_the_paired_t_tests_number():
    found = mark(Ask(see=1.6), NOISE, replace(IMAGES, se_images=0.0))
    assert (found.never, found.least, found.needed, found.images) == (False, 0.0, 11, 0)
