"""Learning curves with a band over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.ticker import MaxNLocator

from salt_lab.report.pictures.cells import cell_names, left_over, looks
from salt_lab.report.rows import spread
from salt_lab.report.style import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults
    from salt_lab.spec.study import Cell


class Curve(NamedTuple):
    """One line of :func:`learning_curves`: AP (percent) at ``epochs``, mean, lowest and highest over ``n`` seeds."""

    name: str
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int


def learning_curves(results: StudyResults, store: Store, ax: Axes) -> list[Curve]:
    """AP by epoch of every cell with a finished trial: mean line, and a band from the lowest to the highest seed.

    Only finished trials are drawn (none that early stopping ended), at the epochs that all of a cell's finished seeds evaluated. A baseline is
    dashed with open markers; the cells compared with it are solid, in its colour.
    """
    cells = results.study.cells
    called = cell_names(cells)
    drawn = [
        (curve, style)
        for cell, style in zip(cells, looks(cells), strict=True)
        if (curve := _curve(cell, called[cell.key], results, store)).epochs
    ]
    curves = [curve for curve, _ in drawn]
    same = len({curve.n for curve in curves}) <= 1
    for curve, style in drawn:
        _draw_curve(curve, style, curve.name if same else f"{curve.name} ({curve.n})", ax)
    ax.set_xlabel("epoch")
    ax.set_ylabel(_ap_label(curves, same))
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if curves:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03))
    return curves


def _ap_label(curves: Sequence[Curve], same: bool) -> str:
    if all(curve.n == 1 for curve in curves):
        return "AP (%)"
    return f"AP (%), mean and range of {curves[0].n} seeds" if same else "AP (%), mean and range of (n) seeds"


def _curve(cell: Cell, name: str, results: StudyResults, store: Store) -> Curve:
    trials = results.trials_of(cell.key)
    evals = [store.record(identity).evals for identity in trials.loc[trials["state"] == "done", "trial_id"]]
    by_seed = [{epoch: ap for epoch, line in seed.items() if (ap := _ap(line)) is not None} for seed in evals]
    epochs = sorted(set.intersection(*(set(seed) for seed in by_seed))) if by_seed else []
    values = [[seed[epoch] for seed in by_seed] for epoch in epochs]
    means, lows, highs = (tuple(float(of(value)) for value in values) for of in (lambda v: spread(v).mean, min, max))
    chosen = bool(by_seed) and "stopped" in set(trials["state"])
    name += left_over(len(by_seed), len(trials)) if chosen else ""
    return Curve(name, tuple(epochs), means, lows, highs, len(by_seed))


def _ap(line: Mapping[str, Any]) -> float | None:
    value = line["metrics"].get("AP")
    return None if value is None else float(value)


def _draw_curve(curve: Curve, style: Look, name: str, ax: Axes) -> None:
    every = max(1, len(curve.epochs) // 8)
    marks: dict[str, Any] = {
        "marker": style.marker,
        "mfc": style.fill or style.colour,
        "mew": 0.8,
        "ms": 3.6,
        "markevery": (every - 1, every),
    }
    ax.plot(curve.epochs, curve.mean, ls=style.dash, color=style.colour, label=name, **marks)
    if curve.n > 1:
        ax.fill_between(curve.epochs, curve.low, curve.high, color=style.colour, alpha=0.15, lw=0)
