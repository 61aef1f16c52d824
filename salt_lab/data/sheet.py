"""Annotated images as they are drawn on a contact sheet: the first of a data set, to look at it before believing its numbers."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from salt_lab.data.paths import DatasetPaths
from salt_lab.errors import DataError

if TYPE_CHECKING:
    import numpy as np


class Labelled(NamedTuple):
    """An image and what its annotations say; N boxes, pixels of the image."""

    image: np.ndarray  #: (H, W, 3) uint8 BGR
    boxes_N4: np.ndarray  #: (N, 4) x1 y1 x2 y2
    labels_N: np.ndarray  #: (N,) indices into the data set's classes
    ignored_N: np.ndarray  #: (N,) bool: ignored or crowd, no object to find
    caption: str  #: which image it is
    marks_N2: np.ndarray | None = None  #: (N, 2) class marks of the embedded set, x y; NaN where a box has none


def first_labelled(paths: DatasetPaths, n: int, split: str = "train") -> list[Labelled]:
    """The first ``n`` images of ``split`` (train or val), as they lie on the disk, with their annotations.

    Raises:
        DataError: ``n`` < 1, an unknown split, or an image that cannot be read.
    """
    if n < 1 or split not in ("train", "val"):
        raise DataError(f"contact sheet: n = {n}, split = '{split}'. n must be at least 1 and split 'train' or 'val'")
    annotation_file, folder = (paths.train_json, paths.train_images) if split == "train" else (paths.val_json, paths.val_images)
    content = json.loads(annotation_file.read_text())
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    labels = {category["id"]: paths.classes.index(category["name"]) for category in content["categories"]}
    return [_labelled(folder, image, by_image[image["id"]], labels) for image in content["images"][:n]]


def _labelled(folder: Path, image: dict[str, Any], annotations: list[dict[str, Any]], labels: dict[int, int]) -> Labelled:
    import cv2
    import numpy as np

    path = folder / image["file_name"]
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise DataError(f"{path}: not a readable image. Fetch it again, or remove it from the annotation file")
    boxes = np.array([annotation["bbox"] for annotation in annotations], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Labelled(
        np.asarray(pixels, dtype=np.uint8),
        boxes,
        np.array([labels[annotation["category_id"]] for annotation in annotations], dtype=int),
        np.array([bool(annotation.get("iscrowd", 0) or annotation.get("ignore", 0)) for annotation in annotations], dtype=bool),
        f"id {image['id']}  {image['file_name']}",
        np.array([annotation.get("mark", (math.nan, math.nan)) for annotation in annotations], dtype=float).reshape(-1, 2),
    )
