"""A study's figures. Each function takes computed data and an ``ax``, draws, and returns the numbers that it drew."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from salt_lab.report.rows import Row, Table, spread, study_table
from salt_lab.report.style import INK, QUIET, Look, house_style, look
from salt_lab.report.words import SELECTED, series_name, signed
from salt_lab.spec.naming import names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults
    from salt_lab.spec.study import Cell


class Gain(NamedTuple):
    """One line of :func:`gains`: AP (percent) of baseline and variant by seed, their means, and the delta as in the
    table, over the ``pairs`` seeds that both have (NaN: none)."""

    name: str
    baseline: float
    variant: float
    delta: float
    pairs: int
    baseline_seeds: tuple[float, ...]
    variant_seeds: tuple[float, ...]


class Curve(NamedTuple):
    """One line of :func:`learning_curves`: AP (percent) at ``epochs``, mean, lowest and highest over ``n`` seeds."""

    name: str
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int


def gains(table: Table, ax: Axes) -> list[Gain]:
    """A line per compared cell, from the baseline's mean AP (open) to the variant's (filled), a tick per seed, the delta beside it.

    Cells without numbers are left out, so are baselines that nothing is compared with; a study without ``compare`` gets a dot per cell. A cell
    of which early stopping ended some seeds says so in its name.
    """
    drawn = [gain for gain in _gains(table) if not math.isnan(gain.variant)]
    for y, gain in enumerate(drawn):
        _draw_gain(gain, y, ax)
    ax.set_yticks(range(len(drawn)), [gain.name for gain in drawn])
    ax.set_ylim(len(drawn) - 0.4, -0.6)
    ax.set_xlabel("AP (%)")
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    if any(gain.baseline_seeds for gain in drawn):
        _gain_legend(table, ax)
    return drawn


def _gains(table: Table) -> list[Gain]:
    rows = {row.key: row for row in table.rows}
    if not table.compared:
        return [_gain(row, None) for row in table.rows]
    return [_gain(row, rows.get(row.baseline)) for row in table.rows if row.baseline is not None]


def _gain(row: Row, baseline: Row | None) -> Gain:
    nan = float("nan")
    return Gain(
        name=_gain_name(row, baseline),
        baseline=baseline.metrics["AP"].mean if baseline else nan,
        variant=row.metrics["AP"].mean,
        delta=row.delta.mean if row.delta else nan,
        pairs=row.delta.n if row.delta else 0,
        baseline_seeds=tuple(baseline.ap_by_seed.values()) if baseline else (),
        variant_seeds=tuple(row.ap_by_seed.values()),
    )


def _adds_salt(row: Row, baseline: Row | None) -> bool:
    """Is SALT all that the row has over its baseline, and off there?"""
    different = {key for key in row.label if baseline and baseline.label.get(key) != row.label[key]}
    return different == {"salt.enabled"} and bool(row.label["salt.enabled"])


def _gain_name(row: Row, baseline: Row | None) -> str:
    """Where the legend says that the row adds SALT, its name need not. It says where early stopping has left only some of its seeds."""
    if not _adds_salt(row, baseline) or len(row.label) == 1:
        name = series_name(row.label, row.name)
    else:
        label = {key: value for key, value in row.label.items() if key != "salt.enabled"}
        name = row.title or series_name(label, names([label])[0])
    return name + (_left_over(row.done, row.asked) if row.selected else "")


def _left_over(done: int, asked: int) -> str:
    return f" ({done} of {asked} seeds{SELECTED})"


def _draw_gain(gain: Gain, y: int, ax: Axes) -> None:
    if not math.isnan(gain.baseline):
        ax.annotate(
            "",
            (gain.variant, y),
            (gain.baseline, y),
            arrowprops={"arrowstyle": "-", "color": QUIET, "lw": 1.2, "shrinkA": 2.5, "shrinkB": 2.5},
        )
        ax.plot(gain.baseline, y, "o", mfc="white", mec=INK, mew=1, ms=5, zorder=3)
    ax.plot(gain.variant, y, "o", color=look(0).colour, ms=5.4, zorder=3.1)
    for seeds, colour in ((gain.baseline_seeds, INK), (gain.variant_seeds, look(0).colour)):
        if len(seeds) > 1:
            ax.plot(seeds, [y + 0.24] * len(seeds), "|", color=colour, ms=4.5, mew=0.9)
    if not math.isnan(gain.delta):
        fewer = f" ({gain.pairs} seeds)" if gain.pairs < max(len(gain.baseline_seeds), len(gain.variant_seeds)) else ""
        ax.annotate(
            signed(gain.delta) + fewer, (max(gain.baseline, gain.variant), y), (6, 0), textcoords="offset points", va="center", color=INK
        )


def _gain_legend(table: Table, ax: Axes) -> None:
    handles = [
        Line2D([], [], ls="", marker="o", mfc="white", mec=INK, mew=1, ms=5, label="baseline"),
        Line2D([], [], ls="", marker="o", color=look(0).colour, ms=5.4, label=_variant_name(table)),
    ]
    if len(table.seeds) > 1:
        handles.append(Line2D([], [], ls="", marker="|", color=QUIET, ms=5, label="one seed"))
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.03, 1.0), ncols=3, columnspacing=1.0, handletextpad=0.2)


def _variant_name(table: Table) -> str:
    rows = {row.key: row for row in table.rows}
    return "with SALT" if all(_adds_salt(row, rows.get(row.baseline)) for row in table.rows if row.baseline is not None) else "variant"


def learning_curves(results: StudyResults, store: Store, ax: Axes) -> list[Curve]:
    """AP by epoch of every cell with a finished trial: mean line, and a band from the lowest to the highest seed.

    Only finished trials are drawn (none that early stopping ended), at the epochs that all of a cell's finished seeds evaluated. A baseline is
    dashed with open markers; the cells compared with it are solid, in its colour.
    """
    cells = results.study.cells
    drawn = [(curve, style) for cell, style in zip(cells, _looks(cells), strict=True) if (curve := _curve(cell, results, store)).epochs]
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


def _looks(cells: Sequence[Cell]) -> list[Look]:
    """A baseline is dashed with open markers; a cell that is alone in being compared with it has its colour and marker, solid and filled."""
    variants = Counter(cell.baseline for cell in cells if cell.baseline is not None)
    number: dict[str, int] = {}
    looks = []
    for cell in cells:
        pair = cell.baseline if cell.baseline is not None and variants[cell.baseline] == 1 else None
        style = look(number.setdefault(pair or cell.key, len(number)))
        if cell.key in variants:
            style = style._replace(dash=(0, (3.2, 1.4)), fill="white")
        looks.append(style._replace(dash="-") if pair else style)
    return looks


def _curve(cell: Cell, results: StudyResults, store: Store) -> Curve:
    trials = results.trials_of(cell.key)
    evals = [store.record(identity).evals for identity in trials.loc[trials["state"] == "done", "trial_id"]]
    by_seed = [{epoch: ap for epoch, line in seed.items() if (ap := _ap(line)) is not None} for seed in evals]
    epochs = sorted(set.intersection(*(set(seed) for seed in by_seed))) if by_seed else []
    values = [[seed[epoch] for seed in by_seed] for epoch in epochs]
    means, lows, highs = (tuple(float(of(value)) for value in values) for of in (lambda v: spread(v).mean, min, max))
    chosen = bool(by_seed) and "stopped" in set(trials["state"])
    name = series_name(cell.label, cell.name) + (_left_over(len(by_seed), len(trials)) if chosen else "")
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


def save_figures(results: StudyResults, store: Store, folder: Path) -> list[Path]:
    """Write ``gains`` and ``learning_curves`` as PNG and PDF into ``folder``; nothing for a figure that would be empty. Returns the
    files, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    table = study_table(results)
    shown = [gain for gain in _gains(table) if not math.isnan(gain.variant)]
    letters = max((len(gain.name) for gain in shown), default=0)
    with house_style():
        figures = {
            "gains": (_figure(2.7 + 0.06 * letters, 0.75 + 0.3 * max(len(shown), 2)), lambda ax: gains(table, ax)),
            "learning_curves": (
                _figure(3.9 + 0.06 * letters, max(2.3, 0.4 + 0.14 * len(table.rows))),
                lambda ax: learning_curves(results, store, ax),
            ),
        }
        return [path for name, (figure, draw) in figures.items() if draw(figure.add_subplot()) for path in _save(figure, folder / name)]


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".pdf")]
    for path in paths:
        figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else {"CreationDate": None})
    return paths
