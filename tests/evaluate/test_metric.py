"""The evaluator that training runs."""

import json

import numpy as np
import pytest

from salt_lab.evaluate import coco_numbers
from salt_lab.evaluate.metric import LabCocoMetric, detection_arrays, detection_rows


def results(rng, images, count=30):
    """As the metric collects them: image id, boxes x1 y1 x2 y2 in single precision, scores, labels; the last image is empty."""
    corners = [rng.uniform(0, 80, (count, 2)) for _ in images]
    boxes = [np.concatenate([low, low + rng.uniform(1, 60, low.shape)], axis=1).astype(np.float32) for low in corners]
    found = [
        (image, box, rng.random(count).astype(np.float32), rng.integers(0, 2, count)) for image, box in zip(images, boxes, strict=True)
    ]
    return [*found[:-1], (images[-1], np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))]


def test_the_arrays_that_are_measured_are_the_rows_that_are_written():
    collected = results(np.random.default_rng(0), [30, 10, 20])
    arrays = detection_arrays(collected, categories=[5, 2])
    rows = [row for image in collected for row in detection_rows(*image, categories=[5, 2])]
    assert arrays.image_id_N.tolist() == [row["image_id"] for row in rows]
    assert arrays.category_id_N.tolist() == [row["category_id"] for row in rows]
    assert arrays.boxes_N4.tolist() == [row["bbox"] for row in rows]
    assert arrays.score_N.tolist() == [row["score"] for row in rows]
    assert len(detection_arrays([], categories=[5, 2])) == 0


@pytest.mark.parametrize("empty", [False, True])
def test_its_numbers_are_those_of_the_file_that_it_leaves(tmp_path, empty):
    rng = np.random.default_rng(1)
    boxes = np.concatenate([rng.uniform(0, 60, (20, 2)), rng.uniform(5, 60, (20, 2))], axis=1).tolist()
    rows = [
        {"id": n + 1, "image_id": 1 + n % 3, "category_id": 2 + 3 * (n % 2), "bbox": box, "area": box[2] * box[3]}
        for n, box in enumerate(boxes)
    ]
    content = {
        "images": [{"id": 1}, {"id": 2}, {"id": 3}],
        "categories": [{"id": 2, "name": "a"}, {"id": 5, "name": "b"}],
        "annotations": rows,
    }
    (tmp_path / "truth.json").write_text(json.dumps(content | {"annotations": [row | {"iscrowd": 0} for row in rows]}))
    metric = LabCocoMetric(str(tmp_path / "truth.json"), out_file=str(tmp_path / "found.json"))
    metric.dataset_meta = {"classes": ("a", "b")}
    numbers = metric.compute_metrics([] if empty else results(rng, [1, 2, 3], 200))
    left = json.loads((tmp_path / "found.json").read_text())
    np.testing.assert_array_equal(list(numbers.values()), coco_numbers(content, left))
    assert (numbers["AP"] == 0) == empty
