"""All pictures of a study that its records allow, with words for those who do not see them; and why the others are missing."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure

from salt_lab.errors import SaltLabError
from salt_lab.report.intervals import find_intervals
from salt_lab.report.pictures.axis import axis_words, numeric_axes, over_axis_of
from salt_lab.report.pictures.cells import baselines, cell_names
from salt_lab.report.pictures.cost import COSTS, CostPicture, ap_against_cost
from salt_lab.report.pictures.curves import Curve, learning_curves
from salt_lab.report.pictures.forest import Effect, effect_text, effects_of, forest, note_of
from salt_lab.report.pictures.gains import Gain, gains, gains_of
from salt_lab.report.pictures.over_axis import MOST_ABOVE, caption_of, over_axis
from salt_lab.report.rows import Table, study_table
from salt_lab.report.style import house_style
from salt_lab.report.words import signed

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults


#: Comparisons beyond these have no line, and no pictures of their own: a table serves better.
MOST_LINES, MOST_PAIRS = 100, 12


class Picture(NamedTuple):
    """A picture. ``name``: letters, digits and ``_``, fit for a file; ``caption``: what is seen; ``alt``: its numbers in words; ``numbers``: as the
    function that drew it returned them."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    numbers: Any


@dataclass
class Pictures:
    """``made``, in reading order; ``missing``: name -> why it could not be made."""

    made: list[Picture] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> Picture | None:
        """The picture of this name, or None."""
        return next((picture for picture in self.made if picture.name == name), None)


def png(picture: Picture, dpi: int = 200) -> bytes:
    """The picture as a PNG; the same picture gives the same bytes."""
    file = io.BytesIO()
    with house_style():
        picture.figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def jpeg(picture: Picture, dpi: int = 150) -> bytes:
    """The picture as a JPEG: a fifth of the PNG's size where photos are in it."""
    file = io.BytesIO()
    with house_style():
        picture.figure.savefig(file, format="jpeg", dpi=dpi, pil_kwargs={"quality": 85, "optimize": True})
    return file.getvalue()


def study_pictures(results: StudyResults, store: Store, table: Table | None = None, deep: bool = True) -> Pictures:
    """Draw a study.

    Args:
        results, store: its records.
        table: its table, where there is one already; its intervals are those of the forest plot. None = made here.
        deep: also those that need detections, probes and pictures (a second or two per comparison): score against IoU, points, disagreement, and in
            the forest plot intervals over images; of the first MOST_PAIRS comparisons. False = from the records alone.
    """
    table = table or study_table(results, find_intervals(results, store if deep else None))
    pictures = Pictures()
    with house_style():
        for name, draw in _from_records(results, store, table):
            add_picture(pictures, name, draw)
        if deep:
            from salt_lab.report.pictures.pairs import pair_pictures

            for name, draw in pair_pictures(results, store, table):
                add_picture(pictures, name, draw)
    return pictures


#: Draws a picture, or says why it cannot.
Draw = Callable[[], "Picture | str"]


def add_picture(pictures: Pictures, name: str, draw: Draw) -> None:
    """Draw and keep a picture, or the reason why there is none."""
    try:
        found = draw()
    except SaltLabError as error:
        found = str(error)
    if isinstance(found, Picture):
        found.figure.draw_without_rendering()
        found.figure.set_layout_engine("none")  # laid out once: laid out again, things would move by a hair
        pictures.made.append(found)
    else:
        pictures.missing[name] = found


def _from_records(results: StudyResults, store: Store, table: Table) -> Iterator[tuple[str, Draw]]:
    yield "gains", lambda: _gains(table)
    yield "forest", lambda: _forest(table)
    for key in numeric_axes(table):
        yield f"over_{slug(key)}", lambda key=key: _over_axis(table, key)  # type: ignore[misc]
    yield "learning_curves", lambda: _curves(results, store, table)
    for cost in COSTS:
        yield f"ap_against_{cost}", lambda cost=cost: _cost(table, cost)  # type: ignore[misc]


def new_figure(width: float, height: float) -> Figure:
    """Of so many inches, in which nothing overlaps."""
    return Figure(figsize=(width, height), layout="constrained")


def _letters(table: Table) -> int:
    return max((len(gain.name) for gain in gains_of(table)), default=0)


def _gains(table: Table) -> Picture | str:
    shown = [gain for gain in gains_of(table) if not math.isnan(gain.variant)]
    if not shown:
        return "no cell has a finished trial"
    if len(shown) > MOST_LINES:
        return _too_many(len(shown))
    figure = new_figure(2.7 + 0.06 * _letters(table), 0.75 + 0.3 * max(len(shown), 2))
    drawn = gains(table, figure.add_subplot())
    caption = "AP by cell: open, the baseline; filled, the variant; beside it the difference in AP points."
    return Picture("gains", "AP of baseline and variant", caption, "; ".join(map(_gain_words, drawn)), figure, drawn)


def _too_many(lines: int) -> str:
    return f"{lines} lines, and a picture has room for {MOST_LINES}: see the table, or a study of fewer cells"


def _gain_words(gain: Gain) -> str:
    if math.isnan(gain.baseline):
        return f"{gain.name}: AP {gain.variant:.1f}"
    return f"{gain.name}: AP {gain.baseline:.1f} to {gain.variant:.1f}" + ("" if math.isnan(gain.delta) else f" ({signed(gain.delta)})")


def _forest(table: Table) -> Picture | str:
    effects = effects_of(table)
    if not effects:
        return "the study compares nothing"
    if all(effect.unfinished for effect in effects):
        return "no comparison has a seed that is done in both arms"
    if len(effects) > MOST_LINES:
        return _too_many(len(effects))
    figure = new_figure(4.1 + 0.06 * _letters(table), 1.25 + 0.3 * max(len(effects), 2))
    drawn = forest(table, figure.add_subplot())
    caption = f"Difference in AP to the baseline by host. {' '.join(note_of(drawn))}"
    return Picture("forest", "Gain over the baseline, with its interval", caption, "; ".join(map(_effect_words, drawn)), figure, drawn)


def _effect_words(effect: Effect) -> str:
    return f"{effect.name}: {effect_text(effect)}"


def _over_axis(table: Table, key: str) -> Picture | str:
    numbers = over_axis_of(table, key)
    if not any(arm.points for arm in numbers.arms):
        return "no cell on this axis has a finished trial"
    if (arms := len(numbers.arms)) > MOST_PAIRS:
        return f"{arms} arms, and a picture has room for {MOST_PAIRS}: see the table, or a study of fewer cells"
    letters = max(len(arm.name) for arm in numbers.arms) if arms > MOST_ABOVE else 0
    figure = new_figure(5.2 + 0.07 * letters, 4.4 if table.compared else 2.7)
    drawn = over_axis(table, figure.subplots(2, sharex=True) if table.compared else figure.add_subplot(), key)
    return Picture(f"over_{slug(key)}", f"AP over {key}", caption_of(drawn, table.compared), axis_words(drawn), figure, drawn)


def _curves(results: StudyResults, store: Store, table: Table) -> Picture | str:
    if (series := sum(row.done > 0 for row in table.rows)) > MOST_LINES:
        return _too_many(series)
    figure = new_figure(3.9 + 0.06 * _letters(table), max(2.3, 0.4 + 0.14 * len(table.rows)))
    drawn = learning_curves(results, store, figure.add_subplot())
    if not drawn:
        return "no finished trial was evaluated"
    caption = "AP by epoch of finished trials" + (
        ": mean and range over seeds." if any(curve.n > 1 for curve in drawn) else ", one seed each."
    )
    return Picture("learning_curves", "Learning curves", caption, "; ".join(map(_curve_words, drawn)), figure, drawn)


def _curve_words(curve: Curve) -> str:
    return f"{curve.name}: AP {curve.mean[0]:.1f} after epoch {curve.epochs[0]}, {curve.mean[-1]:.1f} after epoch {curve.epochs[-1]}"


def _cost(table: Table, cost: str) -> Picture | str:
    name = f"ap_against_{cost}"
    if (cells := sum(row.done > 0 for row in table.rows)) > MOST_LINES:
        return _too_many(cells)
    figure = new_figure(3.9 + 0.06 * _letters(table), max(2.6, 0.5 + 0.15 * len(table.rows)))
    drawn = ap_against_cost(table, figure.add_subplot(), cost)
    if not drawn.points:
        return "no cell has a finished trial" if not any(row.done for row in table.rows) else f"no record has {cost}"
    caption = f"AP against {COSTS[cost]}: baseline and variant joined; the grey line: cells that no other beats for as little."
    return Picture(name, f"AP against {COSTS[cost]}", caption, _cost_words(drawn), figure, drawn)


def _cost_words(drawn: CostPicture) -> str:
    return "; ".join(f"{point.name}: AP {point.ap:.1f} at {point.cost:.3g}" for point in drawn.points)


class Arms(NamedTuple):
    """A comparison's two runs of one seed, and how pictures call them."""

    key: str
    variant: str
    baseline: str
    names: tuple[str, str]
    seed: int


def arms_of(results: StudyResults, table: Table) -> Iterator[tuple[str, Arms | str]]:
    """For each compared cell its slug, and its runs of the first seed that both arms have finished, or why there is none."""
    trials = {(row.cell, int(row.seed)): str(row.trial_id) for row in results.frame.itertuples()}
    against, called = baselines(table), cell_names(table.rows)
    for row in (row for row in table.rows if row.baseline is not None):
        other = against.get(row.key)
        name = called[row.key]
        common = sorted(row.ap_by_seed.keys() & other.ap_by_seed.keys()) if other else []
        if other is None or not common:
            yield slug(name), "no seed is done in both arms"
            continue
        yield (
            slug(name),
            Arms(row.key, trials[row.key, common[0]], trials[str(row.baseline), common[0]], (called[other.key], name), common[0]),
        )


def slug(name: str) -> str:
    """Letters and digits of a cell's name, joined by ``_``."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())
