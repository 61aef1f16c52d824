"""Detections and SALT's points on an image: what the detector found and where it looked. numpy, OpenCV and Pillow; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from salt_lab.report.ink import DARK, PAPER, WHITE, Image, Mark, Text, class_colour, dashed_box, dashes, mark, outline, place_labels

from salt_lab.report.ink import polygon, text_size, write  # isort: skip

_SIDES_OF_NINE = (3, 1, 5, 7)  # left, top, right, bottom in the kernel's order for K = 9 (salt.md section 2)
_MIN_SIDE, _MAX_SIDE = 448, 1792  # small images are enlarged to the one, but not beyond the other
_SMALLEST_MARK, _SIDE_PER_MARK = 0.55, 44.0  # marks shrink with boxes of fewer pixels, down to this fraction


def side_points(count: int) -> tuple[int, ...]:
    """Indexes of the points on the box's sides (left, top, right, bottom) among ``count`` R-points."""
    return _SIDES_OF_NINE if count == 9 else (0, 1, 2, 3)


def draw_detections(
    image: Image,
    boxes_N4: Any,
    labels: Sequence[int],
    scores: Sequence[float],
    classes: Sequence[str],
    r_points_NK2: Any = None,
    c_points_NK2: Any = None,
    coarse_N4: Any = None,
    scale: int | None = None,
) -> Image:
    """A copy of ``image`` with boxes, class names and scores, and, where given, points, coarse boxes and a legend under the image.

    image: (H, W, 3) uint8, BGR. boxes_N4, coarse_N4: (N, 4) x1 y1 x2 y2, pixels. labels: N indexes into ``classes``. scores: N in 0..1.
    r_points_NK2, c_points_NK2: (N, K, 2) as x, y, pixels. R-points are green squares on the sides and yellow dots inside, C-points orange
    diamonds (the paper's colours; the shapes are ours), the coarse box dashed white. A point or coarse box that is NaN is left out.
    scale: whole enlargement; None enlarges a small image until its shorter side has 448 pixels, so that points can be told apart; 1
    leaves it as it is.
    Returns (scale * H [+ legend], scale * W, 3) uint8, BGR. Raises ValueError when the shapes do not fit together.
    """
    boxes = _array(boxes_N4, (-1, 4), "boxes")
    count = len(boxes)
    coarse = None if coarse_N4 is None else _array(coarse_N4, (count, 4), "coarse")
    r_points, c_points = (None if p is None else _array(p, (count, -1, 2), "points") for p in (r_points_NK2, c_points_NK2))
    if not len(labels) == len(scores) == count:
        raise ValueError(f"boxes, labels and scores must be of one length, got {count}, {len(labels)}, {len(scores)}")
    canvas = _Canvas(image, enlargement(image.shape[:2]) if scale is None else scale)
    order = np.argsort(np.asarray(scores, dtype=float), kind="stable")  # the surest on top
    for index in order:
        canvas.box(boxes[index], int(labels[index]))
    for box in () if coarse is None else coarse[order]:
        canvas.coarse(box)
    for index in order:
        canvas.points(boxes[index], None if r_points is None else r_points[index], None if c_points is None else c_points[index])
    names = [(f"{_class_name(classes, int(labels[i]))} {float(scores[i]):.2f}", boxes[i], int(labels[i])) for i in order[::-1]]
    return canvas.finish(names, _legend_entries(r_points is not None, c_points is not None, coarse is not None))


def enlargement(shape: tuple[int, ...]) -> int:
    """By what whole number an image of (H, W) is enlarged: to 448 pixels on its shorter side where it is small, but not beyond 1792."""
    return max(1, min(round(_MIN_SIDE / min(shape)), _MAX_SIDE // max(shape)))


class _Canvas:
    """The enlarged image; takes coordinates of the original one."""

    def __init__(self, image: Image, factor: int) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"the image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        self.pixels = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image.copy()
        self.factor = factor
        self.unit = max(1.0, min(self.pixels.shape[:2]) / _MIN_SIDE) ** 0.75  # lines and text grow with the picture, a little slower

    def box(self, box: NDArray[np.float64], label: int) -> None:
        outline(self.pixels, box * self.factor, class_colour(label), self.unit)

    def coarse(self, box: NDArray[np.float64]) -> None:
        if np.isfinite(box).all():
            dashed_box(self.pixels, box * self.factor, self.unit, WHITE)

    def points(self, box: NDArray[np.float64], r_points: NDArray[np.float64] | None, c_points: NDArray[np.float64] | None) -> None:
        side = float(np.clip(min(box[2] - box[0], box[3] - box[1]) * self.factor, 0, None))
        unit = self.unit * float(np.clip(side / (_SIDE_PER_MARK * self.unit), _SMALLEST_MARK, 1.0))
        kinds: list[tuple[Mark, Any]] = [("class", point) for point in (() if c_points is None else c_points)]
        if r_points is not None:
            sides = side_points(len(r_points))
            kinds += [("inside", point) for index, point in enumerate(r_points) if index not in sides]
            kinds += [("side", r_points[index]) for index in sides]
        for kind, point in kinds:
            if np.isfinite(point).all():
                mark(self.pixels, kind, point * self.factor, unit)

    def finish(self, names: Sequence[tuple[str, NDArray[np.float64], int]], legend: Sequence[tuple[str, str]]) -> Image:
        height, width = self.pixels.shape[:2]
        labels = [(words, box * self.factor, class_colour(label)) for words, box, label in names]
        room = 4.6 * self.unit if legend else 0  # so that a label does not cover the point on its box's side
        placed = place_labels(labels, round(12 * self.unit), (width, height), room)
        pixels = write(self.pixels, placed[::-1], round(12 * self.unit))
        return np.concatenate([pixels, _legend(width, legend, self.unit)]) if legend else pixels


def _array(values: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 and shape[0] <= 0:
        return array.reshape(0, *(max(size, 1) for size in shape[1:]))
    if array.ndim != len(shape) or any(want not in (-1, got) for want, got in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{name} must be of shape {tuple('any' if size < 0 else size for size in shape)}, got {array.shape}")
    return array


def _class_name(classes: Sequence[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else f"class {label}"


def _legend_entries(r_points: bool, c_points: bool, coarse: bool) -> list[tuple[str, str]]:
    entries = [("side", "R-point on a side"), ("inside", "R-point inside")] if r_points else []
    entries += [("class", "C-point")] if c_points else []
    return entries + ([("coarse", "coarse box")] if coarse else [])


def _legend(width: int, entries: Sequence[tuple[str, str]], unit: float) -> Image:
    """A strip as wide as the picture, on as many lines as the entries need."""
    size, step = round(11 * unit), 20 * unit
    places, x, line = [], 10 * unit, 0
    for kind, words in entries:
        needed = 24 * unit + text_size(words, size)[0]
        if x > 10 * unit and x + needed > width:
            x, line = 10 * unit, line + 1
        places.append((kind, words, x, (line + 0.6) * step))
        x += needed
    strip = np.full((round((line + 1.2) * step), width, 3), PAPER, np.uint8)
    for kind, _, left, middle in places:
        _legend_mark(strip, kind, np.array([left, middle]), unit)
    texts = [Text(words, left + 9 * unit, middle - text_size(words, size)[1] / 2, DARK) for _, words, left, middle in places]
    return write(strip, texts, size)


def _legend_mark(strip: Image, kind: Any, centre: NDArray[np.float64], unit: float) -> None:
    if kind == "coarse":
        ends = centre + np.array([[-8.0, 0.0], [6.0, 0.0]]) * unit
        polygon(strip, ends, DARK, 2 * unit, closed=False)
        dashes(strip, ends[0], ends[1], 3 * unit, WHITE, unit)
    else:
        mark(strip, kind, centre, unit)
