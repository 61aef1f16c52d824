"""The study's pictures as the page embeds them: lines as SVG, clouds and heat maps as PNG, each with its numbers as alternative text."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl

from salt_lab.errors import SaltLabError
from salt_lab.report.pictures.pairs import pair_pictures
from salt_lab.report.pictures.study import Picture, png, study_pictures
from salt_lab.report.style import house_style

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults
    from salt_lab.report.rows import Table

#: Of so many comparisons the page shows score against IoU and points; they are two pictures each.
COMPARISONS = 6
#: Pictures of AP against cost: the table beside them has the others.
COSTS = 2
#: How much larger than matplotlib's inches (at 96 pixels) a picture stands on the page, so that its letters are as large as the captions'.
ENLARGED = 1.3
#: From this width on (inches) a picture takes the page's whole width.
BROAD = 6.0


class Shown(NamedTuple):
    """A picture as the page has it; ``src`` is a data URI, ``width`` and ``height`` are CSS pixels."""

    name: str
    title: str
    caption: str
    alt: str
    src: str
    width: int
    height: int
    broad: bool


@dataclass
class Figures:
    """The page's pictures by the section in which they stand; ``missing``: why others could not be made."""

    result: list[Shown] = field(default_factory=list)
    cost: list[Shown] = field(default_factory=list)
    why: list[Shown] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def figures(results: StudyResults, store: Store, table: Table, tell: Callable[[str], None] = lambda _: None) -> Figures:
    """Draw what the records allow."""
    found = Figures()
    drawn = study_pictures(results, store, table, deep=False)
    for picture in drawn.made:
        if picture.name == "gains" and drawn.of("forest"):
            continue  # the forest plot says it with intervals, the table with means
        if not picture.name.startswith("ap_against"):
            found.result.append(_as_svg(picture))
        elif len(found.cost) < COSTS:
            found.cost.append(_as_svg(picture))
    for number, (name, draw) in enumerate(_of_pairs(results, store, table), start=1):
        tell(f"pictures of comparisons: {number}")
        _add(found, name, draw)
    compared = sum(row.baseline is not None for row in table.rows)
    if compared > COMPARISONS:
        found.missing.append(f"Score against IoU and points are shown of the first {COMPARISONS} of {compared} comparisons.")
    return found


def _of_pairs(results: StudyResults, store: Store, table: Table) -> list[tuple[str, Any]]:
    """Score against IoU, and points; the gallery shows where runs disagree."""
    wanted = ((name, draw) for name, draw in pair_pictures(results, store, table) if not name.startswith("disagreement"))
    return [one for _, one in zip(range(2 * COMPARISONS), wanted, strict=False)]


def _add(found: Figures, name: str, draw: Callable[[], Picture | str]) -> None:
    try:
        with house_style():
            picture = draw()
            if isinstance(picture, Picture):
                found.why.append(_as_png(picture))
                return
    except SaltLabError as error:
        picture = str(error)
    what = "Score against IoU" if name.startswith("score_iou") else "Points"
    found.missing.append(f"{what}, {name.partition('_' if what == 'Points' else 'iou_')[2].replace('_', ' ')}: {picture}.")


def _as_svg(picture: Picture) -> Shown:
    if picture.name == "forest" or picture.name.startswith("over_"):  # what follows the first sentence stands in the picture
        picture = picture._replace(caption=f"{picture.caption.partition('. ')[0]}.")
    file = io.BytesIO()
    with house_style(), mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "salt-lab"}):
        picture.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return _shown(picture, "image/svg+xml", file.getvalue(), *_svg_size(file.getvalue()))


def _svg_size(svg: bytes) -> tuple[float, float]:
    """Width and height in inches, from the ``viewBox`` in points."""
    box = svg.partition(b'viewBox="')[2].partition(b'"')[0].split()
    return float(box[2]) / 72, float(box[3]) / 72


def _as_png(picture: Picture) -> Shown:
    return _shown(picture, "image/png", png(picture, 170), *picture.figure.get_size_inches())


def _shown(picture: Picture, kind: str, content: bytes, width: float, height: float) -> Shown:
    src = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    pixels = (round(96 * ENLARGED * width), round(96 * ENLARGED * height))
    return Shown(picture.name, picture.title, picture.caption, picture.alt, src, *pixels, width >= BROAD)
