"""Made annotations and detections of any size, after COCO's val2017, which is not to be had everywhere.

Few classes fill most images, objects of a class stand together, sizes are spread as widely as COCO's, 1.2 % are crowds, nearly half of the detections
lie near an object, and the better a box the higher its score tends to be. Letters: C classes, I images, G objects, N detections.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 480


class Made(NamedTuple):
    """An annotation file's content and detections as dicts."""

    truth: dict[str, Any]
    rows: list[dict[str, Any]]


def make(images: int, objects: int, classes: int, per_image: int, seed: int = 0) -> Made:
    """Data of these sizes; the same for a seed."""
    rng = np.random.default_rng(seed)
    popular_C = 1 / np.arange(1, classes + 1) ** 0.9
    popular_C /= popular_C.sum()
    image_G = np.sort(rng.choice(images, objects, p=rng.dirichlet(np.full(images, 0.9))))
    start_I = np.searchsorted(image_G, np.arange(images + 1))
    class_G = np.concatenate([rng.choice(rng.choice(classes, 1 + rng.poisson(1.9), p=popular_C), count) for count in np.diff(start_I)])
    boxes_G4 = boxes(rng, objects)
    category_ids = np.sort(rng.choice(np.arange(1, classes + 11), classes, replace=False))
    image_ids = np.sort(rng.choice(600_000, images, replace=False))
    area_G = boxes_G4[:, 2:].prod(axis=1) * rng.uniform(0.5, 0.8, objects)
    crowd_G = (rng.random(objects) < 0.012).astype(int)
    objects_columns = (
        range(1, objects + 1),
        image_ids[image_G].tolist(),
        category_ids[class_G].tolist(),
        boxes_G4.tolist(),
        area_G.tolist(),
        crowd_G.tolist(),
    )
    truth = {
        "images": [{"id": i, "width": WIDTH, "height": HEIGHT, "file_name": f"{i:012d}.jpg"} for i in image_ids.tolist()],
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids.tolist()],
        "annotations": _rows(("id", "image_id", "category_id", "bbox", "area", "iscrowd"), *objects_columns),
    }
    image_N = np.repeat(np.arange(images), per_image)
    class_N, boxes_N4, score_N = detect(rng, image_N, start_I, class_G, boxes_G4, popular_C)
    columns = (image_ids[image_N].tolist(), category_ids[class_N].tolist(), boxes_N4.tolist(), score_N.tolist())
    return Made(truth, _rows(("image_id", "category_id", "bbox", "score"), *columns))


def _rows(keys: tuple[str, ...], *columns: Any) -> list[dict[str, Any]]:
    return [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]


def boxes(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Anywhere in the picture, sides spread as widely as COCO's."""
    side_X2 = np.exp(rng.normal(3.9, 1.0, (count, 2))).clip(4, [WIDTH, HEIGHT])
    return np.concatenate([rng.random((count, 2)) * ([WIDTH, HEIGHT] - side_X2), side_X2], axis=1)


def detect(rng: np.random.Generator, image_N: Any, start_I: Any, class_G: Any, boxes_G4: Any, popular_C: Any) -> tuple[Any, Any, Any]:
    """Class, box and score of each detection; the better the box, the higher its score tends to be. Single precision, as of a network."""
    count, objects_N = len(image_N), np.diff(start_I)[image_N]
    near_N = (objects_N > 0) & (rng.random(count) < 0.45)
    object_N = np.minimum(start_I[image_N] + (rng.random(count) * objects_N).astype(int), len(class_G) - 1)
    spread_N1 = np.abs(rng.normal(0, 0.25, count))[:, None]
    noise_N4, near_N4 = rng.normal(0, 1, (count, 4)) * spread_N1, boxes_G4[object_N]
    moved_N4 = np.concatenate([near_N4[:, :2] + noise_N4[:, :2] * near_N4[:, 2:], near_N4[:, 2:] * np.exp(noise_N4[:, 2:])], axis=1)
    boxes_N4 = np.where(near_N[:, None], moved_N4, boxes(rng, count))
    same_N = rng.random(count) < np.where(near_N, 0.9, np.where(objects_N > 0, 0.5, 0.0))
    class_N = np.where(same_N, class_G[object_N], rng.choice(len(popular_C), count, p=popular_C))
    sure_N = 1 / (1 + np.exp(8 * spread_N1[:, 0] - 1.5 - rng.normal(0, 1, count)))
    score_N = np.where(near_N, sure_N, rng.beta(1, 8, count))
    return class_N, boxes_N4.astype(np.float32).astype(float), score_N.astype(np.float32).astype(float)
