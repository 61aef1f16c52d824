"""Where SALT's points fall, in object coordinates: heat maps with the object's outline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle

from salt_lab.evaluate.matching import AREAS
from salt_lab.evaluate.points import heat_map
from salt_lab.evaluate.probe_data import Probe
from salt_lab.report.style import DENSITY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

KINDS = {"reg": "R-points", "cls": "C-points"}
SIZES = {"all": "all objects", "s": "small", "m": "medium", "l": "large"}
#: Bins a side, and how far around the object is shown, in its own width and height.
BINS, MARGIN = 48, 0.5


class Heat(NamedTuple):
    """A heat map: ``share_BB``: of all points those in each bin (rows from the top); ``edges`` of the bins in object coordinates; ``left_out``: share
    of all ``points`` outside the frame; ``locations``: positive locations that the points are of."""

    which: str
    size: str
    share_BB: NDArray[np.float64]
    edges: NDArray[np.float64]
    left_out: float
    points: int
    locations: int


def point_heat_map(probe: Probe, ax: Axes, which: str = "reg", size: str = "all", peak: float | None = None) -> Heat:
    """How often each part of an object and of its surroundings is looked at; 0, 0 is its box's upper left corner and 1, 1 the lower right.

    Args:
        probe: of a run with SALT.
        ax: where to draw.
        which: "reg" (R-points) or "cls" (C-points).
        size: "all", "s", "m", "l": objects of COCO's size classes, by their annotated area.
        peak: share of a bin that is darkest; None = this map's largest.

    Raises:
        ValueError: another kind or size.
    """
    heat = heat_of(probe, which, size)
    low, high = float(heat.edges[0]), float(heat.edges[-1])
    if heat.points:
        top = peak or float(heat.share_BB.max()) or 1.0
        ax.imshow(heat.share_BB, extent=(low, high, high, low), cmap=DENSITY, norm=PowerNorm(0.5, 0, top), interpolation="nearest")
    ax.add_patch(Rectangle((0, 0), 1, 1, fill=False, ec=INK, lw=1))
    ax.set(xlim=(low, high), ylim=(high, low), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    ax.grid(visible=False)
    ax.set_title(_title(heat), loc="left", fontsize=7)
    return heat


def heat_of(probe: Probe, which: str = "reg", size: str = "all") -> Heat:
    """The numbers of :func:`point_heat_map`."""
    if which not in KINDS or size not in AREAS:
        raise ValueError(f"which = {which!r}, size = {size!r}: choose from {', '.join(KINDS)} and {', '.join(AREAS)}")
    low, high = AREAS[size]
    points_PK2 = probe.reg_points_PK2 if which == "reg" else probe.cls_points_PK2
    at_P = (probe.area_P >= low) & (probe.area_P <= high) & np.isfinite(points_PK2).all(axis=(1, 2)) & (points_PK2.shape[1] > 0)
    found = heat_map(points_PK2[at_P], probe.object_box_P4[at_P], bins=BINS, margin=MARGIN)
    return Heat(which, size, found.share_BB, found.edges, found.left_out, found.points, int(at_P.sum()))


def point_heat_maps(probe: Probe, axes: Any) -> list[Heat]:
    """R-points above, C-points below; all objects, then each size class that there is.

    Maps of a kind of point have the scale of the one of all objects.

    ``axes``: an array of axes, two rows and a column for each of :func:`sizes_of`. Returns the maps, row by row.
    """
    heats = []
    for which, row in zip(KINDS, axes, strict=True):
        peak = float(heat_of(probe, which).share_BB.max())
        heats += [point_heat_map(probe, ax, which, size, peak or None) for size, ax in zip(sizes_of(probe), row, strict=True)]
        row[0].set_ylabel(f"{KINDS[which]}\n(heights)")
    for ax in axes[-1]:
        ax.set_xlabel("object widths")
    return heats


def sizes_of(probe: Probe) -> Sequence[str]:
    """Size classes with any points; "all" first. Only "all" where a single class has every object."""
    with_points = [size for size in AREAS if heat_of(probe, "reg", size).points or heat_of(probe, "cls", size).points]
    return with_points if len(with_points) > 2 else with_points[:1]


def _title(heat: Heat) -> str:
    if not heat.points:
        return f"{SIZES[heat.size]}\nno points"
    return f"{SIZES[heat.size]}: {heat.locations:,} locations\n{100 * heat.left_out:.1f} % beyond the view"
