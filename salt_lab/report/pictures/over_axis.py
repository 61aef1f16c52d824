"""A study over a numeric axis: AP of each arm above, what it gains over its baseline below."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation

from salt_lab.report.intervals import METHODS
from salt_lab.report.pictures.axis import AxisArm, AxisChange, OverAxis, over_axis_of
from salt_lab.report.style import INK, LETTERS_PER_INCH, QUIET, Look
from salt_lab.report.words import MINUS, SELECTED, signed
from salt_lab.spec.keys import LEAVES

if TYPE_CHECKING:
    from salt_lab.report.rows import Table

#: Points of a printer between what belongs to neighbouring arms at one value, so that neither hides the other.
_APART = 4.5
#: Keeps a number legible where a line passes behind it.
_HALO = [withStroke(linewidth=2, foreground="white")]
#: From this ratio of the largest to the smallest value on (all above 0) the axis is logarithmic.
_LOG_FROM = 16.0
#: Ticks nearer than this share of the axis to their neighbour go without a number.
_CLOSEST = 0.045
#: More lines than this have no room for their legend above the picture.
MOST_ABOVE = 3
#: Letters that a line's own mark in the legend is as wide as.
_MARK_LETTERS = 7


def over_axis(table: Table, ax_or_axes: Axes | Iterable[Axes], key: str | None = None) -> OverAxis:
    """AP of each arm over the values of ``key``: mean as a line, single seeds as small dots; below it the difference to the baseline with its 95 %
    interval and a line at zero.

    A baseline without a value (no SALT has no number of points) is a level line. A cell without a number is left out, and the note under the
    picture says so. Intervals are those of ``table``, as in the forest plot.

    Args:
        table: a study's table, with intervals (:func:`salt_lab.report.intervals.find_intervals`) or without.
        ax_or_axes: two, upper and lower, which should share x; one: AP alone.
        key: the axis, dotted as in the study: a number that changes while nothing else does, as in ``axes`` or ``one_at_a_time: vary``. None = the
            only one that has three values or more.

    Returns:
        The numbers that were drawn.

    Raises:
        UserError: the study has no such axis, or several and ``key`` says not which.
    """
    panels = [ax_or_axes] if isinstance(ax_or_axes, Axes) else list(ax_or_axes)
    found = over_axis_of(table, key)
    for number, arm in enumerate(found.arms):
        _draw_arm(arm, number, panels[0])
    panels[0].set_ylabel("AP (%)")
    _legend(found, panels[0])
    if len(panels) > 1:
        _draw_changes(found, panels[1])
    for ax in panels:
        _scale(found, ax)
    lines = _axis_label(found, panels[-1])
    _note(found, panels[-1], len(panels) > 1, lines)
    return found


def caption_of(found: OverAxis, changes: bool = True) -> str:
    """What is seen, and the note; ``changes``: the lower panel is there."""
    return " ".join([f"AP over {found.key}{', and the difference to the baseline' if changes else ''}.", *note_of(found, changes)])


def note_of(found: OverAxis, changes: bool = True) -> list[str]:
    """What stands under the picture, a sentence a line; ``changes``: the lower panel is there."""
    shown = found.changes if changes else []
    counts = {len(point.seeds) for arm in found.arms for point in arm.points}
    methods = [name for name in (*METHODS, "none") if any(change.method == name for change in shown)]
    lines = [f"Small dots: {f'the {max(counts)}' if len(counts) == 1 else 'single'} seeds."] if max(counts, default=0) > 1 else []
    lines += [_method_text(name, [one for one in shown if one.method == name], len(methods) > 1) for name in methods]
    lines += ["At 0 with an open marker: the baseline itself."] if changes and found.zeros else []
    if any("*" in change.mark for change in shown):
        lines.append(f"* p < 0.05, ** p < 0.01{', Holm over the comparisons' if len(shown) > 1 else ''}.")
    lines += [f"{SELECTED} early stopping chose the seeds by their AP."] if any(SELECTED in one.mark for one in shown) else []
    return lines + found.missing


def _method_text(method: str, changes: Sequence[AxisChange], mixed: bool) -> str:
    where = f" (at {', '.join(f'{value:g}' for value in sorted({change.value for change in changes}))})" if mixed else ""
    if method == "none":
        return f"No interval{where}: one seed, and its images were not resampled."
    return f"95 % interval{where}: {METHODS[method]}."


def _aside(number: int, count: int) -> float:
    """How far to the right of its value the interval of an arm stands, in points; around 0."""
    return (number - (count - 1) / 2) * min(2 * _APART, 36 / count)


def _beside(number: int) -> float:
    """How far to the right of their mean an arm's seeds stand, in points: left, right, farther left, farther right."""
    return (_APART + 0.5 + 3 * (number // 2)) * (1 if number % 2 else -1)


def _plot(ax: Axes, places: Iterable[tuple[float, float]], aside: float, **look: Any) -> None:
    """Moved ``aside`` points to the right of their places, which count for the panel's limits as they are."""
    xs, ys = (list(numbers) for numbers in zip(*places, strict=True))
    figure = ax.get_figure(root=True)
    assert figure is not None
    ax.plot(xs, ys, transform=ax.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans), **look)
    ax.update_datalim(list(zip(xs, ys, strict=True)))
    ax.autoscale_view()


def _draw_arm(arm: AxisArm, number: int, ax: Axes) -> None:
    for point in (point for point in arm.points if _is_level(arm)):
        ax.axhline(point.ap, ls=arm.look.dash, color=arm.look.colour, lw=1.2)
        if len(point.seeds) > 1:
            at = 0.99 - 0.012 * number
            ax.plot([at] * len(point.seeds), point.seeds, transform=ax.get_yaxis_transform(), **_dots(arm.look))
    if _is_level(arm):
        return
    ax.plot([point.value for point in arm.points], [point.ap for point in arm.points], **_line(arm.look))
    for point in arm.points:
        if len(point.seeds) > 1:
            _plot(ax, [(point.value, seed) for seed in point.seeds], _beside(number), **_dots(arm.look))


def _is_level(arm: AxisArm) -> bool:
    return any(math.isnan(point.value) for point in arm.points)


def _line(look: Look) -> dict[str, Any]:
    return {"ls": look.dash, "marker": look.marker, "color": look.colour, "mfc": look.fill or look.colour, "mew": 1, "ms": 4.6, "zorder": 3}


def _dots(look: Look) -> dict[str, Any]:
    return {"ls": "", "marker": "o", "color": look.colour, "ms": 2.2, "mew": 0.5, "mfc": look.fill or look.colour, "zorder": 2.5}


def _draw_changes(found: OverAxis, ax: Axes) -> None:
    arms = [arm for arm in found.arms if any(change.arm == arm.name for change in found.changes)]
    ax.axhline(0, color=INK, lw=0.8, zorder=1)
    for number, arm in enumerate(arms):
        changes = [change for change in found.changes if change.arm == arm.name]
        aside = _aside(number, len(arms))
        zeros = [(value, 0.0) for name, value in found.zeros if name == arm.name]
        means = sorted([*((change.value, change.delta) for change in changes), *zeros])
        _plot(ax, means, aside, ls=arm.look.dash, color=arm.look.colour, lw=0.9)
        if zeros:
            _plot(ax, zeros, aside, **_line(arm.look) | {"ls": "", "mfc": "white"})
        for change in changes:
            _draw_change(change, arm.look, aside, ax)
            _write_change(change, aside, len(arms) == 1, ax)
    ax.set_ylabel("SALT's gain (AP points)" if found.salt else "over the baseline (AP points)")
    if not arms:
        ax.text(0.5, 0.6, "no difference yet", transform=ax.transAxes, ha="center", color=QUIET)


def _draw_change(change: AxisChange, look: Look, aside: float, ax: Axes) -> None:
    ends = [(change.value, change.low), (change.value, change.high)]
    if not math.isnan(change.low):
        _plot(ax, ends, aside, color=look.colour, lw=1.3, solid_capstyle="butt")
        _plot(ax, ends, aside, ls="", marker="_", color=look.colour, ms=5, mew=1.1)
    fill = "white" if change.method in ("images", "none") else look.colour
    _plot(ax, [(change.value, change.delta)], aside, **_line(look) | {"ls": "", "mfc": fill})
    if len(change.seeds) > 1:
        _plot(ax, [(change.value, seed) for seed in change.seeds], aside - _APART, **_dots(look))


def _write_change(change: AxisChange, aside: float, alone: bool, ax: Axes) -> None:
    """The number where one arm leaves room for it, else its mark above the interval."""
    look: dict[str, Any] = {"textcoords": "offset points", "color": INK, "fontsize": 6.5, "path_effects": _HALO}
    if alone:
        ax.annotate(MINUS.sub("−", signed(change.delta)) + change.mark, (change.value, change.delta), (aside + 5, 4.5), **look)
    elif change.mark:
        top = change.delta if math.isnan(change.high) else change.high
        ax.annotate(change.mark, (change.value, top), (aside, 0), ha="center", **look)


def _legend(found: OverAxis, ax: Axes) -> None:
    """Above the picture: names side by side where the width holds them, else one below the other; beside it where they are many."""
    named = [arm for arm in found.arms if arm.name]
    above, wide = len(named) <= MOST_ABOVE, _letters(ax)
    in_a_row = sum(len(arm.name) + _MARK_LETTERS for arm in named) <= wide
    labels = [textwrap.fill(arm.name, wide - _MARK_LETTERS) if above else arm.name for arm in named]
    looks = [_line(arm.look) | ({"marker": ""} if _is_level(arm) else {}) for arm in named]
    handles = [Line2D([], [], label=label, **look) for label, look in zip(labels, looks, strict=True)]
    if handles and above:
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.03, 1.0), ncols=len(handles) if in_a_row else 1)
    elif handles:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.03))


def _scale(found: OverAxis, ax: Axes) -> None:
    """Ticks at the values themselves, those that have room with their number; logarithmic where they span a wide range above 0."""
    values = np.unique([point.value for arm in found.arms for point in arm.points if not math.isnan(point.value)])
    if not len(values):
        return
    if values[0] > 0 and values[-1] / values[0] >= _LOG_FROM:
        ax.set_xscale("log")
    place = np.log(values) if ax.get_xscale() == "log" else values
    wide, last, words = max(float(place[-1] - place[0]), 1e-12), -math.inf, []
    for value, at in zip(values, place, strict=True):
        words.append(f"{value:g}" if (at - last) / wide >= _CLOSEST else "")
        last = at if words[-1] else last
    ax.set_xticks(values, words)
    ax.minorticks_off()
    ax.margins(x=0.07)


def _axis_label(found: OverAxis, ax: Axes) -> int:
    """The key and what it means. Returns the number of lines."""
    meaning = textwrap.wrap(LEAVES.get(found.key, ""), _letters(ax))
    ax.set_xlabel("\n".join([found.key, *meaning]))
    return 1 + len(meaning)


def _letters(ax: Axes) -> int:
    figure = ax.get_figure(root=True)
    return max(30, round((figure.get_figwidth() if figure else 4.0) * LETTERS_PER_INCH * 0.85))


def _note(found: OverAxis, ax: Axes, changes: bool, label_lines: int) -> None:
    lines = [line for sentence in note_of(found, changes) for line in textwrap.wrap(sentence, _letters(ax), subsequent_indent="   ")]
    below = -17 - 10 * label_lines
    ax.annotate(
        "\n".join(lines), (0, 0), (0, below), "axes fraction", "offset points", va="top", fontsize=6, color=INK, annotation_clip=False
    )
