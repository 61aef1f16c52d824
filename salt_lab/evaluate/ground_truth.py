"""The objects of a COCO annotation file as arrays: what detections are measured against.

Letters: I images, C categories, G objects. Boxes are x, y, width, height in pixels of the original picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_lab.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroundTruth:
    """Images, categories and objects of one annotation file. Arrays are read-only; ids ascend; objects stand in the file's order.

    As in COCO's own evaluator, annotations of images or categories that the file does not list are left out, ``iscrowd`` is what takes an object
    out of the count (a field ``ignore`` has no effect), and ``area`` is the annotation's, which need not be width times height.
    """

    image_ids_I: Ints
    image_sizes_I2: Ints  #: width, height in pixels; 0 where the file does not say
    file_names: tuple[str, ...]  #: of each image; "" where the file does not say
    category_ids_C: Ints
    category_names: tuple[str, ...]
    annotation_ids_G: Ints
    obj_image_G: NDArray[np.int32]  #: index into image_ids_I
    obj_category_G: NDArray[np.int32]  #: index into category_ids_C
    boxes_G4: Floats
    areas_G: Floats  #: square pixels, decides small, medium or large
    crowd_G: NDArray[np.bool_]
    name: str = "annotations"  #: file, for messages

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)


def load_truth(source: str | Path | Mapping[str, Any], name: str = "annotations") -> GroundTruth:
    """Read an annotation file, or its content (also ``COCO(...).dataset``), which is called ``name`` in messages.

    Raises:
        DataError: the file is missing or no JSON; an id is missing or no whole number; two annotations share one; an object has no box of four
            numbers or no area.
    """
    name, content = (name, source) if isinstance(source, Mapping) else (str(source), _read(Path(source)))
    images = _by_id(content, "images", name)
    categories = _by_id(content, "categories", name)
    image_ids_I, category_ids_C = _ids(images), _ids(categories)
    rows = content.get("annotations") or []
    known = [row for row in rows if _get(row, "image_id", name) in images and _get(row, "category_id", name) in categories]
    return GroundTruth(
        image_ids_I=image_ids_I,
        image_sizes_I2=np.array([_size(images[i]) for i in image_ids_I.tolist()], np.int64).reshape(-1, 2),
        file_names=tuple(str(images[i].get("file_name", "")) for i in image_ids_I.tolist()),
        category_ids_C=category_ids_C,
        category_names=tuple(str(categories[i].get("name", i)) for i in category_ids_C.tolist()),
        annotation_ids_G=_annotation_ids(known, name),
        obj_image_G=np.searchsorted(image_ids_I, np.array([row["image_id"] for row in known], np.int64)).astype(np.int32),
        obj_category_G=np.searchsorted(category_ids_C, np.array([row["category_id"] for row in known], np.int64)).astype(np.int32),
        boxes_G4=np.array([_box(row, name) for row in known], np.float64).reshape(-1, 4),
        areas_G=np.array([_area(row, name) for row in known], np.float64),
        crowd_G=np.array([bool(row.get("iscrowd")) for row in known], np.bool_),
        name=name,
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotations: {error.strerror or error}. Check the path") from None
    except ValueError as error:
        raise DataError(f"{path}: no JSON: {error}. Make the file anew") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: a {type(content).__name__} where COCO has an object with images, annotations and categories")
    return content


def _by_id(content: Mapping[str, Any], key: str, name: str) -> dict[int, Mapping[str, Any]]:
    return {_whole(_get(row, "id", name, key), f"{name}: {key}"): row for row in content.get(key) or []}


def _get(row: Mapping[str, Any], key: str, name: str, kind: str = "annotations") -> Any:
    try:
        return row[key]
    except (KeyError, TypeError):
        raise DataError(f"{name}: {kind}: an entry without '{key}': {str(row)[:120]}. Give it one, or remove it") from None


def _whole(value: Any, place: str) -> int:
    if isinstance(value, (int, np.integer)) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise DataError(f"{place}: id {value!r} is no whole number. Number the entries 1, 2, 3, ...")


def _ids(entries: Mapping[int, Any]) -> Ints:
    return np.array(sorted(entries), np.int64)


def _annotation_ids(rows: Sequence[Mapping[str, Any]], name: str) -> Ints:
    ids = [_whole(_get(row, "id", name), f"{name}: annotations") for row in rows]
    if len(set(ids)) < len(ids):
        twice = next(number for place, number in enumerate(ids) if number in set(ids[:place]))
        raise DataError(f"{name}: annotations: id {twice} stands twice. Number the annotations 1, 2, 3, ...")
    return np.array(ids, np.int64)


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    return int(image.get("width") or 0), int(image.get("height") or 0)


def _box(row: Mapping[str, Any], name: str) -> list[float]:
    box = row.get("bbox")
    try:
        x, y, width, height = map(float, box)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DataError(f"{name}: annotation id {row['id']}: bbox {box!r} is not [x, y, width, height]. Repair or remove it") from None
    return [x, y, width, height]


def _area(row: Mapping[str, Any], name: str) -> float:
    area = row.get("area")
    if not isinstance(area, (int, float)):
        raise DataError(f"{name}: annotation id {row['id']}: area {area!r} is no number. Write the object's area, or width x height")
    return float(area)
