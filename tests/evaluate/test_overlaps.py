"""Which detection overlaps and finds which object, of any class: the same finds as COCO's evaluator, at all sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.ground_truth import load_truth
from salt_lab.evaluate.matching import match
from salt_lab.evaluate.overlaps import FLOOR, Overlaps, assign, nearest, of_size, overlaps


def fuzzed(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Crowded images: 4 classes, crowds, zero-area boxes, tied scores."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {"images": [{"id": i} for i in range(1, 9)], "categories": [{"id": c, "name": str(c)} for c in (1, 2, 5, 9)]}
    annotations = []
    for number in range(1, 81):
        box = [*rng.uniform(0, 150, 2), *rng.uniform(5, 140, 2)]
        row = {"id": number, "image_id": int(rng.integers(1, 9)), "category_id": int(rng.choice([1, 2, 5])), "bbox": box}
        annotations.append({**row, "area": box[2] * box[3] * rng.uniform(0.5, 1), "iscrowd": int(rng.random() < 0.1)})
    truth["annotations"] = annotations
    rows = []
    for _ in range(400):
        near = annotations[int(rng.integers(0, 80))]
        box = (np.array(near["bbox"]) * np.exp(rng.normal(0, 0.15, 4))).tolist()
        if rng.random() < 0.05:
            box[2] = 0.0
        category = near["category_id"] if rng.random() < 0.7 else int(rng.choice([1, 2, 5, 9]))
        rows.append({"image_id": near["image_id"], "category_id": category, "bbox": box, "score": round(float(rng.random()), 2)})
    return truth, rows


def paired(content: dict[str, Any], rows: list[dict[str, Any]]) -> Overlaps:
    truth, detections = load_truth(content), Detections.from_rows(rows)
    return overlaps(match(truth, detections), truth, detections)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_is_what_coco_counts_as_found_at_every_size(seed: int) -> None:
    content, rows = fuzzed(seed)
    truth, detections = load_truth(content), Detections.from_rows(rows)
    matches = match(truth, detections)
    pairs = overlaps(matches, truth, detections)
    for row, size in enumerate(("all", "s", "m", "l")):
        found = assign(pairs, size)
        np.testing.assert_array_equal(found.object_D >= 0, matches.det_tp_ATD[row, 0])
        np.testing.assert_array_equal(found.ignored_D, matches.det_ignored_ATD[row, 0])
        counted = found.object_D[found.object_D >= 0]
        assert len(set(counted.tolist())) == len(counted), "an object was found twice"
    np.testing.assert_array_equal(np.where(matches.det_iou_D >= FLOOR, matches.det_iou_D, 0), nearest(pairs).iou_D)


def test_pairs_are_those_that_the_coco_api_overlaps_also_across_classes() -> None:
    from pycocotools import mask

    content, rows = fuzzed(7)
    truth, detections = load_truth(content), Detections.from_rows(rows)
    matches = match(truth, detections)
    pairs = overlaps(matches, truth, detections)
    want: dict[tuple[int, int], float] = {}
    for d, index in enumerate(matches.det_index_D.tolist()):
        at = np.flatnonzero(truth.image_ids_I[truth.obj_image_G] == detections.image_id_N[index])
        ious = mask.iou(detections.boxes_N4[index : index + 1], truth.boxes_G4[at], truth.crowd_G[at].astype(np.uint8))[0]
        want |= {(d, int(g)): float(iou) for g, iou in zip(at, ious, strict=True) if iou >= FLOOR}
    got = {(int(d), int(g)): float(v) for d, g, v in zip(pairs.pair_det_P, pairs.pair_obj_P, pairs.pair_iou_P, strict=True)}
    assert got.keys() == want.keys()
    assert max(abs(got[key] - want[key]) for key in want) < 1e-12


def test_working_in_portions_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = paired(*fuzzed(1))
    monkeypatch.setattr("salt_lab.evaluate.overlaps._PAIRS_AT_ONCE", 37)
    portions = paired(*fuzzed(1))
    np.testing.assert_array_equal(whole.pair_obj_P, portions.pair_obj_P)
    np.testing.assert_array_equal(whole.pair_iou_P, portions.pair_iou_P)


def test_no_detections_and_no_objects_make_no_pairs() -> None:
    content, rows = fuzzed(0)
    assert len(paired(content, []).pair_det_P) == 0
    empty = paired({**content, "annotations": []}, rows)
    assert len(empty.pair_det_P) == 0 and not (assign(empty).object_D >= 0).any()


def test_sizes_are_cocos_and_their_bounds_count_on_both_sides() -> None:
    areas = np.array([1.0, 1024.0, 1025.0, 9216.0, 9217.0])
    assert of_size(areas, "s").tolist() == [True, True, False, False, False]
    assert of_size(areas, "m").tolist() == [False, True, True, True, False]
    assert of_size(areas, "l").tolist() == [False, False, False, True, True]
    assert of_size(areas, "all").all()
