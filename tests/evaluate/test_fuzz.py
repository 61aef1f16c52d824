"""Ours beside COCO's own evaluator on awkward data at random: numbers and every single match."""

from __future__ import annotations

import numpy as np
import pytest

from salt_lab.evaluate.accumulate import curves, numbers
from salt_lab.evaluate.coco import coco_numbers
from salt_lab.evaluate.ground_truth import load_truth
from salt_lab.evaluate.matching import AREAS, match


def stats(evaluation):
    """In percent, NaN where there is nothing to measure."""
    return np.where(evaluation.stats < 0, np.nan, evaluation.stats * 100)


@pytest.mark.parametrize("block", range(4))
def test_all_twelve_numbers_are_those_of_pycocotools(awkward, pycocotools, block):
    for seed in range(30 * block, 30 * block + 30):
        case = awkward(seed)
        np.testing.assert_allclose(coco_numbers(*case), stats(pycocotools(*case)), rtol=0, atol=1e-10, err_msg=f"seed {seed}")


@pytest.mark.slow
def test_all_twelve_numbers_are_those_of_pycocotools_on_six_hundred_data_sets(awkward, pycocotools):
    for seed in range(1000, 1600):
        case = awkward(seed)
        np.testing.assert_allclose(coco_numbers(*case), stats(pycocotools(*case)), rtol=0, atol=1e-10, err_msg=f"seed {seed}")


@pytest.mark.parametrize("seed", range(300, 315))
def test_each_detection_finds_the_same_object_as_in_pycocotools(awkward, pycocotools, seed):
    case = awkward(seed)
    evaluation, truth, ours = pycocotools(*case), load_truth(case.truth), match(*case)
    row_of = {int(index): d for d, index in enumerate(ours.det_index_D)}
    seen = 0
    for image in filter(None, evaluation.evalImgs):
        area = next(a for a, bounds in enumerate(evaluation.params.areaRng) if bounds == image["aRng"])
        columns = [row_of[number - 1] for number in image["dtIds"]]
        seen += len(columns)
        assert ours.det_rank_D[columns].tolist() == list(range(len(columns)))
        matched_TD, ignored_TD = image["dtMatches"] > 0, image["dtIgnore"]
        np.testing.assert_array_equal(ours.det_tp_ATD[area][:, columns], matched_TD & ~ignored_TD)
        np.testing.assert_array_equal(ours.det_ignored_ATD[area][:, columns], ignored_TD)
        if area == 0:
            objects_TD = ours.det_object_TD[:, columns]
            ids_TD = np.append(truth.annotation_ids_G, 0)[objects_TD]
            np.testing.assert_array_equal(ids_TD, image["dtMatches"])
    assert seen == len(AREAS) * len(ours.det_index_D), "and no detection is left over"


@pytest.mark.parametrize("seed", range(400, 412))
def test_detections_stand_in_the_order_in_which_pycocotools_counts_them(awkward, pycocotools, seed):
    case = awkward(seed)
    evaluation, ours = pycocotools(*case), match(*case)
    precision_TRC, recall_TC = evaluation.eval["precision"][..., 0, 2], evaluation.eval["recall"][..., 0, 2]
    found = curves(ours)
    theirs_TC = np.where(precision_TRC[:, 0] < 0, np.nan, precision_TRC.mean(axis=1))
    np.testing.assert_allclose(found.precision_ATC[0], theirs_TC, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.recall_ATC[0], np.where(recall_TC < 0, np.nan, recall_TC), rtol=0, atol=1e-12)
    assert (np.diff(ours.det_category_D) >= 0).all()


@pytest.mark.parametrize("seed", range(500, 520))
def test_an_image_that_counts_twice_is_an_image_that_stands_in_the_data_twice(awkward, pycocotools, seed):
    case = awkward(seed)
    ours = match(*case)
    weights_I = np.random.default_rng(seed).integers(0, 4, len(ours.image_ids_I))
    weights_I[ours.image_ids_I.tolist().index(case.detections[0]["image_id"])] += 1  # pycocotools wants a detection
    expected = stats(pycocotools(*resampled(case, dict(zip(ours.image_ids_I.tolist(), weights_I.tolist(), strict=True)))))
    np.testing.assert_allclose(numbers(ours, weights_I), expected, rtol=0, atol=1e-10)


def resampled(case, times):
    """The data set with each image so often, its copies side by side."""
    copies = {image: [image * 10 + n for n in range(times[image])] for image in times}
    images = [{**row, "id": new} for row in case.truth["images"] for new in copies[row["id"]]]
    objects = [{**row, "image_id": new} for row in case.truth["annotations"] for new in copies.get(row["image_id"], [])]
    rows = [{**row, "image_id": new} for row in case.detections for new in copies[row["image_id"]]]
    return {**case.truth, "images": images, "annotations": [{**row, "id": n + 1} for n, row in enumerate(objects)]}, rows
