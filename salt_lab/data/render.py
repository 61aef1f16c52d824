"""Scene to pixels, anti-aliased, with numpy alone (drawing libraries change their pixels between versions)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from salt_lab.data import shapes
from salt_lab.data.scene import Colour, Draws, Mark, Outline, Scene, Stroke
from salt_lab.data.shapes import Array, Pixels

TEXTURE = 18.0  # largest step of the cloudy background, of 255
NOISE = 9.0  # largest step of the pixel noise
CELLS = 7  # clouds per side
Distance = Callable[[Array, Array], Array]


def render(scene: Scene, texture: Draws) -> Pixels:
    """The scene as (size, size, 3) uint8 RGB. Order: background, strokes, outlines, then all marks, so that none is hidden."""
    canvas = background(scene.size, scene.base, texture)
    for stroke in scene.strokes:
        draw_stroke(canvas, stroke)
    for thing in scene.things:
        draw_outline(canvas, thing.outline)
    for mark in (*scene.strays, *(thing.mark for thing in scene.things)):
        draw_mark(canvas, mark)
    noisy = canvas + NOISE * texture.array(scene.size, scene.size, 1)
    return np.floor(np.clip(noisy, 0, 255) + 0.5).astype(np.uint8)


def background(size: int, base: Colour, texture: Draws) -> Array:
    """Soft clouds around ``base``: (size, size, 3) float64 RGB, 0-255."""
    knots = texture.array(CELLS + 1, CELLS + 1, 3) * TEXTURE
    place = (np.arange(size) + 0.5) * CELLS / size
    cell = np.minimum(place.astype(np.int64), CELLS - 1)
    part = place - cell
    rows = knots[cell] * (1 - part)[:, None, None] + knots[cell + 1] * part[:, None, None]
    clouds = rows[:, cell] * (1 - part)[None, :, None] + rows[:, cell + 1] * part[None, :, None]
    canvas: Array = clouds + np.array(base)
    return canvas


def draw_outline(canvas: Array, outline: Outline) -> None:
    """A line of ``outline.width`` px whose outer edge touches the box from inside."""
    (cx, cy), half = outline.centre, outline.width / 2

    def distance(x: Array, y: Array) -> Array:
        return np.abs(shapes.outline(outline.shape, x - cx, y - cy, outline.w / 2, outline.h / 2) + half) - half

    _paint(canvas, (outline.x, outline.y, outline.x + outline.w, outline.y + outline.h), distance, outline.colour)


def draw_mark(canvas: Array, mark: Mark) -> None:
    """A filled class mark."""

    def distance(x: Array, y: Array) -> Array:
        return shapes.mark(mark.kind, x - mark.x, y - mark.y, mark.radius)

    _paint(canvas, (mark.x - mark.radius, mark.y - mark.radius, mark.x + mark.radius, mark.y + mark.radius), distance, mark.colour)


def draw_stroke(canvas: Array, stroke: Stroke) -> None:
    """A line with round ends; what lies outside the canvas is cut off."""

    def distance(x: Array, y: Array) -> Array:
        return shapes.segment(x - stroke.x0, y - stroke.y0, stroke.x1 - stroke.x0, stroke.y1 - stroke.y0) - stroke.width / 2

    (left, right), (top, bottom) = sorted((stroke.x0, stroke.x1)), sorted((stroke.y0, stroke.y1))
    _paint(canvas, (left - stroke.width, top - stroke.width, right + stroke.width, bottom + stroke.width), distance, stroke.colour)


def _paint(canvas: Array, extent: tuple[float, float, float, float], distance: Distance, colour: Colour) -> None:
    """Blend ``colour`` where ``distance`` is negative, with an edge one pixel soft, in the window around ``extent`` (x0, y0, x1, y1)."""
    height, width = canvas.shape[:2]
    x0, y0 = max(math.floor(extent[0]) - 1, 0), max(math.floor(extent[1]) - 1, 0)
    x1, y1 = min(math.ceil(extent[2]) + 1, width), min(math.ceil(extent[3]) + 1, height)
    if x0 >= x1 or y0 >= y1:
        return
    x, y = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
    cover = np.clip(0.5 - distance(x, y), 0.0, 1.0)[..., None]
    window = canvas[y0:y1, x0:x1]
    window += cover * (np.array(colour) - window)
