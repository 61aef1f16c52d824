"""COCO's numbers against COCO's own example and small cases done by hand."""

import json
import math

import pytest

from salt_lab.evaluate.coco import coco_numbers

PRINTED = [0.504581, 0.696973, 0.572982, 0.585626, 0.519400, 0.501398, 0.386813, 0.593680, 0.595353, 0.639811, 0.566421, 0.564291]


def truth(tmp_path, boxes):
    """One image of 200 x 200 with these boxes, one class."""
    annotations = [dict(id=i + 1, image_id=1, category_id=7, bbox=b, area=b[2] * b[3], iscrowd=0) for i, b in enumerate(boxes)]
    content = dict(
        images=[dict(id=1, width=200, height=200, file_name="a.png")], annotations=annotations, categories=[dict(id=7, name="x")]
    )
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return tmp_path / "truth.json"


def found(box, score=0.9):
    return dict(image_id=1, category_id=7, bbox=box, score=score)


def test_cocos_own_example_gives_the_printed_numbers(shared):
    folder = shared / "data" / "eval_oracle"
    detections = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    ours = coco_numbers(folder / "instances_val2014_100.json", detections)
    assert [round(v / 100, 6) for v in ours] == PRINTED


def test_a_perfect_detection_scores_one_hundred(tmp_path):
    numbers = coco_numbers(truth(tmp_path, [[10, 10, 20, 20]]), [found([10, 10, 20, 20])])
    assert pytest.approx(100) == numbers.AP and numbers.APs == pytest.approx(100)
    assert math.isnan(numbers.APm) and math.isnan(numbers.APl)


def test_a_box_with_iou_of_two_thirds_counts_up_to_the_threshold_below(tmp_path):
    numbers = coco_numbers(truth(tmp_path, [[0, 0, 100, 100]]), [found([0, 0, 100, 66.7])])
    assert pytest.approx(40) == numbers.AP, "found at 0.50, 0.55, 0.60 and 0.65 of ten thresholds"
    assert (pytest.approx(100), 0) == (numbers.AP50, numbers.AP75)


def test_finding_nothing_is_zero_where_there_was_something_to_find(tmp_path):
    numbers = coco_numbers(truth(tmp_path, [[10, 10, 20, 20]]), [])
    assert (numbers.AP, numbers.APs, numbers.AR100) == (0, 0, 0)
    assert math.isnan(numbers.APl)


def test_the_same_box_found_twice_does_not_count_twice(tmp_path):
    once = coco_numbers(truth(tmp_path, [[0, 0, 50, 50], [100, 100, 50, 50]]), [found([0, 0, 50, 50])])
    twice = coco_numbers(truth(tmp_path, [[0, 0, 50, 50], [100, 100, 50, 50]]), [found([0, 0, 50, 50]), found([0, 0, 50, 50], 0.8)])
    assert twice.AP == once.AP and twice.AR100 == once.AR100
