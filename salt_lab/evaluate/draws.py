"""AP of several runs on the same resamples of the same images: what every interval over images is made of.

Letters: N runs, R resamples, I images, A areas, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from salt_lab.errors import DataError, did_you_mean
from salt_lab.evaluate.resample import image_counts, plan, resampled_ap

if TYPE_CHECKING:
    from salt_lab.evaluate.matching import Matches

Floats = NDArray[np.float64]
#: What can be bootstrapped, and where it stands: area (all, small, medium, large) and IoU thresholds.
METRICS: dict[str, tuple[int, slice]] = {
    "AP": (0, slice(None)),
    "AP50": (0, slice(0, 1)),
    "AP75": (0, slice(5, 6)),
    "APs": (1, slice(None)),
    "APm": (2, slice(None)),
    "APl": (3, slice(None)),
}
RESAMPLES, LEVEL = 1000, 0.95


class Interval(NamedTuple):
    """From ``low`` to ``high``, in AP points; NaN where there is nothing to measure."""

    low: float
    high: float


def draw(
    runs: Sequence[Matches], *, resamples: int, seed: int, metrics: Sequence[str], threads: int | None = None
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Several runs on the same resamples of the same images.

    Returns:
        metric -> (N,) as measured, and metric -> (N, R), of N runs in AP points.

    Raises:
        DataError: as :func:`paired`.
    """
    _check(runs, resamples, metrics)
    areas = sorted({METRICS[name][0] for name in metrics})
    images = len(runs[0].image_ids_I)
    plans = [plan(run, areas) for run in runs]
    as_measured_1I = np.ones((1, images), dtype=np.int32)
    counts = chain([as_measured_1I], image_counts(images, resamples, seed))
    parts = [[resampled_ap(each, weights_RI, threads=threads) for each in plans] for weights_RI in counts]
    ap_NRAT = np.stack([np.concatenate(of_run) for of_run in zip(*parts, strict=True)])
    found_NR = {name: _metric(ap_NRAT, areas, name) for name in metrics}
    return {name: all_R[:, 0] for name, all_R in found_NR.items()}, {name: all_R[:, 1:] for name, all_R in found_NR.items()}


def _metric(ap_NRAT: Floats, areas: Sequence[int], name: str) -> Floats:
    area, thresholds = METRICS[name]
    return np.asarray(ap_NRAT[:, :, areas.index(area), thresholds].mean(axis=-1), dtype=np.float64)


def _check(runs: Sequence[Matches], resamples: int, metrics: Sequence[str]) -> None:
    for name in metrics:
        if name not in METRICS:
            raise DataError(f"metrics: {did_you_mean('metric to bootstrap', name, METRICS)}")
    if resamples < 1:
        raise DataError(f"resamples = {resamples}: draw at least one, better 1,000")
    if not len(runs[0].image_ids_I):
        raise DataError("bootstrap: the ground truth has no image: nothing can be drawn from it")
    for other in runs[1:]:
        if why := same_truth(runs[0], other):
            raise DataError(f"bootstrap: {why}. Only runs on the same images and objects can be compared image by image")


def same_truth(one: Matches, other: Matches) -> str:
    """Why two runs were not measured against the same objects, in words; "" where they were."""
    for name, words in (("image_ids_I", "images"), ("category_ids_C", "classes"), ("obj_image_G", "objects")):
        mine, theirs = getattr(one, name), getattr(other, name)
        if len(mine) != len(theirs):
            return f"the runs were measured against different ground truth: {len(mine)} and {len(theirs)} {words}"
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in _OF_TRUTH)
    return "" if same else "the runs were measured against different ground truth: as many images and objects, but not the same"


_OF_TRUTH = ("image_ids_I", "category_ids_C", "obj_image_G", "obj_category_G", "obj_crowd_G", "obj_area_G")
