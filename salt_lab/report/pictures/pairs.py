"""The pictures of a comparison's two runs: score against IoU, points, disagreement. They need detections and probes, not records alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from salt_lab.evaluate.probe_data import PROBE, Probe, load_probe
from salt_lab.report.matches import Found, matches_of
from salt_lab.report.pictures.clouds import Cloud, score_iou_cloud
from salt_lab.report.pictures.pair import load_pair
from salt_lab.report.pictures.points import KINDS, SIZES, Heat, point_heat_maps, sizes_of
from salt_lab.report.pictures.side_by_side import SideBySide, disagreement_sheet, sheet_size
from salt_lab.report.pictures.study import MOST_PAIRS, Arms, Draw, Picture, arms_of, new_figure

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.pictures.disagreement import Disagreement
    from salt_lab.report.results import StudyResults
    from salt_lab.report.rows import Table

_BEYOND = f"only the first {MOST_PAIRS} comparisons of a study have these pictures"
_RUNS: tuple[Literal["baseline", "variant"], ...] = ("baseline", "variant")


def pair_pictures(results: StudyResults, store: Store, table: Table) -> Iterator[tuple[str, Draw]]:
    """Three pictures for each comparison, of the first seed that both arms have finished."""
    arms = [(slug, one if at < MOST_PAIRS else _BEYOND) for at, (slug, one) in enumerate(arms_of(results, table))]
    wanted = {identity for _, one in arms if isinstance(one, Arms) for identity in (one.variant, one.baseline)}
    found = matches_of(results, store, only=wanted)
    for slug, one in arms:
        if isinstance(one, str):
            for kind in ("score_iou", "points", "disagreement"):
                yield f"{kind}_{slug}", lambda why=one: why  # type: ignore[misc]
            continue
        yield f"score_iou_{slug}", lambda one=one, slug=slug: _cloud(f"score_iou_{slug}", one, found, store)  # type: ignore[misc]
        yield f"points_{slug}", lambda one=one, slug=slug: _points(f"points_{slug}", one, store)  # type: ignore[misc]
        yield f"disagreement_{slug}", lambda one=one, slug=slug: _sheet(f"disagreement_{slug}", one, found, results, store)  # type: ignore[misc]


def _cloud(name: str, arms: Arms, found: Found, store: Store) -> Picture | str:
    """Of the positive locations where both runs have a probe, else of the detections."""
    probes = [_probe(store, identity) for identity in (arms.variant, arms.baseline)]
    if any(isinstance(probe, str) for probe in probes):
        sources = [found.matches(identity) for identity in (arms.variant, arms.baseline)]
        if why := found.why_not_paired(arms.variant, arms.baseline):
            return f"{next(probe for probe in probes if isinstance(probe, str))}; {why}"
    else:
        sources = probes  # type: ignore[assignment]
    figure = new_figure(5.6, 2.75)
    variant, baseline = sources
    drawn = score_iou_cloud(variant, baseline, figure.subplots(1, 2, sharey=True), arms.names)  # type: ignore[arg-type]
    caption = (
        f"Class score against IoU, {drawn[0].source} of seed {arms.seed}. The darker the more frequent; line: median IoU by score; "
        "ρ: Spearman's rank correlation, mean over classes."
    )
    return Picture(name, f"Do scores rank boxes as IoU does? {arms.names[1]}", caption, "; ".join(map(_cloud_words, drawn)), figure, drawn)


def _cloud_words(cloud: Cloud) -> str:
    return f"{cloud.name}: Spearman's rho of score and IoU {cloud.spearman:.2f} over {len(cloud.score_N)} {cloud.source}"


def _probe(store: Store, identity: str) -> Probe | str:
    """A trial's probe, or why there is none, without the machine's paths."""
    from salt_lab.errors import StoreError

    path = store.trial_dir(identity) / PROBE
    try:
        probe = load_probe(path)
    except StoreError as error:
        return str(error).replace(str(path), f"trials/{identity}/{PROBE}")
    return probe if len(probe) else f"trials/{identity}/{PROBE}: nothing measured{': ' if probe.note else ''}{probe.note}"


def _points(name: str, arms: Arms, store: Store) -> Picture | str:
    probe = _probe(store, arms.variant)
    if isinstance(probe, str):
        return probe
    if not any(np.isfinite(points).any() for points in (probe.reg_points_PK2, probe.cls_points_PK2)):
        return "the variant has no points"
    columns = len(sizes_of(probe))
    figure = new_figure(0.5 + 1.62 * columns, 4.0)
    drawn = point_heat_maps(probe, figure.subplots(2, columns, squeeze=False))
    caption = (
        f"Where points fall in object coordinates, {arms.names[1]}, seed {arms.seed}; the frame is the object's box. "
        "The darker the more frequent."
    )
    return Picture(name, f"Where SALT looks: {arms.names[1]}", caption, "; ".join(map(_heat_words, drawn)), figure, drawn)


def _heat_words(heat: Heat) -> str:
    return f"{KINDS[heat.which]}, {SIZES[heat.size]}: {100 * heat.left_out:.1f} % of {heat.points} points outside the frame"


def _sheet(name: str, arms: Arms, found: Found, results: StudyResults, store: Store) -> Picture | str:
    pair = load_pair(results, store, arms.variant, arms.baseline, arms.names, found)
    figure = new_figure(*sheet_size(pair))
    drawn = disagreement_sheet(pair, figure)
    if not drawn:
        return "the two runs agree on every image"
    caption = (
        f"The images on which {arms.names[0]} and {arms.names[1]} disagree most, seed {arms.seed}; "
        "each run's boxes from the score of its best F1 on. "
        "Disagreement is in objects: worth of found ones and cost of false alarms."
    )
    return Picture(name, f"Where they disagree most: {arms.names[1]}", caption, "; ".join(map(_pair_words, drawn)), figure, drawn)


def _pair_words(one: tuple[Disagreement, SideBySide]) -> str:
    counts = [f"{run} {right} right, {wrong} wrong, {missed} missed" for run in _RUNS for right, wrong, missed in (one[1].counts(run),)]
    return f"image {one[0].image_id}: {'; '.join(counts)}"
