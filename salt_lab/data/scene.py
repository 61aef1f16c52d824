"""What is in an embedded image, before a pixel is drawn: where the outlines, their class marks and the distractors lie.

Lengths are pixels, x to the right and y down; pixel ``i`` covers ``[i, i + 1)``. An image of another size shows the same kind of scene
with more pixels; below 112 px the marks keep the size at which they can still be read.

Every draw comes from raw PCG64 bits (numpy promises that stream; it does not promise its distributions) and goes only through
exactly rounded arithmetic (+ - * / sqrt), so that the same seed gives the same scene on any machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from salt_lab.data import shapes
from salt_lab.data.shapes import Array
from salt_lab.spec.trial import EmbeddedData

REFERENCE_SIZE = 112
SHORTEST, LONGEST = 25.0, 70.0  # sides of an object at the reference size
RADIUS = 6.0, 8.5  # of a class mark at the reference size: smaller ones ask for more training (measured numbers: marks.py)
MAX_IOU = 0.1
CONTRAST = 45.0  # least luminance step between the background and anything drawn on it, of 255
GAP = 1.0  # clear pixels between a mark and its outline, at least
TRIES = 60
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Outline:
    """An object's extent: a line of ``width`` px just inside the box ``x, y, w, h``."""

    shape: str
    x: float
    y: float
    w: float
    h: float
    width: float
    colour: Colour

    @property
    def centre(self) -> tuple[float, float]:
        """Of the box: x, y in pixels."""
        return self.x + self.w / 2, self.y + self.h / 2


@dataclass(frozen=True)
class Mark:
    """A class mark, inside the circle of ``radius`` px around ``x, y``."""

    kind: str
    x: float
    y: float
    radius: float
    colour: Colour


@dataclass(frozen=True)
class Thing:
    """An object: outline, class mark, and the furthest place (``rim``) to which the mark can move."""

    outline: Outline
    mark: Mark
    rim: tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """A distractor: a straight line from ``x0, y0`` to ``x1, y1``."""

    x0: float
    y0: float
    x1: float
    y1: float
    width: float
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """One image. ``strays`` are marks that belong to no object: a mark alone is not an object."""

    size: int
    base: Colour
    things: tuple[Thing, ...]
    strokes: tuple[Stroke, ...]
    strays: tuple[Mark, ...]


class Draws:
    """Random numbers of one image, addressed by ``key`` (seed, split, image, purpose)."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float in [low, high)."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def below(self, n: int) -> int:
        """An integer in 0 ... n - 1."""
        return int(self.uniform() * n)

    def direction(self) -> tuple[float, float]:
        """A unit vector, uniform on the circle (by rejection: sine and cosine differ in the last bit between machines)."""
        while True:
            x, y = self.uniform(-1, 1), self.uniform(-1, 1)
            length = math.sqrt(x * x + y * y)
            if 0.1 < length <= 1:
                return x / length, y / length

    def array(self, *shape: int) -> Array:
        """Uniform in [-1, 1)."""
        raw = self._bits.random_raw(math.prod(shape))
        return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1).reshape(shape)


def draw_scene(spec: EmbeddedData, split: int, index: int) -> Scene:
    """Image ``index`` of ``split`` (0 train, 1 val). ``spec.mark_offset`` moves the marks and nothing else."""
    draws = Draws(spec.seed, split, index, 0)
    base = tuple(draws.uniform(60, 195) for _ in range(3))
    assert len(base) == 3
    things: list[Thing] = []
    for _ in range(1 + draws.below(spec.max_objects)):
        candidates = (_candidate(draws, spec, base) for _ in range(TRIES))
        fitting = next((thing for thing in candidates if all(_apart(thing, other) for other in things)), None)
        things += [fitting] if fitting else []
    strokes = tuple(_stroke(draws, spec.image_size, base) for _ in range(draws.below(4)))
    strays = _strays(draws, spec, base, things)
    return Scene(spec.image_size, base, tuple(_move_mark(thing, spec.mark_offset) for thing in things), strokes, strays)


def _scale(image_size: int) -> float:
    return max(image_size / REFERENCE_SIZE, 1.0)


def _candidate(draws: Draws, spec: EmbeddedData, base: Colour) -> Thing:
    """An object somewhere in the image, its mark still at its centre. Sides are skewed towards short: many small objects."""
    scale, shortest = _scale(spec.image_size), SHORTEST * _scale(spec.image_size)
    longest = min(max(LONGEST * spec.image_size / REFERENCE_SIZE, shortest + 4), spec.image_size - 2)
    skew = draws.uniform()
    long_side = shortest + (longest - shortest) * skew * (0.6 + 0.4 * skew)
    short_side = max(long_side * draws.uniform(0.45, 1.0), shortest)
    w, h = (_quarter(side) for side in ((long_side, short_side) if draws.below(2) else (short_side, long_side)))
    x, y = (_quarter(draws.uniform(1, spec.image_size - 1 - side)) for side in (w, h))
    shape = shapes.OUTLINES[draws.below(len(shapes.OUTLINES))]
    outline = Outline(shape, x, y, w, h, scale * draws.uniform(1.5, 2.2), _contrasting(draws, base))
    mark = _mark(draws, spec, base, *outline.centre)
    return Thing(outline, mark, _rim(outline, mark.radius, draws.direction()))


def _mark(draws: Draws, spec: EmbeddedData, base: Colour, x: float, y: float) -> Mark:
    """All classes share the distributions of size and colour, so only the form tells them apart."""
    kind = shapes.MARKS[draws.below(spec.classes)]
    return Mark(kind, x, y, _scale(spec.image_size) * draws.uniform(*RADIUS), _contrasting(draws, base))


def _rim(outline: Outline, radius: float, direction: tuple[float, float]) -> tuple[float, float]:
    """The furthest place in ``direction`` (stretched like the object) where the mark's circle still clears the line."""
    (cx, cy), steps = outline.centre, np.linspace(0.0, 1.0, 129)
    x_S = steps * direction[0] * outline.w / 2
    y_S = steps * direction[1] * outline.h / 2
    reach = radius + GAP
    depth_SD = shapes.outline(
        outline.shape,
        x_S[:, None] + reach * shapes.CIRCLE_D2[:, 0],
        y_S[:, None] + reach * shapes.CIRCLE_D2[:, 1],
        outline.w / 2,
        outline.h / 2,
    )
    blocked_S = (depth_SD > -outline.width).any(axis=1)
    last = max(int(blocked_S.argmax()) - 1, 0) if blocked_S.any() else len(steps) - 1
    return cx + float(x_S[last]), cy + float(y_S[last])


def _move_mark(thing: Thing, offset: float) -> Thing:
    (cx, cy), (rx, ry) = thing.outline.centre, thing.rim
    x, y = _sixtyfourth(cx + offset * (rx - cx)), _sixtyfourth(cy + offset * (ry - cy))
    return replace(thing, mark=replace(thing.mark, x=x, y=y))


def _apart(one: Thing, other: Thing) -> bool:
    """Boxes overlap at most slightly, and neither's mark, wherever ``mark_offset`` puts it, meets the other's box."""
    return _iou(one.outline, other.outline) <= MAX_IOU and not _mark_path_meets(one, other) and not _mark_path_meets(other, one)


def _mark_path_meets(thing: Thing, other: Thing) -> bool:
    steps = (0.0, 0.25, 0.5, 0.75, 1.0)
    return any(_meets(_move_mark(thing, step).mark, other.outline) for step in steps)


def _meets(mark: Mark, box: Outline) -> bool:
    """Does the mark's circle (as a square, with a clear pixel around) touch the box?"""
    room = mark.radius + GAP
    return box.x - room < mark.x < box.x + box.w + room and box.y - room < mark.y < box.y + box.h + room


def _iou(a: Outline, b: Outline) -> float:
    w = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    h = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    overlap = max(w, 0.0) * max(h, 0.0)
    return overlap / (a.w * a.h + b.w * b.h - overlap)


def _stroke(draws: Draws, size: int, base: Colour) -> Stroke:
    x, y, (dx, dy) = draws.uniform(0, size), draws.uniform(0, size), draws.direction()
    length = _scale(size) * draws.uniform(8, 24)
    width = _scale(size) * draws.uniform(1.0, 1.8)
    return Stroke(x, y, x + dx * length, y + dy * length, width, _contrasting(draws, base))


def _strays(draws: Draws, spec: EmbeddedData, base: Colour, things: list[Thing]) -> tuple[Mark, ...]:
    """In every second image one mark outside all objects, where there is room."""
    if draws.below(2):
        return ()
    margin = (RADIUS[1] + GAP) * _scale(spec.image_size)
    for _ in range(TRIES):
        stray = _mark(draws, spec, base, draws.uniform(margin, spec.image_size - margin), draws.uniform(margin, spec.image_size - margin))
        if not any(_meets(stray, thing.outline) for thing in things):
            return (stray,)
    return ()


def _contrasting(draws: Draws, base: Colour) -> Colour:
    """Any hue, at least CONTRAST darker or lighter than the background."""
    light = luminance(base)
    down, up = max(light - CONTRAST, 0.0), max(255 - CONTRAST - light, 0.0)
    pick = draws.uniform(0, down + up)
    target = pick if pick < down else light + CONTRAST + (pick - down)
    tint = [draws.uniform(-60, 60) for _ in range(3)]
    shift = target - luminance((tint[0], tint[1], tint[2]))
    red, green, blue = (min(max(channel + shift, 0.0), 255.0) for channel in tint)
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Rec. 601 luma, 0-255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _quarter(value: float) -> float:
    return math.floor(value * 4 + 0.5) / 4


def _sixtyfourth(value: float) -> float:
    return math.floor(value * 64 + 0.5) / 64
