"""All measures that say why a run is good or bad, for one run: as a whole, by size and by class. Which there are: why_sections.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np

from salt_lab.evaluate import points
from salt_lab.evaluate.alignment import (
    Candidates,
    IouGap,
    RankCorrelation,
    Refinement,
    detected,
    iou_gap,
    probed,
    rank_correlation,
    refinement,
    select,
)
from salt_lab.evaluate.errors_by_type import ErrorsByType, errors_by_type
from salt_lab.evaluate.olrp import Olrp, olrp
from salt_lab.evaluate.overlaps import Overlaps, of_size
from salt_lab.evaluate.probe_data import Probe

#: COCO's sizes, by the short names of the table's columns.
SIZES = {"s": "small", "m": "medium", "l": "large"}


class Part(NamedTuple):
    """What a number is over. ``kind``: "all", "size" or "class"; ``name``: "", small | medium | large, or the class's name.

    ``within``: of a class the size to which it is confined; such parts are in no table, they stand behind the size's mean over classes.
    """

    kind: str
    name: str = ""
    within: str = ""

    @property
    def text(self) -> str:
        """As a table says it."""
        return self.name or "all"


ALL = Part("all")
Values = dict[str, float]


def measures_of_detections(pairs: Overlaps, names: Mapping[int, str]) -> dict[Part, Values]:
    """All measures of one run's detections. ``names``: category id -> name."""
    found: dict[Part, Values] = {}
    loose, tight = detected(pairs), detected(pairs, 0.5)
    for size in ("all", *SIZES):
        errors, lrp = errors_by_type(pairs, size), olrp(pairs, size)
        each = {c: _OfClass(errors[c], lrp[c], _rank(loose, c, size), _rank(tight, c, size), _gap(loose, c, size)) for c in names}
        by_class = {_part_of_class(names[c], size): _detection_values(one) for c, one in each.items()}
        found |= {_part(size): _mean(by_class.values()), **by_class}
    return found


def measures_of_probe(probe: Probe, names: Mapping[int, str]) -> dict[Part, Values]:
    """All measures of one run's positive locations and points. Classes without positives have NaN."""
    found: dict[Part, Values] = {}
    candidates = probed(probe)
    for size in ("all", *SIZES):
        at_P = of_size(probe.area_P.astype(np.float64), size)
        by_class = {_part_of_class(name, size): _positive_values(candidates, c, size) for c, name in names.items()}
        found |= {_part(size): {**_mean(by_class.values()), **_location_values(_take(probe, at_P))}, **by_class}
    for c, name in names.items():
        found[_part_of_class(name, "all")] |= _location_values(_take(probe, probe.category_P == c))
    return found


def _part(size: str) -> Part:
    return ALL if size == "all" else Part("size", SIZES[size])


def _part_of_class(name: str, size: str) -> Part:
    return Part("class", name, _part(size).name)


def _rank(of: Candidates, category: int, size: str) -> RankCorrelation:
    some = select(of, category, size)
    return rank_correlation(some.score_N, some.iou_N)


def _gap(of: Candidates, category: int, size: str) -> IouGap:
    some = select(of, category, size)
    return iou_gap(some.object_N, some.score_N, some.iou_N)


class _OfClass(NamedTuple):
    """What detections of one class are worth; ``found``: the rank correlation of those of IoU >= 0.5 alone."""

    errors: ErrorsByType
    lrp: Olrp
    rank: RankCorrelation
    found: RankCorrelation
    gap: IouGap


def _detection_values(of: _OfClass) -> Values:
    errors = {f"error_{kind}": value for kind, value in of.errors._asdict().items() if kind != "ap50"}
    lrp = {"olrp": of.lrp.olrp, "olrp_loc": of.lrp.loc, "olrp_fp": of.lrp.fp, "olrp_fn": of.lrp.fn}
    aligned = _alignment_values("detections", of.rank, of.gap)
    return {"ap50": of.errors.ap50, **errors, **lrp, **aligned, "detections_found_spearman": of.found.spearman}


def _alignment_values(source: str, rank: RankCorrelation, gap: IouGap) -> Values:
    values = {"spearman": rank.spearman, "kendall": rank.kendall, "gap": gap.mean, "gap_share": gap.share}
    return {f"{source}_{name}": value for name, value in {**values, "chosen_iou": gap.chosen, "best_iou": gap.best}.items()}


def _positive_values(of: Candidates, category: int, size: str) -> Values:
    return _alignment_values("positives", _rank(of, category, size), _gap(of, category, size))


def _mean(rows: Iterable[Values]) -> Values:
    """Mean over classes; a class without a value does not enter it."""
    listed = list(rows)
    keys = listed[0] if listed else {}
    columns = {key: np.array([row[key] for row in listed]) for key in keys}
    return {key: float(np.nanmean(column)) if np.isfinite(column).any() else float("nan") for key, column in columns.items()}


def _location_values(probe: Probe) -> Values:
    """Coarse against refined boxes and where points fall, over locations, and distances to the class mark, over objects; whatever their class."""
    refined: Refinement = refinement(probe.coarse_iou_P, probe.iou_P)
    values: Values = {"coarse_iou": refined.coarse, "refined_iou": refined.refined, "refined_better": refined.better}
    coarse = points.coarse_sides(probe)
    values |= {"coarse_spread": coarse.spread, "coarse_at_zero": coarse.at_zero}
    for kind, points_PK2 in (("reg", probe.reg_points_PK2), ("cls", probe.cls_points_PK2)):
        found = points.places(points_PK2, probe.object_box_P4)
        values |= {f"{kind}_{name}": getattr(found, name) for name in ("on_sides", "inside", "outside", "touched")}
    near = points.mark_distances(probe)
    for kind, apart in (("cls", near.cls), ("reg", near.reg), ("grid", near.grid)):
        values |= {f"mark_{kind}_nearest": apart.nearest, f"mark_{kind}_median": apart.median}
    return values


def _take(probe: Probe, at_P: np.ndarray) -> Probe:
    """The probe's locations at ``at_P``."""
    arrays = {field.name: getattr(probe, field.name) for field in fields(probe)}
    return replace(probe, **{name: value[at_P] for name, value in arrays.items() if isinstance(value, np.ndarray)})
