"""Detections of two runs on the same image, side by side: ground truth, baseline, variant.

What a box is can be told without colour: right ones are solid, wrong ones dotted with a cross, missed objects dashed. Colour is the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, withStroke

from salt_lab.report.pictures.disagreement import Disagreement, disagreements
from salt_lab.report.pictures.tags import TAG, Box, Kind, Tag, class_colour, place_tags
from salt_lab.report.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from salt_lab.report.pictures.pair import Pair, Run

#: Line style of each kind of box.
LINES: dict[Kind, Any] = {"object": "-", "right": "-", "wrong": (0, (1, 1.1)), "missed": (0, (4, 2.2))}
GROUND = "#b4b4b4"  # where a picture is not here
_SIDE, _GAP = 1.42, 0.12  # inches of a picture; space between two images, in pictures
_MOST_CLASSES = 6  # more are not told apart by colour: the names on the boxes must do


class SideBySide(NamedTuple):
    """One image's boxes as drawn. Objects that do not count (crowds) are left out, and so is a detection of one."""

    image_id: int
    objects: list[Box]
    baseline: list[Box]
    variant: list[Box]

    def counts(self, run: Literal["baseline", "variant"]) -> tuple[int, int, int]:
        """Number of right, wrong and missed boxes of a run."""
        kinds = [box.kind for box in getattr(self, run)]
        return kinds.count("right"), kinds.count("wrong"), kinds.count("missed")


def side_by_side(pair: Pair, image_id: int) -> SideBySide:
    """The boxes of one image: objects, and of each run the detections that it shows (its working point:
    :mod:`~salt_lab.report.pictures.disagreement`), right or wrong at IoU 0.5, and the objects that none of them takes."""
    image = int(np.searchsorted(pair.truth.image_ids_I, image_id))
    at_G = np.flatnonzero((pair.truth.obj_image_G == image) & ~pair.baseline.matches.obj_ignored_AG[0])
    objects = [_box("object", pair.truth.boxes_G4[g], pair.truth.obj_category_G[g]) for g in at_G.tolist()]
    return SideBySide(image_id, objects, _boxes(pair, pair.baseline, image, at_G), _boxes(pair, pair.variant, image, at_G))


def _boxes(pair: Pair, run: Run, image: int, at_G: NDArray[Any]) -> list[Box]:
    of = run.matches
    shown_D = (of.det_image_D == image) & run.judged.shown_D & ~of.det_ignored_ATD[0, 0]
    right_D = of.det_tp_ATD[0, 0]
    found = {int(of.det_object_TD[0, d]) for d in np.flatnonzero(shown_D & right_D)}
    missed = [_box("missed", pair.truth.boxes_G4[g], pair.truth.obj_category_G[g]) for g in at_G.tolist() if g not in found]
    shown = np.flatnonzero(shown_D)
    return missed + [
        _box("right" if right_D[d] else "wrong", run.boxes_D4[d], of.det_category_D[d], float(of.det_score_D[d]))
        for d in shown[np.argsort(of.det_score_D[shown], kind="stable")].tolist()
    ]


def _box(kind: Kind, box: NDArray[np.float64], label: Any, score: float = float("nan")) -> Box:
    x, y, width, height = (float(value) for value in box)
    return Box(kind, x, y, width, height, int(label), score)


def draw_disagreement(pair: Pair, image_id: int, axes: Sequence[Axes]) -> SideBySide:
    """Draw one image three times, on grey where its picture is not here: ground truth, baseline, variant.

    A box's class is written at its upper edge, a wrong one's at its lower edge; where there is no room it is left to the colour.
    ``axes``: three. Returns the boxes that were drawn.
    """
    drawn, picture, (width, height) = side_by_side(pair, image_id), pair.picture(image_id), pair.size(image_id)
    for ax, boxes in zip(axes, (drawn.objects, drawn.baseline, drawn.variant), strict=True):
        if picture is not None:
            ax.imshow(picture, extent=(0, width, height, 0), interpolation="bicubic")
        ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xticks=(), yticks=(), facecolor=GROUND)
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        for box in boxes:
            _draw_box(box, ax)
        for tag in place_tags(boxes, pair.truth.category_names, (width, height)):
            _draw_tag(tag, ax)
    return drawn


def _draw_box(box: Box, ax: Axes) -> None:
    colour = class_colour(box.label)
    thick = 1.0 if box.kind == "wrong" else 1.4
    halo = [withStroke(linewidth=thick + 1.2, foreground="white"), Normal()]
    ax.add_patch(Rectangle(box[1:3], box.width, box.height, fill=False, ec=colour, lw=thick, ls=LINES[box.kind], path_effects=halo))
    if box.kind == "wrong":
        ax.plot(box.x + box.width, box.y, "x", color=colour, ms=4, mew=1.3, path_effects=halo, clip_on=True, zorder=3)


def _draw_tag(tag: Tag, ax: Axes) -> None:
    ink = "white" if tag.dark else INK
    ax.text(
        tag.x,
        tag.y,
        tag.words,
        fontsize=TAG,
        color=ink,
        va="top",
        bbox={"boxstyle": "square,pad=0.08", "fc": tag.colour, "lw": 0},
        zorder=4,
    )


def disagreement_sheet(pair: Pair, figure: Figure, count: int = 6, abreast: int = 2) -> list[tuple[Disagreement, SideBySide]]:
    """The ``count`` images on which the two runs disagree most, ``abreast`` of them beside each other, the most disputed first.

    ``figure``: an empty one; :func:`sheet_size` says how large it should be. Returns what was drawn; nothing where no image is disputed.
    """
    chosen = disputed(pair, count)
    if not chosen:
        return []
    abreast = min(abreast, len(chosen))
    rows = -(-len(chosen) // abreast)
    widths = (([1.0] * 3 + [_GAP]) * abreast)[:-1]
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.035, wspace=0.0, hspace=0.0)
    grid = figure.subplots(rows, 4 * abreast - 1, squeeze=False, gridspec_kw={"width_ratios": widths})
    cells = [list(grid[row, 4 * block : 4 * block + 4]) for row in range(rows) for block in range(abreast)]
    for unused in (ax for place, axes in enumerate(cells) for ax in axes[0 if place >= len(chosen) else 3 :]):
        unused.set_axis_off()
    drawn = [(one, draw_disagreement(pair, one.image_id, axes[:3])) for one, axes in zip(chosen, cells, strict=False)]
    for (one, boxes), axes in zip(drawn, cells, strict=False):
        _titles(pair, one, boxes, axes)
    _key(pair, drawn, figure)
    return drawn


def disputed(pair: Pair, count: int) -> list[Disagreement]:
    """The ``count`` images on which the two runs disagree most; fewer where they agree on the others."""
    return [one for one in disagreements(pair.variant.matches, pair.baseline.matches)[:count] if one.total > 0]


def sheet_size(pair: Pair, count: int = 6, abreast: int = 2) -> tuple[float, float]:
    """Width and height in inches that suit :func:`disagreement_sheet`."""
    chosen = disputed(pair, count)
    abreast = min(abreast, max(1, len(chosen)))
    tallest = max((height / width for width, height in (pair.size(one.image_id) for one in chosen)), default=1.0)
    return (abreast * (3 + _GAP) - _GAP) * _SIDE, -(-len(chosen) // abreast) * (min(tallest, 1.5) * _SIDE + 0.26) + 0.25


def _titles(pair: Pair, one: Disagreement, boxes: SideBySide, axes: Sequence[Axes]) -> None:
    words = [f"ground truth\nimage {one.image_id}: disagree {one.total:.1f}"]
    for run, name in (("baseline", pair.baseline.name), ("variant", pair.variant.name)):
        right, wrong, missed = boxes.counts(run)  # type: ignore[arg-type]
        words.append(f"{name}\n{right} right, {wrong} wrong, {missed} missed")
    for ax, title in zip(axes, words, strict=False):
        ax.set_title(title, loc="left", fontsize=6, pad=2.5)


def _key(pair: Pair, drawn: Sequence[tuple[Disagreement, SideBySide]], figure: Figure) -> None:
    """Line styles, then the classes that occur."""
    names = {"right": "right (IoU 0.5 or more)", "wrong": "wrong", "missed": "missed object"}
    handles = [Line2D([], [], color=INK, lw=1.2, ls=LINES[kind], label=name) for kind, name in names.items()]  # type: ignore[index]
    handles[1].set(marker="x", markersize=4)
    labels = sorted({box.label for _, boxes in drawn for box in (*boxes.objects, *boxes.baseline, *boxes.variant)})
    if len(labels) <= _MOST_CLASSES:
        handles += [Line2D([], [], color=class_colour(label), lw=4, label=pair.truth.category_names[label]) for label in labels]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), columnspacing=1.4)
