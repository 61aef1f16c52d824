"""What tests of evaluation share: COCO's own evaluator as the arbiter, and small awkward data sets at random."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest


class Case(NamedTuple):
    """Content of an annotation file and detections in COCO's result form."""

    truth: dict[str, Any]
    detections: list[dict[str, Any]]


@pytest.fixture(scope="session")
def pycocotools() -> Callable[[dict[str, Any], list[dict[str, Any]]], Any]:
    """COCO's own evaluator after it has run: ``stats``, ``evalImgs``, ``params``."""

    def run(truth: dict[str, Any], detections: list[dict[str, Any]]) -> Any:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = copy.deepcopy(truth)
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes([dict(row) for row in detections]), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation

    return run


@pytest.fixture(scope="session")
def awkward() -> Callable[[int], Case]:
    """A data set by its seed: crowds, ties in score and in IoU, empty classes and images, zero areas, areas unlike width x height, ``ignore``.

    Ids have gaps and stand in no order, some detections name an unknown category, some images have more than 100 of one class.
    """
    return _awkward


def _awkward(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    images = (rng.permutation(900)[: rng.integers(1, 12)] + 1).tolist()
    categories = (rng.permutation(90)[: rng.integers(1, 6)] + 1).tolist()
    grid = float(rng.choice([1, 8, 20])) if rng.random() < 0.5 else 0.0  # boxes on a grid make equal IoUs
    annotations = [_object(rng, number, images, categories, grid) for number in rng.permutation(500)[: rng.integers(0, 60)] + 1]
    if annotations and rng.random() < 0.2:
        annotations += [{**annotations[0], "id": 901, "category_id": 99}, {**annotations[0], "id": 902, "image_id": 1001}]
    detections = [_detection(rng, annotations, images, categories, grid) for _ in range(rng.integers(1, 250))]
    if rng.random() < 0.3:
        detections += [
            {**_detection(rng, annotations, images, categories, grid), "image_id": images[0], "category_id": categories[0]}
            for _ in range(150)
        ]
    if rng.random() < 0.5:
        levels = int(rng.integers(1, 12))
        detections = [{**row, "score": round(row["score"] * levels) / levels} for row in detections]
    truth = {
        "images": [{"id": i, "width": 200, "height": 160, "file_name": f"{i}.png"} for i in images],
        "categories": [{"id": i, "name": f"class {i}"} for i in categories],
        "annotations": annotations,
    }
    return Case(truth, detections)


def _object(rng: np.random.Generator, number: int, images: list[int], categories: list[int], grid: float) -> dict[str, Any]:
    box = _box(rng, grid)
    area = box[2] * box[3] * float(rng.choice([1.0, 0.6, 3.0]))
    row = {
        "id": int(number),
        "image_id": int(rng.choice(images)),
        "category_id": int(rng.choice(categories[:-1] or categories)),
        "bbox": box,
    }
    row |= {"area": float(rng.choice([area, area, 32.0**2, 96.0**2])), "iscrowd": int(rng.random() < 0.15)}
    return row | ({"ignore": int(rng.integers(0, 2))} if rng.random() < 0.2 else {})


def _box(rng: np.random.Generator, grid: float) -> list[float]:
    side = np.exp(rng.normal(3.4, 1.0, 2)).clip(1, 190)
    corner = rng.random(2) * 120
    box = np.concatenate([corner, side])
    box = np.round(box / grid) * grid if grid else box
    if rng.random() < 0.05:
        box[rng.integers(2, 4)] = 0.0
    return [float(v) for v in box]


def _detection(
    rng: np.random.Generator, objects: list[dict[str, Any]], images: list[int], categories: list[int], grid: float
) -> dict[str, Any]:
    score = float(rng.random())
    if objects and rng.random() < 0.7:
        near = objects[rng.integers(len(objects))]
        box = np.array(near["bbox"]) + rng.normal(0, 1, 4) * float(rng.choice([0.0, 0.5, 3.0, 12.0]))
        box = np.round(box / grid) * grid if grid else box
        image, category = near["image_id"], near["category_id"]
        if image in images:
            return {"image_id": image, "category_id": category, "bbox": [*box[:2].tolist(), *np.abs(box[2:]).tolist()], "score": score}
    category = int(rng.choice([*categories, 77])) if rng.random() < 0.2 else int(rng.choice(categories))
    return {"image_id": int(rng.choice(images)), "category_id": category, "bbox": _box(rng, grid), "score": score}
