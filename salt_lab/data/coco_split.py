"""One COCO annotation file, entry by entry: categories, images, annotations."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

SLACK = 1.0  # px by which a box may leave its image: rounding of coordinates, as in genuine COCO


class Problems:
    """Collects sentences; ``errors`` stop the study, ``warnings`` are shown."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def error(self, sentence: str) -> None:
        """Note what stops the study."""
        self.errors.append(sentence)

    def warn(self, sentence: str) -> None:
        """Note what training survives."""
        self.warnings.append(sentence)


class Split(NamedTuple):
    """What later checks need of a file. ``categories``: id -> name; ``file_names``: image id -> name; ``empty_boxes``: sentences."""

    path: Path
    images: Path
    is_val: bool
    categories: dict[int, str]
    file_names: dict[int, str]
    n_annotations: int
    empty_boxes: list[str]


def check_split(content: dict[str, Any], path: Path, images: Path, is_val: bool, problems: Problems) -> Split:
    """Check the lists of ``content``, read from ``path``; what is wrong goes to ``problems``."""
    categories = _categories(content["categories"], path, problems)
    sizes, file_names = _images(content["images"], path, problems)
    annotations = _entries(content["annotations"], path, "annotation", problems)
    empty_boxes: list[str] = []
    counts: Counter[str] = Counter()
    for number, entry in annotations.items():
        counts[str(entry.get("category_id"))] += 1
        _check_links(number, entry, path, categories, sizes, problems)
        _check_box(number, entry, path, sizes, problems, empty_boxes)
    _check_what_the_evaluator_reads(annotations, path, is_val, problems)
    _warn_of_blemishes(annotations, file_names, path, problems)
    _check_not_empty(path, sizes, annotations, categories, counts, problems)
    return Split(path, images, is_val, categories, file_names, len(annotations), empty_boxes)


def _entries(entries: list[Any], path: Path, kind: str, problems: Problems) -> dict[int, dict[str, Any]]:
    """Entries by id; those without an integer id, and the second of a double id, are reported and left out."""
    found: dict[int, dict[str, Any]] = {}
    for place, entry in enumerate(entries):
        number = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(number, int) or isinstance(number, bool):
            problems.error(f"{path}: {kind} number {place + 1} has id {number!r}. Every {kind} needs an integer id")
        elif number in found:
            problems.error(f"{path}: {kind} id {number} occurs twice. Give every {kind} its own id")
        else:
            found[number] = entry
    return found


def _categories(entries: list[Any], path: Path, problems: Problems) -> dict[int, str]:
    """id -> name. Their order counts: mmdet and pycocotools number the labels by place in the file, the lab by id."""
    found = _entries(entries, path, "category", problems)
    names: dict[int, str] = {}
    for number, entry in found.items():
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            problems.error(f"{path}: category id {number} has name {name!r}. Every category needs a name")
        elif name in names.values():
            problems.error(f"{path}: category id {number}: the name '{name}' occurs twice. Give every category its own name")
        names[number] = str(name)
    if list(names) != sorted(names):
        problems.error(f"{path}: categories are in the order {list(names)}. Sort them by id: labels are numbered by place")
    if not entries:
        problems.error(f"{path}: no categories. Name at least one class")
    return names


def _images(entries: list[Any], path: Path, problems: Problems) -> tuple[dict[int, tuple[float, float]], dict[int, str]]:
    """Sizes (width, height; pixels) and file names by image id."""
    sizes: dict[int, tuple[float, float]] = {}
    names: dict[int, str] = {}
    for number, entry in _entries(entries, path, "image", problems).items():
        width, height, name = entry.get("width"), entry.get("height"), entry.get("file_name")
        sizes[number] = (math.inf, math.inf)
        if _is_number(width) and _is_number(height) and min(width, height) > 0:
            sizes[number] = (width, height)
        else:
            problems.error(f"{path}: image id {number} has width {width!r} and height {height!r}. Give its size in pixels")
        if isinstance(name, str) and name:
            names[number] = name
        else:
            problems.error(f"{path}: image id {number} has file_name {name!r}. Name the file inside the image folder")
    return sizes, names


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_links(
    number: int, entry: dict[str, Any], path: Path, categories: dict[int, str], sizes: dict[int, tuple[float, float]], problems: Problems
) -> None:
    category, image = entry.get("category_id"), entry.get("image_id")
    if not isinstance(category, int) or category not in categories:
        known = ", ".join(str(key) for key in sorted(categories)[:8]) + (", ..." if len(categories) > 8 else "")
        problems.error(f"{path}: annotation id {number} has unknown category_id {category!r}. Categories of the file: {known}")
    if not isinstance(image, int) or image not in sizes:
        problems.error(f"{path}: annotation id {number} has unknown image_id {image!r}. Remove it, or add the image")


def _check_box(
    number: int, entry: dict[str, Any], path: Path, sizes: dict[int, tuple[float, float]], problems: Problems, empty_boxes: list[str]
) -> None:
    """[x, y, w, h] in pixels, inside the image up to SLACK. Boxes without area are only collected: their share decides."""
    box, where = entry.get("bbox"), f"{path}: annotation id {number}"
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        problems.error(f"{where}: bbox {box!r} is no list of four numbers. Write [x, y, width, height] in pixels")
        return
    x, y, w, h = box
    image = entry.get("image_id")
    width, height = sizes.get(image, (math.inf, math.inf)) if isinstance(image, int) else (math.inf, math.inf)
    if w < 0 or h < 0:
        problems.error(f"{where}: bbox {box} has a negative side. Write [x, y, width, height], not two corners")
    elif max(-x, -y, x + w - width, y + h - height) >= SLACK:
        size = "" if math.isinf(width) else f" ({width:g} x {height:g})"
        problems.error(f"{where}: bbox {box} reaches outside image id {image}{size}. Clip it; the format is [x, y, width, height]")
    elif w == 0 or h == 0:
        empty_boxes.append(f"{where}: bbox {box} has no area. Remove the annotation")
    elif _is_number(entry.get("area")) and entry["area"] <= 0:
        empty_boxes.append(f"{where} has area {entry['area']:g}. Write width * height, or remove the annotation")


def _check_what_the_evaluator_reads(annotations: dict[int, dict[str, Any]], path: Path, is_val: bool, problems: Problems) -> None:
    """pycocotools takes annotation id 0 for 'no match' and reads area and iscrowd without a default; mmdet reads area in training."""
    if is_val and 0 in annotations:
        problems.error(f"{path}: annotation id 0: the COCO evaluation takes 0 for 'no match', so AP comes out too low. Number from 1")
    remedies = {"area": "Write width * height where there is no mask", "iscrowd": "Write 0"}
    for key, remedy in remedies.items():
        lacking = [number for number, entry in annotations.items() if not isinstance(entry.get(key), (int, float))]
        if lacking and (is_val or key == "area"):
            problems.error(f"{path}: annotation id {lacking[0]} has no {key} ({len(lacking)} of {len(annotations)} annotations). {remedy}")


def _warn_of_blemishes(annotations: dict[int, dict[str, Any]], file_names: dict[int, str], path: Path, problems: Problems) -> None:
    boxes = {number: entry.get("bbox") for number, entry in annotations.items()}
    thin = [
        number
        for number, box in boxes.items()
        if isinstance(box, list) and len(box) == 4 and any(_is_number(v) and 0 < v < 1 for v in box[2:])
    ]
    if thin:
        problems.warn(
            f"{path}: annotation id {thin[0]} is thinner than 1 px ({len(thin)} of {len(boxes)} are); training leaves such boxes out"
        )
    double = sorted(name for name, times in Counter(file_names.values()).items() if times > 1)
    if double:
        problems.warn(f"{path}: image file '{double[0]}' is listed more than once ({len(double)} files are)")


def _check_not_empty(
    path: Path,
    sizes: dict[int, tuple[float, float]],
    annotations: dict[int, dict[str, Any]],
    categories: dict[int, str],
    counts: Counter[str],
    problems: Problems,
) -> None:
    if not sizes or not annotations:
        what = "images" if not sizes else "annotations"
        problems.error(f"{path}: no {what}. A data set needs at least one image with a box in train and in val")
        return
    bare = [name for number, name in sorted(categories.items()) if not counts[str(number)]]
    if bare:
        shown = ", ".join(f"'{name}'" for name in bare[:5]) + (", ..." if len(bare) > 5 else "")
        problems.warn(f"{path}: {len(bare)} of {len(categories)} categories have no box: {shown}")
