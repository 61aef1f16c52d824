"""Ink for pictures: the colours of classes and points, marks, dashes, hatching and text on BGR pixels. numpy, OpenCV, Pillow; no torch.

Marks differ in shape and lightness, not in hue alone: they can be told apart in grey print and by colour-blind readers.
Coordinates are pixels of the picture that is drawn on, 0 = the left or upper edge of its first pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from salt_lab.report.style import COLOURS

Image = NDArray[np.uint8]  # (H, W, 3), BGR
Colour = tuple[int, int, int]  # blue, green, red
Mark = Literal["side", "inside", "class"]


def _bgr(code: str) -> Colour:
    red, green, blue = (int(code[at : at + 2], 16) for at in (1, 3, 5))
    return blue, green, red


_GREEN, _ORANGE, _YELLOW = "#009E73", "#E69F00", "#F0E442"  # Okabe and Ito's; in grey they are 55, 71 and 90 % light
#: The marks of a point set, coloured as in the paper's figures: R-points on a side, R-points inside, C-points.
MARK_COLOURS: dict[Mark, Colour] = {"side": _bgr(_GREEN), "inside": _bgr(_YELLOW), "class": _bgr(_ORANGE)}
#: One colour per class, repeated after five: the house's colours without those of the points.
_CLASSES = (COLOURS[0], COLOURS[3], COLOURS[1], COLOURS[4], COLOURS[6])
WHITE, PAPER, DARK, GREY = (255, 255, 255), (245, 245, 245), (30, 30, 30), (140, 140, 140)
_SHIFT = 4  # OpenCV draws at 1/16 pixel
_ROW = 1.35  # height of a text's patch / size of its letters


def class_colour(label: int) -> Colour:
    """The colour of a class, the same in every picture."""
    return _bgr(_CLASSES[label % len(_CLASSES)])


def text_on(back: Colour) -> Colour:
    """Black or white, whichever can be read on ``back``."""
    return DARK if float(np.dot(back, (0.114, 0.587, 0.299))) > 140 else WHITE


def polygon(pixels: Image, points: Any, ink: Colour, width: float = 0, closed: bool = True) -> None:
    """A filled polygon (``width`` 0), or its outline of ``width`` pixels."""
    if width:
        cv2.polylines(pixels, [_fixed(points)], closed, ink, max(1, round(width)), cv2.LINE_AA, _SHIFT)
    else:
        cv2.fillPoly(pixels, [_fixed(points)], ink, cv2.LINE_AA, _SHIFT)


def corners(box: Any) -> NDArray[np.float64]:
    """The four corners of ``x1 y1 x2 y2``, clockwise from the upper left."""
    x1, y1, x2, y2 = box
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)


def outline(pixels: Image, box: Any, ink: Colour, unit: float = 1.0) -> None:
    """A box in its colour with a dark edge (a light one around a dark colour), seen on any ground."""
    for colour, width in ((WHITE if max(ink) < 60 else DARK, 3.0), (ink, 2.0)):
        polygon(pixels, corners(box), colour, width * unit)


def dashes(pixels: Image, start: NDArray[np.float64], end: NDArray[np.float64], dash: float, ink: Colour, width: float) -> None:
    """A dashed line of ``dash`` pixels on and off; what is under it shows in the gaps."""
    length = float(np.linalg.norm(end - start))
    for along in np.arange(0, length, 2 * dash):
        piece = start + np.array([[along], [min(along + dash, length)]]) / length * (end - start)
        polygon(pixels, piece, ink, width, closed=False)


def dashed_box(pixels: Image, box: Any, unit: float, ink: Colour = WHITE) -> None:
    """A box in light dashes over a dark line, seen on any ground."""
    reach = 2.0 * max(pixels.shape)  # a box far outside is cut to what could be seen, or its dashes would be countless
    ring = corners(np.clip(box, -reach, reach))
    polygon(pixels, ring, DARK, unit)
    for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        dashes(pixels, start, end, 6 * unit, ink, unit)


def hatch(pixels: Image, box: Any, step: float, ink: Colour, width: float) -> None:
    """Diagonal lines through a box."""
    x1, y1, x2, y2 = (float(value) for value in np.clip(box, 0, [pixels.shape[1], pixels.shape[0]] * 2))
    width_height = (x2 - x1, y2 - y1)
    for shift in np.arange(step, sum(width_height), step).tolist():
        along, down = (min(shift, side) for side in width_height)
        start, end = (x1 + along, y1 + shift - along), (x1 + shift - down, y1 + down)
        polygon(pixels, np.array([start, end]), ink, width, closed=False)


def mark(pixels: Image, kind: Mark, point: Any, unit: float) -> None:
    """One point of a set: a square on a side, a dot inside, a diamond for a C-point; with a dark edge. ``unit`` scales it."""
    at = np.asarray(point, dtype=np.float64)
    for ink, more in ((DARK, 1.2), (MARK_COLOURS[kind], 0.0)):
        if kind == "inside":
            x, y = _fixed(at)
            cv2.circle(pixels, (int(x), int(y)), round((3.6 + more) * unit * 2**_SHIFT), ink, -1, cv2.LINE_AA, _SHIFT)
        elif kind == "side":
            half = (3.4 + more) * unit
            polygon(pixels, corners([*(at - half), *(at + half)]), ink)
        else:
            polygon(pixels, at + (5.0 + 1.3 * more) * unit * np.array([[0, -1], [1, 0], [0, 1], [-1, 0]]), ink)


def _fixed(points: Any) -> NDArray[np.int32]:
    """OpenCV's fixed-point coordinates; 0 is the edge of the first pixel for us, its centre for OpenCV."""
    return np.round((np.clip(points, -1e4, 1e4) - 0.5) * 2**_SHIFT).astype(np.int32)


class Text(NamedTuple):
    """Words whose patch has its upper left corner at ``x, y``, pixels; ``back`` None draws no patch."""

    words: str
    x: float
    y: float
    ink: Colour
    back: Colour | None = None


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def text_size(words: str, size: int) -> tuple[float, float]:
    """Width and height of the patch of ``words`` in letters of ``size`` pixels."""
    return float(_font(size).getlength(words)) + size * 0.5, size * _ROW


def shorten(words: str, size: int, width: float) -> str:
    """``words``, with its middle left out where it is wider than ``width`` pixels."""
    if text_size(words, size)[0] <= width:
        return words
    for keep in range(len(words) - 1, 1, -1):
        short = words[: (keep + 1) // 2] + "…" + words[len(words) - keep // 2 :]
        if text_size(short, size)[0] <= width:
            return short
    return "…"


def write(pixels: Image, texts: Sequence[Text], size: int) -> Image:
    """A copy of ``pixels`` with ``texts`` in letters of ``size`` pixels."""
    if not texts:
        return pixels
    from PIL import Image as PilImage
    from PIL import ImageDraw

    picture = PilImage.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    draw, font = ImageDraw.Draw(picture), _font(size)
    for item in texts:
        width, height = text_size(item.words, size)
        if item.back is not None:
            draw.rectangle((item.x, item.y, item.x + width, item.y + height), fill=item.back[::-1])
        draw.text((item.x + size * 0.25, item.y + height / 2), item.words, fill=item.ink[::-1], font=font, anchor="lm")
    return np.asarray(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR), dtype=np.uint8)


def place_labels(
    labels: Sequence[tuple[str, Any, Colour]],
    size: int,
    within: tuple[int, int],
    room: float = 0.0,
    crowded: Literal["overlap", "leave out"] = "overlap",
) -> list[Text]:
    """Where class labels go: above their box, else inside at its top, else below it; the first place that no earlier label has taken.

    labels: (words, box x1 y1 x2 y2, colour of the box), the most important first. within: width and height of the picture.
    room: pixels left free between a box and a label above or below it.
    crowded: a label without a free place goes to its first place all the same ("overlap"), so that no box is nameless, or is left out.
    """
    placed: list[Text] = []
    taken: list[tuple[float, float, float, float]] = []
    for words, (x1, y1, x2, y2), back in labels:
        width, height = text_size(words, size)
        left, right = _inside(x1 - 1, width, within[0]), _inside(x2 + 1 - width, width, within[0])
        rows = (y1 - room - height, max(0.0, y1), y2 + room, y2 - height)
        rows = tuple(y for y in rows if 0 <= y <= within[1] - height) or (_inside(y1, height, within[1]),)
        spots = [(x, y) for y in rows for x in (left, right)]
        free = [spot for spot in spots if not any(_overlap((*spot, width, height), other) for other in taken)]
        if not free and crowded == "leave out":
            continue
        x, y = (free or spots)[0]
        taken.append((x, y, width, height))
        placed.append(Text(words, x, y, text_on(back), back))
    return placed


def _inside(start: float, extent: float, whole: float) -> float:
    return float(min(max(0.0, start), max(0.0, whole - extent)))


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
