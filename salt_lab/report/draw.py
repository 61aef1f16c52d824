"""Detections and SALT's points on an image: what the detector found and where it looked. numpy, OpenCV and Pillow; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3), BGR

# BGR. One colour per class, repeated after six; points and coarse boxes have colours of their own.
_CLASS_COLOURS = ((178, 114, 0), (119, 51, 170), (128, 128, 0), (40, 75, 130), (60, 60, 60), (205, 90, 90))
_SIDE, _INSIDE, _CLASS_POINT, _COARSE = (80, 200, 60), (60, 230, 250), (20, 130, 255), (255, 255, 255)
_EDGE = (30, 30, 30)
_SIDES_OF_NINE = (3, 1, 5, 7)  # left, top, right, bottom in the kernel's order for K = 9 (salt.md section 2)
_MIN_SIDE, _SHIFT = 448, 4  # small images are enlarged to this side; OpenCV draws at 1/16 pixel


class _Text(NamedTuple):
    text: str
    x: float
    y: float
    colour: tuple[int, int, int]
    back: tuple[int, int, int] | None


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
    r_points_NK2, c_points_NK2: (N, K, 2) as x, y, pixels. R-points are green on the sides and yellow inside, C-points orange diamonds,
    the coarse box dashed white.
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
    factor = scale if scale is not None else max(1, round(_MIN_SIDE / min(image.shape[:2])))
    canvas = _Canvas(image, factor)
    order = np.argsort(np.asarray(scores, dtype=float), kind="stable")  # the surest on top
    for index in order:
        canvas.box(boxes[index], _colour(int(labels[index])))
        if coarse is not None:
            canvas.dashed_box(coarse[index], _COARSE)
    for index in order:
        canvas.points(r_points[index] if r_points is not None else None, c_points[index] if c_points is not None else None)
        canvas.label(boxes[index], f"{_class_name(classes, int(labels[index]))} {float(scores[index]):.2f}", _colour(int(labels[index])))
    legend = _legend_entries(r_points is not None, c_points is not None, coarse is not None)
    return canvas.finish(legend)


def contact(images: Sequence[Image], columns: int, gap: int = 8) -> Image:
    """Tile images of any sizes into a white sheet, row by row, each centred in its tile.

    Raises ValueError for no images or fewer than one column.
    """
    if not images or columns < 1:
        raise ValueError(f"a contact sheet needs at least one image and one column, got {len(images)} images, {columns} columns")
    columns = min(columns, len(images))
    height, width = (max(image.shape[axis] for image in images) + gap for axis in (0, 1))
    sheet = np.full((height * -(-len(images) // columns) + gap, width * columns + gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top = gap + index // columns * height + (height - gap - image.shape[0]) // 2
        left = gap + index % columns * width + (width - gap - image.shape[1]) // 2
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


class _Canvas:
    """The enlarged image; takes coordinates of the original one."""

    def __init__(self, image: Image, factor: int) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"the image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        self.pixels = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image.copy()
        self.factor = factor
        self.unit = max(1.0, min(self.pixels.shape[:2]) / 448)  # line widths and text grow with the picture
        self._texts: list[_Text] = []

    def box(self, box: NDArray[np.float64], colour: tuple[int, int, int]) -> None:
        corners = _corners(box * self.factor)
        for ink, width in ((_EDGE, 3.0), (colour, 2.0)):
            cv2.polylines(self.pixels, [_fixed(corners)], True, ink, round(width * self.unit), cv2.LINE_AA, _SHIFT)

    def dashed_box(self, box: NDArray[np.float64], colour: tuple[int, int, int]) -> None:
        reach = 2.0 * max(self.pixels.shape)  # a box far outside is cut to what could be seen, or its dashes would be countless
        corners, width = _corners(np.clip(box * self.factor, -reach, reach)), max(1, round(self.unit))
        cv2.polylines(self.pixels, [_fixed(corners)], True, _EDGE, width, cv2.LINE_AA, _SHIFT)
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            _dashes(self.pixels, start, end, 6 * self.unit, colour, width)

    def points(self, r_points: NDArray[np.float64] | None, c_points: NDArray[np.float64] | None) -> None:
        if c_points is not None:
            for point in c_points:
                _diamond(self.pixels, point * self.factor, 4.6 * self.unit, _CLASS_POINT)
        if r_points is not None:
            sides = side_points(len(r_points))
            for index, point in enumerate(r_points):
                _dot(self.pixels, point * self.factor, 3.8 * self.unit, _SIDE if index in sides else _INSIDE)

    def label(self, box: NDArray[np.float64], text: str, colour: tuple[int, int, int]) -> None:
        self._texts.append(_Text(text, float(box[0]) * self.factor, float(box[1]) * self.factor, (255, 255, 255), colour))

    def finish(self, legend: Sequence[tuple[str, str]]) -> Image:
        pixels = _write_labels(self.pixels, self._texts, round(12 * self.unit))
        return np.concatenate([pixels, _legend(pixels.shape[1], legend, self.unit)]) if legend else pixels


def _array(values: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 and shape[0] <= 0:
        return array.reshape(0, *(max(size, 1) for size in shape[1:]))
    if array.ndim != len(shape) or any(want not in (-1, got) for want, got in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{name} must be of shape {tuple('any' if size < 0 else size for size in shape)}, got {array.shape}")
    return array


def _colour(label: int) -> tuple[int, int, int]:
    return _CLASS_COLOURS[label % len(_CLASS_COLOURS)]


def _class_name(classes: Sequence[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else f"class {label}"


def _corners(box: NDArray[np.float64]) -> NDArray[np.float64]:
    x1, y1, x2, y2 = box
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """OpenCV's fixed-point coordinates; 0 is the edge of the first pixel for us, its centre for OpenCV."""
    return np.round((np.clip(points, -1e4, 1e4) - 0.5) * 2**_SHIFT).astype(np.int32)


def _dashes(
    pixels: Image, start: NDArray[np.float64], end: NDArray[np.float64], dash: float, colour: tuple[int, int, int], width: int
) -> None:
    """A dashed line of ``dash`` pixels on and off; what is under it shows in the gaps."""
    length = float(np.linalg.norm(end - start))
    for along in np.arange(0, length, 2 * dash):
        piece = start + np.array([[along], [min(along + dash, length)]]) / length * (end - start)
        cv2.polylines(pixels, [_fixed(piece)], False, colour, width, cv2.LINE_AA, _SHIFT)


def _dot(pixels: Image, point: NDArray[np.float64], radius: float, colour: tuple[int, int, int]) -> None:
    centre = _fixed(point)
    for ink, size in ((_EDGE, radius + 1.1), (colour, radius)):
        cv2.circle(pixels, (int(centre[0]), int(centre[1])), round(size * 2**_SHIFT), ink, -1, cv2.LINE_AA, _SHIFT)


def _diamond(pixels: Image, point: NDArray[np.float64], radius: float, colour: tuple[int, int, int]) -> None:
    for ink, size in ((_EDGE, radius + 1.4), (colour, radius)):
        corners = point + size * np.array([[0, -1], [1, 0], [0, 1], [-1, 0]])
        cv2.fillPoly(pixels, [_fixed(corners)], ink, cv2.LINE_AA, _SHIFT)


@lru_cache(maxsize=8)
def _font(size: int) -> Any:
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def _write_labels(pixels: Image, texts: Sequence[_Text], size: int) -> Image:
    """Each text on a patch of its box's colour, above the box where there is room, inside it otherwise."""
    from PIL import Image as PilImage
    from PIL import ImageDraw

    picture = PilImage.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    draw, font = ImageDraw.Draw(picture), _font(size)
    for item in texts:
        width, height = draw.textlength(item.text, font=font) + size * 0.5, size * 1.35
        x = min(max(0.0, item.x - 1), max(0.0, picture.width - width))
        y = item.y - height if item.y >= height else max(0.0, item.y)
        if item.back is not None:
            draw.rectangle((x, y, x + width, y + height), fill=item.back[::-1])
        draw.text((x + size * 0.25, y + height / 2), item.text, fill=item.colour[::-1], font=font, anchor="lm")
    return np.asarray(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR), dtype=np.uint8)


def _legend_entries(r_points: bool, c_points: bool, coarse: bool) -> list[tuple[str, str]]:
    entries = [("side", "R-point on a side"), ("inside", "R-point inside")] if r_points else []
    entries += [("class", "C-point")] if c_points else []
    return entries + ([("coarse", "coarse box")] if coarse else [])


def _legend(width: int, entries: Sequence[tuple[str, str]], unit: float) -> Image:
    """A strip as wide as the picture, on as many lines as the entries need."""
    size, step = round(11 * unit), 20 * unit
    places, x, line = [], 10 * unit, 0
    for kind, text in entries:
        needed = 26 * unit + _font(size).getlength(text)
        if x > 10 * unit and x + needed > width:
            x, line = 10 * unit, line + 1
        places.append((kind, text, x, (line + 0.6) * step))
        x += needed
    strip = np.full((round((line + 1.2) * step), width, 3), 245, np.uint8)
    for kind, _, left, middle in places:
        _legend_mark(strip, kind, np.array([left, middle]), unit)
    texts = [_Text(text, left + 9 * unit, middle - size * 1.35 / 2 + size * 1.35, _EDGE, None) for _, text, left, middle in places]
    return _write_labels(strip, texts, size)


def _legend_mark(strip: Image, kind: str, centre: NDArray[np.float64], unit: float) -> None:
    if kind == "coarse":
        ends = centre + np.array([[-8.0, 0.0], [6.0, 0.0]]) * unit
        cv2.polylines(strip, [_fixed(ends)], False, _EDGE, 2 * max(1, round(unit)), cv2.LINE_AA, _SHIFT)
        _dashes(strip, ends[0], ends[1], 3 * unit, _COARSE, max(1, round(unit)))
    elif kind == "class":
        _diamond(strip, centre, 4.6 * unit, _CLASS_POINT)
    else:
        _dot(strip, centre, 3.8 * unit, _SIDE if kind == "side" else _INSIDE)
