"""The catalogue of measures that say why a run is good or bad: their names, their units and what is better, in the tables' order.

What is measured how, and which are the lab's own: docs/why.md.
"""

from __future__ import annotations

from typing import NamedTuple

from salt_lab.evaluate.errors_by_type import ErrorsByType


class Measure(NamedTuple):
    """A number of a run. ``better``: +1 the higher the better, -1 the lower, 0 neither; ``scale``: what it is shown times (100: percent)."""

    key: str
    title: str
    digits: int = 1
    better: int = 0
    scale: float = 1.0


class Section(NamedTuple):
    """Measures that stand in one table. ``source``: "detections" or "probe"; ``meaning`` is a sentence for under it.

    ``over``: what a number of all objects, or of a size, is the mean over: "classes", "locations" or "objects".
    """

    key: str
    title: str
    source: str
    measures: tuple[Measure, ...]
    meaning: str
    over: str = "classes"


def _alignment(source: str, long: str) -> tuple[Measure, ...]:
    found = (Measure("detections_found_spearman", "rho, IoU >= 0.5", 3, 1),) if source == "detections" else ()
    return (
        Measure(f"{source}_spearman", "rho", 3, 1),
        Measure(f"{source}_kendall", "tau", 3, 1),
        *found,
        Measure(f"{source}_gap", "IoU gap", 3, -1),
        Measure(f"{source}_gap_share", f"{long} gap > 0.05 (%)", 1, -1, 100),
        Measure(f"{source}_chosen_iou", "IoU highest-scored", 3, 1),
        Measure(f"{source}_best_iou", "IoU best-located", 3, 1),
    )


def _places(kind: str, what: str) -> tuple[Measure, ...]:
    return (
        Measure(f"{kind}_on_sides", f"{what} on sides (%)", 1, 0, 100),
        Measure(f"{kind}_inside", "inside (%)", 1, 0, 100),
        Measure(f"{kind}_outside", "outside (%)", 1, 0, 100),
        Measure(f"{kind}_touched", "sides touched", 2),
    )


SECTIONS = (
    Section(
        "errors",
        "Errors by type (TIDE)",
        "detections",
        (
            Measure("ap50", "AP50", 1, 1),
            *(Measure(f"error_{kind}", kind, 1, -1) for kind in ErrorsByType._fields[1:]),
        ),
        "AP50 points gained when all errors of one kind are put right, each kind by itself: the lower the better.",
    ),
    Section(
        "olrp",
        "oLRP",
        "detections",
        tuple(Measure(key, title, 1, -1) for key, title in (("olrp", "oLRP"), ("olrp_loc", "Loc"), ("olrp_fp", "FP"), ("olrp_fn", "FN"))),
        "Percent at each class's best score threshold: boxes off by (Loc), false alarms (FP), misses (FN): the lower the better.",
    ),
    Section(
        "detections",
        "Score against IoU, detections",
        "detections",
        _alignment("detections", "objects with"),
        "Rank correlation (Spearman rho, Kendall tau-b) of score and IoU over detections of IoU >= 0.1 with an object of their class; IoU of each "
        "object's best-located detection minus that of its highest-scored one.",
    ),
    Section(
        "positives",
        "Score against IoU, positive locations",
        "probe",
        _alignment("positives", "objects with"),
        "The same over the locations that the host's own assigner gives to each val object, before NMS.",
    ),
    Section(
        "refinement",
        "Coarse against refined boxes",
        "probe",
        (
            Measure("coarse_iou", "IoU coarse", 3, 1),
            Measure("refined_iou", "IoU refined", 3, 1),
            Measure("refined_better", "refined better (%)", 1, 0, 100),
            Measure("coarse_spread", "coarse spread", 2),
            Measure("coarse_at_zero", "sides at zero (of 4)", 2, -1),
        ),
        "Over all positive locations, whatever their class; a gated SDR acts on those whose refined box is better. Spread: of the coarse box's sides "
        "over that of the objects'; near 0 it is one box for all. A side at zero learns nothing.",
        "locations",
    ),
    Section(
        "points",
        "Where the points fall",
        "probe",
        (*_places("reg", "R-points"), *_places("cls", "C-points")),
        "Relative to the object's box, a point being on a side within a tenth of the object's extent of it; over all positive locations.",
        "locations",
    ),
    Section(
        "mark",
        "How near the points come to the class mark",
        "probe",
        (
            Measure("mark_cls_nearest", "nearest C-point", 3, -1),
            Measure("mark_reg_nearest", "nearest R-point", 3),
            Measure("mark_grid_nearest", "nearest 3x3 tap", 3),
            Measure("mark_cls_median", "median C-point", 3, -1),
            Measure("mark_reg_median", "median R-point", 3),
            Measure("mark_grid_median", "median 3x3 tap", 3),
        ),
        "Distance in units of the object's size (square root of its box's area), embedded data set only; over objects.",
        "objects",
    ),
)
