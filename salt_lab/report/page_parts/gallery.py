"""The page's gallery: images on which baseline and variant disagree most, boxes drawn as lines over a photo that stands in the page once.

A photo is embedded a single time, however many runs are drawn on it; boxes are lines of an SVG: sharp at any size, a few bytes each.
Which images, and what is shown of a run: :mod:`salt_lab.report.pictures.disagreement`.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from salt_lab.errors import SaltLabError
from salt_lab.report.page_parts.answer import Pair as ComparedPair
from salt_lab.report.words import signed

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.pictures.disagreement import Disagreement
    from salt_lab.report.pictures.pair import Pair
    from salt_lab.report.pictures.side_by_side import Box, SideBySide
    from salt_lab.report.results import StudyResults

Arm = Literal["baseline", "variant"]
#: Images of all comparisons together, and of one at most and at least.
IMAGES, MOST, LEAST = 48, 8, 2
#: Bytes of photos on a page; those that no longer fit are left out, and the page says so.
PHOTO_BYTES = 5_000_000
#: Longest side of an embedded photo, pixels; small pictures are kept without loss.
SIDE, SMALL = 640, 160
#: Letters are as high as this part of the picture's width.
LETTERS = 24
#: With more boxes than this their names appear only when the picture is opened.
CROWD = 7


class Panel(NamedTuple):
    """One run on one image. ``paths``: kind -> outline of all its boxes as SVG path data. ``labels``: text, x, y in pixels of the picture."""

    title: str
    alt: str
    paths: dict[str, str]
    labels: list[tuple[str, float, float]]
    crowded: bool


class Item(NamedTuple):
    """One image. ``photo``: id of its photo in the page, "" where it is not here; ``width``, ``height``: pixels of the original picture."""

    photo: str
    width: float
    height: float
    letters: float
    told: str
    panels: tuple[Panel, Panel]


class Section(NamedTuple):
    """The images of one comparison."""

    title: str
    note: str
    items: list[Item]


@dataclass
class Gallery:
    """``photos``: id -> data URI. ``missing``: why comparisons have no pictures, a line each."""

    sections: list[Section] = field(default_factory=list)
    photos: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    left_out: int = 0

    @property
    def bytes(self) -> int:
        """Length of all photos as they stand in the page."""
        return sum(map(len, self.photos.values()))


def gallery(results: StudyResults, store: Store, pairs: Sequence[ComparedPair], tell: Callable[[str], None] = lambda _: None) -> Gallery:
    """The most disputed images of every comparison that has a seed finished in both arms, with its first such seed."""
    page = Gallery()
    known = [pair for pair in pairs if pair.row.ap_by_seed.keys() & pair.baseline.ap_by_seed.keys()]
    each = max(LEAST, min(MOST, IMAGES // max(1, len(known))))
    for number, pair in enumerate(known[: IMAGES // LEAST], start=1):
        tell(f"gallery: comparison {number} of {len(known)}")
        seed = min(pair.row.ap_by_seed.keys() & pair.baseline.ap_by_seed.keys())
        try:
            loaded = _load(results, store, pair, seed)
        except SaltLabError as error:
            page.missing.append(f"{pair.name}, seed {seed}: {error}")
            continue
        page.sections.append(_section(page, pair, seed, loaded, each))
    if len(known) > IMAGES // LEAST:
        page.missing.append(f"{len(known) - IMAGES // LEAST} more comparisons are left out: a page has room for {IMAGES // LEAST}")
    return page


def _load(results: StudyResults, store: Store, pair: ComparedPair, seed: int) -> Pair:
    from salt_lab.report.pictures.pair import load_pair

    variant, baseline = (
        next(str(row["trial_id"]) for row in results.rows_of(cell.key) if row["seed"] == seed and row["state"] == "done")
        for cell in (pair.row, pair.baseline)
    )
    return load_pair(results, store, variant, baseline, (pair.against, pair.name))


def _section(page: Gallery, pair: ComparedPair, seed: int, loaded: Pair, each: int) -> Section:
    from salt_lab.report.pictures.disagreement import disagreements

    ranked = disagreements(loaded.variant.matches, loaded.baseline.matches)
    disputed = [one for one in ranked if one.total > 0][:each]
    better, worse = (sum(sign * (one.gain - one.alarms) > 0 for one in ranked) for sign in (1, -1))
    alike = len(ranked) - better - worse
    note = f"Seed {seed}. Of {len(ranked)} images {better} are better with {loaded.variant.name}, {worse} worse, {alike} alike."
    return Section(f"{pair.name} against {pair.against}", note, [_item(page, loaded, one) for one in disputed])


def _item(page: Gallery, pair: Pair, one: Disagreement) -> Item:
    from salt_lab.report.pictures.side_by_side import side_by_side

    drawn, (width, height) = side_by_side(pair, one.image_id), pair.size(one.image_id)
    panels = (_panel(pair, drawn, "baseline", (width, height)), _panel(pair, drawn, "variant", (width, height)))
    verdict = "better" if one.gain - one.alarms > 0 else "worse" if one.gain - one.alarms < 0 else "as good"
    told = (
        f"Image {one.image_id}: {verdict} with {pair.variant.name}. Disagreement {one.total:.1f}: objects {_true(one.gain)}, "
        f"false alarms {_true(one.alarms)}."
    )
    return Item(_photo(page, pair, one.image_id), width, height, width / LETTERS, told, panels)


def _panel(pair: Pair, drawn: SideBySide, arm: Arm, size: tuple[float, float]) -> Panel:
    boxes: list[Box] = getattr(drawn, arm)
    run = getattr(pair, arm)
    right, wrong, missed = drawn.counts(arm)
    alt = f"Image {drawn.image_id}, {run.name}: {right} of {len(drawn.objects)} objects found, {missed} missed, {wrong} false alarms."
    paths: dict[str, str] = {}
    for box in boxes:
        paths[box.kind] = paths.get(box.kind, "") + f"M{box.x:.1f} {box.y:.1f}h{box.width:.1f}v{box.height:.1f}h{-box.width:.1f}z"
    labels = _labels(pair, [box for box in boxes if box.kind != "missed"], size)
    title = f"{arm}: {right}/{len(drawn.objects)}, {wrong} false"
    return Panel(title, alt, paths, labels, len(labels) > CROWD)


def _labels(pair: Pair, boxes: Sequence[Box], size: tuple[float, float]) -> list[tuple[str, float, float]]:
    """Over a right box, under a wrong one, each moved down until it covers none before it."""
    letters = size[0] / LETTERS
    placed: list[tuple[str, float, float]] = []
    for box in boxes:
        words = f"{pair.truth.category_names[box.label]} {box.score:.2f}"
        x, y = max(0.0, box.x), box.y - 0.2 * letters if box.kind == "right" else box.y + box.height + letters
        y = min(max(letters, y), size[1] - 0.2 * letters)
        while any(abs(y - other_y) < 0.9 * letters and abs(x - other_x) < 5 * letters for _, other_x, other_y in placed):
            y += letters
        placed.append((words, x, y))
    return placed


def _photo(page: Gallery, pair: Pair, image_id: int) -> str:
    """The photo's id in the page, put there where it is not yet; "" where it is not on this machine or the page has no more room."""
    at = pair.truth.image_ids_I.searchsorted(image_id)
    told = f"{pair.truth.name} {pair.truth.file_names[at]}"
    name = f"photo-{hashlib.sha256(told.encode()).hexdigest()[:10]}"
    if name in page.photos:
        return name
    data = _encoded(pair, image_id)
    if data is None:
        return ""
    if page.bytes + len(data) > PHOTO_BYTES:
        page.left_out += 1
        return ""
    page.photos[name] = data
    return name


def _encoded(pair: Pair, image_id: int) -> str | None:
    from PIL import Image

    pixels = pair.picture(image_id)
    if pixels is None:
        return None
    image = Image.fromarray(pixels)
    small = max(image.size) <= SMALL
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=small, quality=72, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _true(value: float) -> str:
    return signed(value).replace("-", "−")
