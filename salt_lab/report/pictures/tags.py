"""Boxes of a drawn image, and where their classes' names find room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

Kind = Literal["object", "right", "wrong", "missed"]


class Box(NamedTuple):
    """A drawn box: x, y, width, height in pixels. ``label``: category's place among the classes. ``score``: NaN for an object."""

    kind: Kind
    x: float
    y: float
    width: float
    height: float
    label: int
    score: float


class Tag(NamedTuple):
    """A class's name on an image: its patch's upper left corner in pixels, the patch's colour, and whether that is dark."""

    words: str
    x: float
    y: float
    width: float
    height: float
    colour: tuple[float, float, float]
    dark: bool


#: Size of the letters, points; and how many of them would fill the width of an image.
TAG = 4.6
_LETTERS, _ROW = 34.0, 15.0


def place_tags(boxes: Sequence[Box], names: Sequence[str], size: tuple[float, float]) -> list[Tag]:
    """A tag for each box, missed ones apart, where it covers no other: above its upper left corner, a wrong one below its lower left corner; inside
    the image. Wrong boxes with one corner share a tag. ``size``: width and height of the image in pixels."""
    placed: list[Tag] = []
    for box, words in _words(boxes, names, size[0] / 16):
        tag = _tag(box, words, size)
        if not any(_overlap(tag, other) for other in placed):
            placed.append(tag)
    return placed


def _words(boxes: Sequence[Box], names: Sequence[str], near: float) -> Iterator[tuple[Box, str]]:
    """Boxes with what is written on them: wrong ones first, the highest score first."""
    wrong = sorted((box for box in boxes if box.kind == "wrong"), key=lambda box: -box.score)
    while wrong:
        first, *others = wrong
        same = [box for box in others if abs(box.x - first.x) < near and abs(box.y + box.height - first.y - first.height) < near]
        yield first, "× " + ", ".join(dict.fromkeys(names[box.label] for box in (first, *same)))
        wrong = [box for box in others if box not in same]
    yield from ((box, names[box.label]) for box in boxes if box.kind in ("object", "right"))


def _tag(box: Box, words: str, size: tuple[float, float]) -> Tag:
    width, height = (len(words) + 0.6) * size[0] / _LETTERS, size[0] / _ROW
    y = box.y + box.height if box.kind == "wrong" else box.y - height
    x, y = (min(max(at, 0.0), max(whole - extent, 0.0)) for at, whole, extent in ((box.x, size[0], width), (y, size[1], height)))
    colour = class_colour(box.label)
    return Tag(words, x, y, width, height, colour, 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 0.55)


def _overlap(one: Tag, other: Tag) -> bool:
    return abs(one.x - other.x) < (one.width if one.x < other.x else other.width) and abs(one.y - other.y) < one.height


def class_colour(label: int) -> tuple[float, float, float]:
    """The colour of a class, the same as in all other pictures; RGB, 0 to 1."""
    from salt_lab.report.ink import class_colour as bgr

    blue, green, red = bgr(label)
    return red / 255, green / 255, blue / 255
