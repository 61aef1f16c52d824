"""Forest plot: what each variant gains over its baseline, and how sure that is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from salt_lab.report.intervals import METHODS
from salt_lab.report.pictures.cells import adds_salt, arm_names, baselines
from salt_lab.report.style import INK, LETTERS_PER_INCH, QUIET, look
from salt_lab.report.words import MINUS, SELECTED, UNFINISHED, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from salt_lab.report.compare import Comparison
    from salt_lab.report.rows import Row, Table

#: The marker of each method and the sign that stands for it in the note: shapes, so that they can be told apart in grey. Filled: over seeds.
MARKERS = {"seeds and images": ("o", "●"), "seeds": ("s", "■"), "seeds, unpaired": ("^", "▲"), "images": ("o", "○"), "none": ("x", "×")}
_WITHOUT = "no interval: one seed, and its images were not resampled"


class Effect(NamedTuple):
    """One line of :func:`forest`: a cell against its baseline, AP points.

    ``low``, ``high``: 95 % interval, NaN where there is none. ``seeds``: the difference at each common seed. ``done`` of ``asked`` seeds are
    finished in the variant. ``unfinished``: why there is no difference, in words; "" where there is one.
    """

    name: str
    host: str
    delta: float
    low: float
    high: float
    method: str
    mark: str
    seeds: tuple[float, ...]
    done: int
    asked: int
    unfinished: str


def forest(table: Table, ax: Axes) -> list[Effect]:
    """A line per compared cell, those of a host together: its difference to the baseline with the 95 % interval, a tick per seed, a line at zero.

    Intervals are those of ``table`` (made with :func:`salt_lab.report.intervals.find_intervals`); which method each comes from is said by its
    marker and named under the axis. A cell without a difference keeps its line and says what it waits for. Returns nothing, and draws nothing, for
    a study that compares nothing.
    """
    effects = effects_of(table)
    if not effects:
        return effects
    for y, effect in enumerate(effects):
        _draw(effect, y, ax)
    ax.axvline(0, color=INK, lw=0.8, zorder=1)
    _separate_hosts(effects, ax)
    ax.set_yticks(range(len(effects)), [effect.name for effect in effects])
    ax.set_ylim(len(effects) - 0.4, -0.6)
    ax.margins(x=0.08)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"AP points over {'the same detector without SALT' if _all_salt(table) else 'the baseline'}")
    _note(effects, ax)
    return effects


def effects_of(table: Table) -> list[Effect]:
    """The numbers of :func:`forest`, in its order: hosts as they first appear, a host's cells in the study's order."""
    against, called = baselines(table), arm_names(table)
    effects = [_effect(row, against.get(row.key), called[row.key]) for row in table.rows if row.baseline is not None]
    hosts = list(dict.fromkeys(effect.host for effect in effects))
    return sorted(effects, key=lambda effect: hosts.index(effect.host))


def _effect(row: Row, baseline: Row | None, name: str) -> Effect:
    theirs = baseline.ap_by_seed if baseline else {}
    seeds = tuple(row.ap_by_seed[seed] - theirs[seed] for seed in sorted(row.ap_by_seed.keys() & theirs.keys()))
    found: Comparison | None = row.comparison
    alone = row.unpaired  # arms without a common seed have a difference all the same
    delta = alone.delta if alone else row.delta.mean if row.delta and row.delta.n else math.nan
    known = found is not None and found.method != "none"
    return Effect(
        name=name,
        host=str(row.label.get("host", "")),
        delta=delta,
        low=found.low if found and known else math.nan,
        high=found.high if found and known else math.nan,
        method=found.method if found else "none",
        mark=(found.mark if found else "") + (SELECTED if row.delta_selected else ""),
        seeds=seeds,
        done=row.done,
        asked=row.asked,
        unfinished=_waits_for(row, baseline) if math.isnan(delta) else "",
    )


def _waits_for(row: Row, baseline: Row | None) -> str:
    if baseline is None:
        return "no baseline in this study"
    states = [(name, arm) for name, arm in (("", row), ("baseline ", baseline)) if arm.done == 0]
    return ", ".join(f"{name}{arm.state}" for name, arm in states) or "no seed is done in both"


def _all_salt(table: Table) -> bool:
    against = baselines(table)
    return all(adds_salt(row, against.get(row.key)) for row in table.rows if row.baseline is not None)


def _draw(effect: Effect, y: int, ax: Axes) -> None:
    colour = look(0).colour
    if len(effect.seeds) > 1:
        ax.plot(effect.seeds, [y + 0.27] * len(effect.seeds), "|", color=QUIET, ms=4.5, mew=0.9)
    if not math.isnan(effect.low):
        ax.plot((effect.low, effect.high), (y, y), color=colour, lw=1.5, solid_capstyle="butt")
        ax.plot((effect.low, effect.high), (y, y), "|", color=colour, ms=5, mew=1.1)
    if not math.isnan(effect.delta):
        marker = MARKERS[effect.method][0]
        ax.plot(effect.delta, y, marker, color=colour, mfc="white" if effect.method == "images" else colour, ms=5, mew=1.1, zorder=3)
    ax.annotate(
        MINUS.sub("−", effect_text(effect)),
        (1.02, y),
        xycoords=("axes fraction", "data"),
        va="center",
        color=QUIET if effect.unfinished else INK,
        annotation_clip=False,
    )


def effect_text(effect: Effect) -> str:
    """``+2.3 [+1.8, +2.8]*``, with the seeds where some are missing; ``… running`` where there is no difference yet."""
    if effect.unfinished:
        return f"{UNFINISHED} {effect.unfinished}"
    interval = "" if math.isnan(effect.low) else f" [{signed(effect.low)}, {signed(effect.high)}]"
    fewer = f" ({effect.done} of {effect.asked} seeds)" if effect.done < effect.asked and SELECTED not in effect.name else ""
    return signed(effect.delta) + interval + effect.mark + fewer


def _separate_hosts(effects: Sequence[Effect], ax: Axes) -> None:
    """A thin line between hosts where any of them has several cells."""
    if len({effect.host for effect in effects}) == len(effects):
        return
    for y in range(1, len(effects)):
        if effects[y].host != effects[y - 1].host:
            ax.axhline(y - 0.5, color=QUIET, lw=0.4)


def _note(effects: Sequence[Effect], ax: Axes) -> None:
    """Under the axis: what each marker's interval is, what ticks and stars are."""
    figure = ax.get_figure(root=True)
    width = max(30, round((figure.get_figwidth() if figure else 4.0) * LETTERS_PER_INCH * 0.85))
    lines = [line for sentence in note_of(effects) for line in textwrap.wrap(sentence, width, subsequent_indent="   ")]
    ax.annotate(
        "\n".join(lines), (0, 0), (0, -27), "axes fraction", "offset points", va="top", fontsize=6, color=INK, annotation_clip=False
    )


def note_of(effects: Sequence[Effect]) -> list[str]:
    """What stands under the picture, a sentence a line."""
    used = {effect.method for effect in effects if not math.isnan(effect.delta)}
    kinds = [f"{MARKERS[name][1]} 95 % interval: {text}." for name, text in METHODS.items() if name in used]
    kinds += [f"{MARKERS['none'][1]} {_WITHOUT}."] if "none" in used else []
    kinds += ["| one seed."] if any(len(effect.seeds) > 1 for effect in effects) else []
    stars = any("*" in effect.mark for effect in effects)
    chosen = any(SELECTED in effect.mark for effect in effects)
    kinds += [f"* p < 0.05, ** p < 0.01{', Holm over the comparisons' if len(effects) > 1 else ''}."] if stars else []
    return kinds + ([f"{SELECTED} early stopping chose the seeds by their AP."] if chosen else [])
