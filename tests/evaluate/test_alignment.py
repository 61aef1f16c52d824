"""Score against IoU: who ranks boxes rightly, what trusting the score costs, and whether refining helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from salt_lab.evaluate.alignment import LEAST, Refinement, detected, iou_gap, probed, rank_correlation, refinement, select
from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.ground_truth import load_truth
from salt_lab.evaluate.matching import match
from salt_lab.evaluate.overlaps import Overlaps, overlaps
from salt_lab.evaluate.probe_data import empty_probe


def test_scores_that_rise_with_iou_correlate_fully_and_those_that_fall_not_at_all() -> None:
    iou = np.linspace(0.2, 0.9, 20)
    for score, want in ((iou**3, 1.0), (1 - iou, -1.0)):
        found = rank_correlation(score, iou)
        assert found.spearman == pytest.approx(want) and found.kendall == pytest.approx(want) and found.candidates == 20


def test_the_coefficients_are_the_textbook_ones() -> None:
    """1 2 3 4 5 against 2 1 4 3 5: rho = 1 - 6 * 4 / (5 * 24) = 0.8; of 10 pairs 2 are discordant, tau = 0.6. Ties: tau-b."""
    found = rank_correlation(np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5]), least=5)
    assert found.spearman == pytest.approx(0.8) and found.kendall == pytest.approx(0.6)
    tied = rank_correlation(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4]), least=4)
    assert tied.kendall == pytest.approx(5 / np.sqrt(5 * 6))


def test_rescaling_the_scores_changes_no_rank() -> None:
    rng = np.random.default_rng(0)
    score, iou = rng.random(200), rng.random(200)
    assert rank_correlation(score, iou) == rank_correlation(np.exp(5 * score), iou)


def test_too_few_or_all_alike_have_no_correlation() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(rank_correlation(rng.random(LEAST - 1), rng.random(LEAST - 1)).spearman)
    assert not np.isnan(rank_correlation(rng.random(LEAST), rng.random(LEAST)).spearman)
    assert np.isnan(rank_correlation(np.full(50, 0.5), rng.random(50)).kendall)
    assert np.isnan(rank_correlation(np.zeros(0), np.zeros(0)).spearman)


def test_the_gap_is_what_the_score_loses_for_each_object() -> None:
    """Object 7: the best-scored box has 0.6, another 0.9. Object 3: the best-scored one is the best. Object 5 has one box, by 0.04 worse."""
    objects = np.array([7, 7, 3, 3, 5, 5])
    scores = np.array([0.9, 0.4, 0.2, 0.8, 0.7, 0.6])
    ious = np.array([0.6, 0.9, 0.5, 0.7, 0.80, 0.84])
    found = iou_gap(objects, scores, ious)
    assert found.mean == pytest.approx((0.3 + 0 + 0.04) / 3) and found.share == pytest.approx(1 / 3) and found.objects == 3
    assert found.chosen == pytest.approx((0.6 + 0.7 + 0.8) / 3) and found.best == pytest.approx((0.9 + 0.7 + 0.84) / 3)
    order = np.array([5, 2, 0, 4, 3, 1])
    np.testing.assert_allclose(iou_gap(objects[order], scores[order], ious[order]), found)


def test_no_candidate_has_no_gap_and_one_candidate_has_none_to_lose() -> None:
    assert np.isnan(iou_gap(np.zeros(0, np.int64), np.zeros(0), np.zeros(0)).mean)
    assert iou_gap(np.array([0]), np.array([0.3]), np.array([0.7])) == (0.0, 0.0, 0.7, 0.7, 1)


def test_refining_is_compared_only_where_there_is_a_coarse_box() -> None:
    coarse, refined = np.array([0.5, 0.6, np.nan, 0.8]), np.array([0.7, 0.6, 0.9, 0.6])
    found = refinement(coarse, refined)
    assert found.coarse == pytest.approx(1.9 / 3) and found.refined == pytest.approx(1.9 / 3)
    assert found.better == pytest.approx(1 / 3) and found.locations == 3
    nothing = refinement(np.full(4, np.nan), refined)
    assert nothing.locations == 0 and np.isnan(nothing.better) and isinstance(nothing, Refinement)


def pairs() -> Overlaps:
    """Two touching objects of class 1, one of class 2, a crowd; detections on all of them."""
    boxes = {1: [0, 0, 100, 100], 2: [100, 0, 100, 100], 3: [300, 0, 20, 20], 4: [500, 0, 300, 300]}
    kinds = {1: 1, 2: 1, 3: 2, 4: 1}
    truth = load_truth(
        {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [
                {"id": i, "image_id": 1, "category_id": kinds[i], "bbox": box, "area": box[2] * box[3], "iscrowd": int(i == 4)}
                for i, box in boxes.items()
            ],
        }
    )
    said = [
        (1, [0, 0, 100, 90], 0.5),  # object 1, IoU 0.9
        (1, [0, 0, 100, 60], 0.9),  # object 1, IoU 0.6, scored higher
        (1, [70, 0, 100, 100], 0.3),  # over both, more of object 2: IoU 70 / 130
        (2, [0, 0, 100, 100], 0.8),  # on an object of another class: a candidate of none
        (2, [300, 0, 20, 10], 0.4),  # object 3, IoU 0.5
        (1, [510, 0, 100, 100], 0.7),  # in the crowd
    ]
    detections = Detections.from_rows([{"image_id": 1, "category_id": c, "bbox": box, "score": score} for c, box, score in said])
    return overlaps(match(truth, detections), truth, detections)


def test_a_detection_is_a_candidate_of_the_object_of_its_class_that_it_overlaps_most() -> None:
    one, two = select(detected(pairs()), 1), select(detected(pairs()), 2)
    assert sorted(zip(one.object_N.tolist(), one.score_N.tolist(), one.iou_N.round(3).tolist(), strict=True)) == [
        (0, 0.5, 0.9),
        (0, 0.9, 0.6),
        (1, 0.3, 0.538),
    ]
    assert two.object_N.tolist() == [2] and two.iou_N.tolist() == [0.5]
    found = iou_gap(one.object_N, one.score_N, one.iou_N)
    assert found.mean == pytest.approx(0.15) and found.share == 0.5 and found.objects == 2


def test_candidates_are_split_by_their_objects_size_and_cut_at_an_iou() -> None:
    every = detected(pairs())
    assert len(select(every, 2, "s").iou_N) == 1 and len(select(every, 2, "m").iou_N) == 0
    assert len(select(every, 1, "l").iou_N) == 3 and len(select(every, 1, "s").iou_N) == 0
    assert len(detected(pairs(), 0.55).iou_N) == 2


def test_positive_locations_are_candidates_of_the_objects_that_they_learn() -> None:
    rng = np.random.default_rng(3)
    n = 40
    probe = replace(
        empty_probe(),
        image_P=np.ones(n, np.int64),
        object_P=np.repeat([11, 12], n // 2),
        category_P=np.repeat([1, 2], n // 2),
        area_P=np.repeat([100.0, 5000.0], n // 2).astype(np.float32),
        score_P=rng.random(n).astype(np.float32),
        iou_P=rng.random(n).astype(np.float32),
    )
    small, none = select(probed(probe), 1, "s"), select(probed(probe), 1, "m")
    assert len(small.iou_N) == 20 and len(none.iou_N) == 0 and set(small.object_N.tolist()) == {11}
    assert rank_correlation(small.score_N, small.iou_N).spearman == pytest.approx(
        stats.spearmanr(probe.score_P[:20], probe.iou_P[:20]).statistic
    )
