"""A contact sheet: some training images in a grid with their boxes, to look at a data set before believing its numbers."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_lab.data.paths import DatasetPaths
from salt_lab.errors import DataError, StoreError

if TYPE_CHECKING:
    from salt_lab.data.shapes import Pixels

TILE = 280  # longest side of an image on the sheet, pixels
#: BGR, one per class in turn: told apart by colour-blind readers too (Okabe and Ito).
COLOURS = ((0, 159, 230), (233, 180, 86), (115, 158, 0), (66, 228, 240), (178, 114, 0), (0, 94, 213), (167, 121, 204))


def contact_sheet(paths: DatasetPaths, n: int, out: Path, split: str = "train") -> list[str]:
    """Write the first ``n`` images of ``split`` (train or val) with boxes, class names and, where there are, class marks to ``out``.

    Returns the file names on the sheet, in reading order.

    Raises:
        DataError: ``n`` < 1, an unknown split, or an image that cannot be read.
        StoreError: ``out`` cannot be written.
    """
    import cv2

    if n < 1 or split not in ("train", "val"):
        raise DataError(f"contact sheet: n = {n}, split = '{split}'. n must be at least 1 and split 'train' or 'val'")
    annotation_file, folder = (paths.train_json, paths.train_images) if split == "train" else (paths.val_json, paths.val_images)
    content = json.loads(annotation_file.read_text())
    boxes: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        boxes[annotation["image_id"]].append(annotation)
    labels = {category["id"]: paths.classes.index(category["name"]) for category in content["categories"]}
    chosen = content["images"][:n]
    tiles = [_tile(folder / image["file_name"], boxes[image["id"]], labels, paths.classes) for image in chosen]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(out), _grid(tiles))
    except (OSError, cv2.error) as error:
        raise StoreError(f"{out}: cannot write the contact sheet ({error}). Give a writable .png path") from None
    if not written:
        raise StoreError(f"{out}: cannot write the contact sheet. Give a writable .png path")
    return [str(image["file_name"]) for image in chosen]


def _tile(path: Path, annotations: list[dict[str, Any]], labels: dict[int, int], classes: tuple[str, ...]) -> Pixels:
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path}: not a readable image. Fetch it again, or remove it from the annotation file")
    scale = TILE / max(image.shape[:2])
    tile: Pixels = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)
    for annotation in annotations:
        label = labels[annotation["category_id"]]
        colour = COLOURS[label % len(COLOURS)]
        x, y, w, h = (value * scale for value in annotation["bbox"])
        cv2.rectangle(tile, (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1), colour, 1)
        cv2.putText(tile, classes[label], (round(x) + 1, max(round(y) - 3, 9)), cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, 1, cv2.LINE_AA)
        if "mark" in annotation:
            mark_x, mark_y = annotation["mark"]
            cv2.drawMarker(tile, (round(mark_x * scale), round(mark_y * scale)), colour, cv2.MARKER_CROSS, 8, 1)
    return tile


def _grid(tiles: list[Pixels]) -> Pixels:
    """Tiles left to right, top to bottom, on white, about as many columns as rows."""
    import numpy as np

    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    sheet: Pixels = np.full((rows * (TILE + 6) + 6, columns * (TILE + 6) + 6, 3), 255, dtype=np.uint8)
    for place, tile in enumerate(tiles):
        top, left = 6 + (place // columns) * (TILE + 6), 6 + (place % columns) * (TILE + 6)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet
