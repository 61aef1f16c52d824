"""COCO's numbers against COCO's own example and small cases done by hand."""

import json
import math

import numpy as np
import pytest

from salt_lab.evaluate.coco import coco_numbers
from salt_lab.evaluate.ground_truth import load_truth

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


def test_cocos_own_example_is_pycocotools_to_twelve_digits(shared, pycocotools):
    folder = shared / "data" / "eval_oracle"
    content = json.loads((folder / "instances_val2014_100.json").read_text())
    detections = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    expected = pycocotools(content, detections).stats * 100
    np.testing.assert_allclose(coco_numbers(content, detections), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_annotations_with_jittered_copies_noise_and_duplicates_are_pycocotools_to_twelve_digits(shared, pycocotools, split):
    """80 classes, 17 crowds; most classes stand in few images, many in none."""
    content = json.loads((shared / "data" / "coco_mini" / "annotations" / f"{split}.json").read_text())
    detections = jittered(content, np.random.default_rng(5))
    expected = pycocotools(content, detections).stats * 100
    assert 5 < expected[0] < 60, "neither trivial nor hopeless"
    np.testing.assert_allclose(coco_numbers(content, detections), expected, rtol=0, atol=1e-10)


def jittered(content, rng):
    """Each object found up to three times, more or less well, sometimes as another class; and boxes anywhere."""
    classes = [row["id"] for row in content["categories"]]
    rows = []
    for annotation in content["annotations"]:
        for _ in range(rng.integers(0, 4)):
            spread = rng.choice([0.02, 0.1, 0.3])
            x, y, width, height = annotation["bbox"]
            left, top = rng.normal(0, spread, 2) * (width, height) + (x, y)
            box = [left, top, *np.exp(rng.normal(0, spread, 2)) * (width, height)]
            label = annotation["category_id"] if rng.random() < 0.8 else rng.choice(classes)
            rows.append(
                {"image_id": annotation["image_id"], "category_id": int(label), "bbox": box, "score": round(rng.beta(2, 1 + 8 * spread), 3)}
            )
    for _ in range(3000):
        image = content["images"][rng.integers(len(content["images"]))]
        box = [*rng.random(2) * 300, *np.exp(rng.normal(4, 1, 2))]
        rows.append({"image_id": image["id"], "category_id": int(rng.choice(classes)), "bbox": box, "score": float(rng.beta(1, 6))})
    return rows


def test_a_loaded_ground_truth_and_one_of_pycocotools_are_taken_too(tmp_path):
    from pycocotools.coco import COCO

    path = truth(tmp_path, [[10, 10, 20, 20]])
    detections = [found([10, 10, 20, 25])]
    expected = coco_numbers(path, detections).AP
    assert (
        expected
        == coco_numbers(load_truth(path), detections).AP
        == coco_numbers(COCO(str(path)), detections).AP
        == coco_numbers(str(path), detections).AP
    )


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
