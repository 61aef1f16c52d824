"""Where the operator's points fall: on the object's sides, inside or outside; and how near its class mark, where that is known.

Arrays in, named numbers out. Shape legend: P positive locations, K points, B bins. Boxes are x1 y1 x2 y2, points x, y; lengths are pixels of
the original picture. All definitions here are ours: the paper shows points in pictures only **(ours)**.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from salt_lab.evaluate.matching import AREAS
from salt_lab.evaluate.probe_data import Probe

#: How far from a side a point may lie to be on it, as a part of the object's extent across that side.
TOLERANCE = 0.1
#: A side of the coarse box at less than this from its location counts as at zero, cells.
ZERO = 1e-3
#: Offsets of a 3 x 3 convolution's taps, cells.
_GRID = np.array([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)], dtype=np.float64)


class Places(NamedTuple):
    """Where points fall. The three shares sum to 1; NaN where there is no point."""

    on_sides: float  #: share of points on one of the object's sides
    inside: float  #: share further inside
    outside: float  #: share further outside
    touched: float  #: of an object's four sides those that have a point on them, mean over locations, 0..4
    locations: int  #: locations with points


class HeatMap(NamedTuple):
    """How often each part of an object, and of what is around it, is looked at."""

    share_BB: np.ndarray  #: share of all points in each bin, rows from the top, columns from the left
    edges: np.ndarray  #: (B + 1,) bounds of the bins in object coordinates, the same for both axes
    left_out: float  #: share of points beyond the bins
    points: int  #: how many there were


class CoarseSides(NamedTuple):
    """Does the coarse box go with the object, or is it much the same everywhere? From its four distances in cells. NaN where there is none."""

    spread: (
        float  #: their standard deviation over locations, of that of the object's own: mean over the sides. 1: as objects do; 0: one box
    )
    at_zero: float  #: of the four sides those at zero, mean over locations, 0..4: behind a rectifier such a side learns nothing
    locations: int  #: locations with a coarse box


class Distances(NamedTuple):
    """From an object's class mark to some points, in units of the object's size (the square root of its box's area).

    Means over objects, each of which is the mean over its locations. NaN where there are no such points.
    """

    nearest: float  #: nearest of a location's points
    median: float  #: median of a location's points; unlike the mean it does not mind a few that run away
    mean: float  #: mean of a location's points


class MarkDistances(NamedTuple):
    """How far from an object's class mark its locations look."""

    cls: Distances  #: C-points
    reg: Distances  #: R-points
    grid: Distances  #: taps of a 3 x 3 convolution at the location: what a detector without SALT looks at
    cell: float  #: the location itself
    objects: int  #: objects with a mark


def in_object(points_PK2: np.ndarray, box_P4: np.ndarray) -> np.ndarray:
    """Points in object coordinates, ``(P, K, 2)``: 0, 0 is the box's upper left corner and 1, 1 its lower right. NaN for a box without extent."""
    corner_P12, size_P12 = box_P4[:, None, :2].astype(np.float64), (box_P4[:, 2:] - box_P4[:, :2])[:, None].astype(np.float64)
    return np.divide(points_PK2 - corner_P12, size_P12, out=np.full(points_PK2.shape, np.nan), where=size_P12 > 0)


def places(points_PK2: np.ndarray, box_P4: np.ndarray, tolerance: float = TOLERANCE) -> Places:
    """Where points fall relative to their objects.

    A point is on a side when it lies within ``tolerance`` of it, outside or inside: measured across the side in units of the object's extent
    in that direction, and no further than that beyond the side's ends. Within the tolerance of two sides it is on both.

    Args:
        points_PK2: R- or C-points. Locations whose points are NaN (on levels without the operator) do not count.
        box_P4: the objects' boxes.
        tolerance: 0 to 0.5.
    """
    found_PK2 = in_object(points_PK2, box_P4)
    found_PK2 = found_PK2[np.isfinite(found_PK2).all(axis=(1, 2))]
    if not found_PK2.size:
        return Places(np.nan, np.nan, np.nan, np.nan, 0)
    near_PK = ((found_PK2 >= -tolerance) & (found_PK2 <= 1 + tolerance)).all(axis=2)
    on_PK4 = near_PK[..., None] & (np.abs(np.concatenate([found_PK2, 1 - found_PK2], axis=2)) <= tolerance)
    on_PK = on_PK4.any(axis=2)
    touched = float(on_PK4.any(axis=1).sum(axis=1).mean())
    return Places(float(on_PK.mean()), float((near_PK & ~on_PK).mean()), float((~near_PK).mean()), touched, len(found_PK2))


def places_by_size(points_PK2: np.ndarray, box_P4: np.ndarray, area_P: np.ndarray, tolerance: float = TOLERANCE) -> dict[str, Places]:
    """:func:`places` of all objects and of small, medium and large ones: keys "all", "s", "m", "l". ``area_P``: annotated areas, COCO's bounds."""
    rows = {size: (area_P >= low) & (area_P <= high) for size, (low, high) in AREAS.items()}
    return {size: places(points_PK2[at], box_P4[at], tolerance) for size, at in rows.items()}


def coarse_sides(probe: Probe) -> CoarseSides:
    """How the coarse box's sides vary. That box is the bounding box of the R-points: four lie on its sides, the others inside (design, step 4)."""
    known = np.isfinite(probe.reg_points_PK2).all(axis=(1, 2)) & (probe.reg_points_PK2.shape[1] > 0)
    if not known.any():
        return CoarseSides(np.nan, np.nan, 0)
    points_PK2, box_P4 = probe.reg_points_PK2[known].astype(np.float64), probe.object_box_P4[known].astype(np.float64)
    cell_P2, stride_P1 = probe.cell_P2[known].astype(np.float64), probe.stride_P[known].astype(np.float64)[:, None]
    coarse_P4 = np.concatenate([cell_P2 - points_PK2.min(axis=1), points_PK2.max(axis=1) - cell_P2], axis=1) / stride_P1
    object_P4 = np.concatenate([cell_P2 - box_P4[:, :2], box_P4[:, 2:] - cell_P2], axis=1) / stride_P1
    sd_4, theirs_4 = coarse_P4.std(axis=0), object_P4.std(axis=0)
    share_4 = np.divide(sd_4, theirs_4, out=np.full(4, np.nan), where=theirs_4 > 0)
    spread = float(share_4.mean()) if np.isfinite(share_4).all() else np.nan
    return CoarseSides(spread, float((coarse_P4 < ZERO).sum(axis=1).mean()), int(known.sum()))


def heat_map(points_PK2: np.ndarray, box_P4: np.ndarray, bins: int = 32, margin: float = 0.5) -> HeatMap:
    """Points in object coordinates, counted in ``bins`` x ``bins`` squares.

    Args:
        points_PK2, box_P4: as for :func:`places`.
        bins: B >= 1.
        margin: how far around the object is looked, in its own width and height.
    """
    found_M2 = in_object(points_PK2, box_P4).reshape(-1, 2)
    found_M2 = found_M2[np.isfinite(found_M2).all(axis=1)]
    edges = np.linspace(-margin, 1 + margin, bins + 1)
    counts, _, _ = np.histogram2d(found_M2[:, 1], found_M2[:, 0], bins=(edges, edges))
    number = max(1, len(found_M2))
    return HeatMap(counts / number, edges, float((len(found_M2) - counts.sum()) / number), len(found_M2))


def mark_distances(probe: Probe) -> MarkDistances:
    """How near C-points come to the class mark, beside R-points and what a detector without SALT looks at.

    The nearest of many points is nearer than one alone: compare like with like, K points with K points, means with means.
    """
    with_mark = np.isfinite(probe.mark_P2).all(axis=1)
    box_P4, mark_P2 = probe.object_box_P4[with_mark].astype(np.float64), probe.mark_P2[with_mark].astype(np.float64)
    size_P = np.sqrt(np.prod(box_P4[:, 2:] - box_P4[:, :2], axis=1))
    objects, at_P = np.unique(probe.object_P[with_mark], return_inverse=True)
    cell_P12 = probe.cell_P2[with_mark].astype(np.float64)[:, None]
    grid_P92 = cell_P12 + _GRID * probe.stride_P[with_mark, None, None]

    def measure(points_PK2: np.ndarray) -> Distances:
        if not points_PK2.size:
            return Distances(np.nan, np.nan, np.nan)
        apart_PK = np.linalg.norm(points_PK2 - mark_P2[:, None], axis=2) / size_P[:, None]
        nearest, median, mean = (_over_objects(of(apart_PK, axis=1), at_P) for of in (np.min, np.median, np.mean))
        return Distances(nearest, median, mean)

    cls, reg, grid = (measure(points) for points in (probe.cls_points_PK2[with_mark], probe.reg_points_PK2[with_mark], grid_P92))
    return MarkDistances(cls, reg, grid, measure(cell_P12).nearest, len(objects))


def _over_objects(values_P: np.ndarray, at_P: np.ndarray) -> float:
    """Mean over objects of the mean over each one's locations, of which NaN do not count. ``at_P``: which object, from 0."""
    known = np.isfinite(values_P)
    if not known.any():
        return np.nan
    sums, counts = np.bincount(at_P[known], values_P[known]), np.bincount(at_P[known])
    return float((sums[counts > 0] / counts[counts > 0]).mean())
