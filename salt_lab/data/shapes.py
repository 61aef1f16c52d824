"""Signed distances of the embedded set's shapes: negative inside, zero on the edge, pixels; arrays of any shape in, the same shape out.

Coordinates are relative to the shape's centre, ``a`` and ``b`` its half width and half height. Only + - * / sqrt, min and max:
these are exactly rounded everywhere, which sine, hypot and power are not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
#: Forms of outlines. All of them touch all four sides of their box.
OUTLINES = ("rectangle", "rounded", "ellipse", "octagon")
#: Class marks in the order of category ids 1, 2, ... All are left-right symmetric, so mirroring an image keeps its classes.
MARKS = ("cross", "disc", "ring", "square", "triangle", "tee")
#: Sixteen unit vectors around the circle, rounded so that they are the same numbers everywhere.
CIRCLE_D2 = np.array([(round(math.cos(i * math.pi / 8), 6), round(math.sin(i * math.pi / 8), 6)) for i in range(16)])
_SQRT3 = math.sqrt(3.0)
_SQRT2 = math.sqrt(2.0)


def outline(shape: str, x: Array, y: Array, a: float, b: float) -> Array:
    """Signed distance to the outer edge of an outline; exact on the edge, first order for the ellipse elsewhere."""
    if shape == "rectangle":
        return box(x, y, a, b)
    if shape == "rounded":
        corner = 0.4 * min(a, b)
        return box(x, y, a - corner, b - corner) - corner
    if shape == "ellipse":
        return _ellipse(x, y, a, b)
    cut = 0.5 * min(a, b)
    octagon: Array = np.maximum(box(x, y, a, b), (np.abs(x) + np.abs(y) - (a + b - cut)) / _SQRT2)
    return octagon


def mark(kind: str, x: Array, y: Array, r: float) -> Array:
    """Signed distance to a class mark's edge; every mark lies in the circle of radius ``r`` around its centre."""
    if kind == "cross":
        return np.minimum(box(x, y, 0.95 * r, 0.26 * r), box(x, y, 0.26 * r, 0.95 * r))
    if kind == "disc":
        return np.sqrt(x * x + y * y) - 0.85 * r
    if kind == "triangle":  # equilateral, point up, all three corners on the circle
        return np.maximum(y, (_SQRT3 * np.abs(x) - y) / 2) - r / 2
    if kind == "square":
        return box(x, y, 0.7 * r, 0.7 * r)
    if kind == "ring":
        return np.abs(np.sqrt(x * x + y * y) - 0.72 * r) - 0.22 * r
    return np.minimum(box(x, y + 0.5 * r, 0.8 * r, 0.24 * r), box(x, y, 0.24 * r, 0.85 * r))


def box(x: Array, y: Array, a: float, b: float) -> Array:
    """Signed distance to an axis-parallel rectangle."""
    dx, dy = np.abs(x) - a, np.abs(y) - b
    out_x, out_y = np.maximum(dx, 0.0), np.maximum(dy, 0.0)
    distance: Array = np.sqrt(out_x * out_x + out_y * out_y) + np.minimum(np.maximum(dx, dy), 0.0)
    return distance


def segment(x: Array, y: Array, dx: float, dy: float) -> Array:
    """Distance to the straight line from (0, 0) to (dx, dy)."""
    along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    off_x, off_y = x - along * dx, y - along * dy
    return np.sqrt(off_x * off_x + off_y * off_y)


def _ellipse(x: Array, y: Array, a: float, b: float) -> Array:
    u, v = x / a, y / b
    level = np.sqrt(u * u + v * v)
    slope = np.sqrt((u / a) * (u / a) + (v / b) * (v / b))
    centre = level < 1e-6
    return np.where(centre, -min(a, b), level * (level - 1) / np.where(centre, 1.0, slope))
