"""Baseline against variant: a line per compared cell, in AP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.lines import Line2D

from salt_lab.report.pictures.cells import adds_salt, arm_names
from salt_lab.report.style import INK, QUIET, look
from salt_lab.report.words import MINUS, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from salt_lab.report.rows import Row, Table


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


def gains(table: Table, ax: Axes) -> list[Gain]:
    """A line per compared cell, from the baseline's mean AP (open) to the variant's (filled), a tick per seed, the delta beside it.

    Cells without numbers are left out, so are baselines that nothing is compared with; a study without ``compare`` gets a dot per cell. A cell
    of which early stopping ended some seeds says so in its name.
    """
    drawn = [gain for gain in gains_of(table) if not math.isnan(gain.variant)]
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


def gains_of(table: Table) -> list[Gain]:
    """The numbers of :func:`gains`, cells without any among them."""
    rows, called = {row.key: row for row in table.rows}, arm_names(table)
    if not table.compared:
        return [_gain(row, None, called[row.key]) for row in table.rows]
    return [_gain(row, rows.get(row.baseline), called[row.key]) for row in table.rows if row.baseline is not None]


def _gain(row: Row, baseline: Row | None, name: str) -> Gain:
    nan = float("nan")
    return Gain(
        name=name,
        baseline=baseline.metrics["AP"].mean if baseline else nan,
        variant=row.metrics["AP"].mean,
        delta=row.delta.mean if row.delta else nan,
        pairs=row.delta.n if row.delta else 0,
        baseline_seeds=tuple(baseline.ap_by_seed.values()) if baseline else (),
        variant_seeds=tuple(row.ap_by_seed.values()),
    )


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
            MINUS.sub("−", signed(gain.delta)) + fewer,
            (max(gain.baseline, gain.variant), y),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
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
    return "with SALT" if all(adds_salt(row, rows.get(row.baseline)) for row in table.rows if row.baseline is not None) else "variant"
