"""AP against what it costs: is a gain worth its price?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.lines import Line2D

from salt_lab.report.pictures.cells import cell_names, left_over, looks
from salt_lab.report.style import INK, QUIET, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from salt_lab.report.rows import Row, Table

#: Costs that a table knows, and what the axis says.
COSTS = {
    "gflops": "GFLOPs of one image",
    "inference_ms": "inference of one image (ms)",
    "train_minutes": "training time (minutes)",
}


class CostPoint(NamedTuple):
    """A cell: mean AP (percent) over ``n`` seeds with its 95 % t interval (NaN with one), at its cost; ``baseline``: others are compared with it."""

    key: str
    name: str
    cost: float
    ap: float
    low: float
    high: float
    n: int
    baseline: bool


class CostPicture(NamedTuple):
    """What :func:`ap_against_cost` drew. ``pairs``: baseline's and variant's key of each joining line. ``front``: keys of the cells that no other
    beats in AP for at most their cost, by cost."""

    points: list[CostPoint]
    pairs: list[tuple[str, str]]
    front: list[str]


def ap_against_cost(table: Table, ax: Axes, cost: str = "gflops") -> CostPicture:
    """A point per cell that has AP and cost; both arms of a comparison are joined; bars where there are seeds; the Pareto front faint behind.

    Args:
        table: a study's table.
        ax: where to draw.
        cost: "gflops", "inference_ms" or "train_minutes".

    Raises:
        ValueError: another cost.
    """
    if cost not in COSTS:
        raise ValueError(f"cost = {cost!r}: choose one of {', '.join(COSTS)}")
    points = _points(table, cost)
    by_key = {point.key: point for point in points}
    pairs = [(row.baseline, row.key) for row in table.rows if row.baseline in by_key and row.key in by_key]
    found = CostPicture(points, [(str(off), on) for off, on in pairs], pareto_front(points))
    _draw_front([by_key[key] for key in found.front], ax)
    for off, on in found.pairs:
        ax.plot((by_key[off].cost, by_key[on].cost), (by_key[off].ap, by_key[on].ap), color=QUIET, lw=1, zorder=2)
    styles = {row.key: style for row, style in zip(table.rows, looks(table.rows), strict=True)}
    for point in points:
        _draw_point(point, styles[point.key], ax)
    ax.set_xlabel(_cost_label(table, cost))
    ax.set_ylabel("AP (%)")
    ax.margins(0.12)
    _legend(found, styles, ax)
    return found


def _points(table: Table, cost: str) -> list[CostPoint]:
    compared_with, called = {row.baseline for row in table.rows}, cell_names(table.rows)
    points = [_point(row, called[row.key], float(getattr(row, cost)), row.key in compared_with) for row in table.rows]
    return [point for point in points if not (math.isnan(point.ap) or math.isnan(point.cost))]


def _point(row: Row, name: str, cost: float, baseline: bool) -> CostPoint:
    from salt_lab.evaluate.seeds import mean_over_seeds  # takes scipy along, which a table does not need

    mean = mean_over_seeds(list(row.ap_by_seed.values()))
    name += left_over(row.done, row.asked) if row.selected else ""
    if row.done < row.asked and not row.selected:
        name += f" ({row.done} of {row.asked} seeds)"
    return CostPoint(row.key, name, cost, mean.mean, mean.low, mean.high, mean.n, baseline)


def pareto_front(points: Sequence[CostPoint]) -> list[str]:
    """Keys of the points that no other beats: none costs as little or less and has as much AP or more, one of the two strictly."""
    front, best = [], -math.inf
    for point in sorted(points, key=lambda point: (point.cost, -point.ap)):
        if point.ap > best:
            front.append(point.key)
            best = point.ap
    return front


def _draw_front(front: Sequence[CostPoint], ax: Axes) -> None:
    if len(front) > 1:
        ax.plot([p.cost for p in front], [p.ap for p in front], drawstyle="steps-post", color=QUIET, lw=3.5, alpha=0.3, zorder=1)


def _draw_point(point: CostPoint, style: Look, ax: Axes) -> None:
    if not math.isnan(point.low):
        ax.plot((point.cost, point.cost), (point.low, point.high), color=style.colour, lw=0.9, zorder=2.5)
        ax.plot((point.cost, point.cost), (point.low, point.high), "_", color=style.colour, ms=4, mew=0.9, zorder=2.5)
    ax.plot(point.cost, point.ap, **_marker(style), zorder=3)


def _marker(style: Look) -> dict[str, Any]:
    return {"ls": "", "marker": style.marker, "color": style.colour, "mfc": style.fill or style.colour, "mew": 1.1, "ms": 5.2}


def _cost_label(table: Table, cost: str) -> str:
    sizes = sorted({row.input_size for row in table.rows if row.input_size})
    if cost == "train_minutes" or not sizes:
        return COSTS[cost]
    return f"{COSTS[cost]}, {sizes[0]} pixels" if len(sizes) == 1 else f"{COSTS[cost]}, at different input sizes"


def _legend(found: CostPicture, styles: dict[str, Look], ax: Axes) -> None:
    handles = [Line2D([], [], label=point.name, **_marker(styles[point.key])) for point in found.points]
    if len(found.front) > 1:
        handles.append(Line2D([], [], color=QUIET, lw=3.5, alpha=0.3, label="no cell is better\nfor as little"))
    if any(not math.isnan(point.low) for point in found.points):
        handles.append(Line2D([], [], ls="", marker="|", color=INK, ms=6, label="95 % t interval\nover seeds"))
    if handles:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.03), handlelength=1.6)
