"""Which detection finds which object: small cases by hand."""

import numpy as np
import pytest

from salt_lab.errors import DataError
from salt_lab.evaluate.accumulate import numbers, per_class
from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.matching import match


def truth(*objects, images=(1,), categories=(7,)):
    """Objects are (box, other fields); image 1 and category 7 unless they say otherwise."""
    rows = [
        {"id": n, "image_id": 1, "category_id": 7, "bbox": box, "area": box[2] * box[3], "iscrowd": 0} | fields
        for n, (box, fields) in enumerate(objects, 1)
    ]
    return {"images": [{"id": i} for i in images], "categories": [{"id": c, "name": str(c)} for c in categories], "annotations": rows}


def found(box, score=0.9, image=1, category=7):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


BOX, BESIDE = [0, 0, 100, 100], [0, 0, 100, 60]


def test_an_object_goes_to_the_best_scored_detection_that_overlaps_enough_not_to_the_best_placed_one():
    ours = match(truth((BOX, {})), [found(BOX, 0.3), found(BESIDE, 0.8)])
    assert ours.det_index_D.tolist() == [1, 0], "best scored first"
    assert ours.det_object_TD[:, 0].tolist() == [0, 0, 0, *[-1] * 7], "IoU 0.6 is enough at 0.50, 0.55 and 0.60"
    assert ours.det_object_TD[:, 1].tolist() == [-1, -1, -1, *[0] * 7], "what is left for the second one"
    assert ours.det_iou_D.tolist() == [0.6, 1.0]


def test_of_two_objects_that_overlap_equally_the_later_one_is_found():
    ours = match(truth((BOX, {}), (BOX, {})), [found(BOX), found(BOX, 0.5)])
    assert (ours.det_object_TD[0].tolist(), ours.det_tp_ATD[0].all()) == ([1, 0], True)


def test_a_crowd_swallows_any_number_of_detections_and_none_of_them_is_wrong():
    ours = match(
        truth(([0, 0, 200, 200], {"iscrowd": 1}), ([300, 0, 10, 10], {})), [found([10 * n, 0, 20, 20], 0.9 - 0.1 * n) for n in range(5)]
    )
    assert ours.det_ignored_ATD.all() and not ours.det_tp_ATD.any()
    assert (ours.det_object_TD == 0).all(), "the whole detection lies inside it: IoU with a crowd is 1"
    assert (ours.det_iou_D == 0).all(), "crowds are no objects to be located"
    assert numbers(ours).AP == 0


def test_an_object_is_preferred_to_a_crowd_that_fits_better():
    ours = match(truth(([0, 0, 200, 200], {"iscrowd": 1}), (BESIDE, {})), [found(BOX)])
    assert ours.det_object_TD[:, 0].tolist() == [1, 1, 1, *[0] * 7]
    assert ours.det_tp_ATD[0, :, 0].tolist() == [True] * 3 + [False] * 7


def test_size_is_the_annotations_area_for_objects_and_the_boxs_for_wrong_detections():
    ours = match(truth((BOX, {"area": 500.0})), [found(BOX), found([300, 300, 10, 10], 0.5)])
    assert ours.obj_ignored_AG[:, 0].tolist() == [False, False, True, True]
    assert ours.det_tp_ATD[:, 0, 0].tolist() == [True, True, False, False], "found as a small object, though its box is large"
    assert ours.det_ignored_ATD[:, 0, 1].tolist() == [False, False, True, True]


def test_an_area_on_the_border_is_of_both_sizes():
    ours = match(truth(([0, 0, 32, 32], {})), [])
    assert ours.obj_ignored_AG[:, 0].tolist() == [False, False, False, True]


def test_only_the_hundred_best_of_an_image_and_class_count():
    rows = [found([200, 0, 10, 10], 0.5 + n / 1000) for n in range(120)] + [found(BOX, 0.1), found(BOX, 0.05, category=8)]
    ours = match(truth((BOX, {}), (BOX, {"category_id": 8}), categories=(7, 8)), rows)
    assert len(ours.det_index_D) == 101 and 120 not in ours.det_index_D
    assert ours.det_rank_D.tolist() == [*range(100), 0]
    assert (0, pytest.approx(100)) == (per_class(ours)[7].AR100, per_class(ours)[8].AR100)


def test_equal_scores_keep_the_callers_order_in_an_image_and_the_order_of_ids_between_images():
    rows = [found(BOX, 0.5, image=9), found(BOX, 0.5, image=2), found(BESIDE, 0.5, image=2)]
    assert match(truth((BOX, {"image_id": 2}), images=(9, 2)), rows).det_index_D.tolist() == [1, 2, 0]


def test_boxes_without_area_or_that_are_no_numbers_find_nothing():
    rows = [found([10, 10, 0, 0]), found([float("nan")] * 4), found([0, 0, float("inf"), 5]), found([50, 50, -20, -20])]
    ours = match(truth((BOX, {}), ([10, 10, 0, 0], {})), rows)
    assert not ours.det_tp_ATD.any() and (ours.det_iou_D == 0).all()


def test_an_annotation_with_id_zero_is_never_found_just_as_in_pycocotools(pycocotools):
    content = truth((BOX, {"id": 0}), ([300, 300, 50, 50], {"id": 1}))
    rows = [found(BOX), found([300, 300, 50, 50], 0.5)]
    assert pycocotools(content, rows).stats[0] == pytest.approx(numbers(match(content, rows)).AP / 100, abs=1e-12)
    assert match(content, rows).det_object_TD[0].tolist() == [-1, 1]


def test_without_detections_objects_images_or_categories_nothing_breaks():
    for content in (truth(), truth(images=()), truth((BOX, {}), categories=())):
        assert np.isnan(numbers(match(content, []))).all()
    assert numbers(match(truth((BOX, {})), [])).AR1 == 0
    assert np.isnan(numbers(match(truth(), [found(BOX)])).AP)


def test_a_detection_of_an_unknown_image_is_named():
    with pytest.raises(DataError, match=r"detection 1: image_id 5 is not in annotations \(1 of 2 detections name unknown images\)"):
        match(truth((BOX, {})), [found(BOX), found(BOX, image=5)])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image_id": 1, "category_id": 7, "bbox": BOX}, "no field 'score'"),
        (found([0, 0, 10]), "bbox has not four numbers"),
        (found(["a", 0, 1, 1]), "could not convert"),
        (found(BOX, None), "NoneType"),
    ],
)
def test_a_row_that_is_no_detection_is_named(row, said):
    with pytest.raises(DataError, match=rf"detection 1: .*{said}"):
        match(truth((BOX, {})), [found(BOX), row])


def test_arrays_and_rows_are_the_same_to_us(awkward):
    case = awkward(3)
    columns = [[row[key] for row in case.detections] for key in ("image_id", "category_id", "bbox", "score")]
    arrays = Detections(*(np.array(column) for column in columns))
    for ours, theirs in zip(vars(match(case.truth, arrays)).values(), vars(match(*case)).values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(DataError, match=r"shapes .*give N, N, N and N x 4"):
        Detections(np.ones(3, int), np.ones(2, int), np.ones((3, 4)), np.ones(3))


def test_matches_cannot_be_changed_by_whoever_reads_them(awkward):
    with pytest.raises(ValueError, match="read-only"):
        match(*awkward(1)).det_score_D[0] = 1.0


def test_an_image_that_counts_no_time_takes_its_objects_and_its_errors_along():
    ours = match(
        truth((BOX, {"image_id": 1}), (BOX, {"image_id": 2}), images=(1, 2)), [found(BOX, image=1), found([300, 0, 9, 9], 0.95, image=2)]
    )
    assert pytest.approx(100) == numbers(ours, [1, 0]).AP and numbers(ours, [0, 3]).AP == 0
    assert np.isnan(numbers(ours, [0, 0])).all()
    with pytest.raises(ValueError, match="2 whole numbers"):
        numbers(ours, [1.5, 1])
