"""AP of many resamples of the same images without matching anything again.

What a detection is matched to depends on its own image alone, so a resample only decides how often each image counts: AP of a resample is AP
with weights. An image drawn twice counts twice, as if its picture, objects and detections had been copied; it is never dropped.

Numbers equal pycocotools on truly resampled data (copies get ids of their own and stand next to each other in the order of ids) to rounding:
100 detections, 101 recall points, classes without an object in the resample left out of the mean.

Legend: I images, C categories, D detections, G objects, T IoU thresholds, A areas (all, small, medium, large), R resamples, E events.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from salt_lab.evaluate.matching import Matches

#: COCO's recall levels 0, 0.01, ..., 1, made as pycocotools makes them.
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
#: Resamples that are drawn at once; changes memory, never a number.
CHUNK = 256


@dataclass(frozen=True)
class Plan:
    """One run, laid out for reweighting; made once by :func:`plan`.

    AP needs the running count of detections only where a true positive stands. The count comes from one pass over all detections with the
    mask ``counted_AD`` (not ignored at most IoU thresholds); an *event* is a true positive, or a detection that this mask gets wrong at
    its threshold (``event_fix_E`` +1: counts there, -1: does not). Events are ordered by area, threshold, category and score;
    ``event_start_ATC1`` are the bounds. ``run_*_E``: first and last + 1 detection of the event's *run*, detections of one image and
    class with the same score: where the image counts twice, pycocotools takes the whole run and then the whole run again.
    """

    images: int
    det_image_D: NDArray[np.int32]
    det_start_C1: NDArray[np.int64]
    counted_AD: NDArray[np.bool_]
    obj_image_G: NDArray[np.int32]
    obj_category_G: NDArray[np.int32]
    obj_counted_AG: NDArray[np.bool_]
    event_start_ATC1: NDArray[np.int64]
    event_det_E: NDArray[np.int32]
    event_image_E: NDArray[np.int32]
    event_tp_E: NDArray[np.int8]
    event_fix_E: NDArray[np.int8]
    in_run_E: NDArray[np.bool_]
    run_first_E: NDArray[np.int32]
    run_end_E: NDArray[np.int32]


def plan(matches: Matches, areas: Sequence[int] = (0,)) -> Plan:
    """Lay out ``matches`` for :func:`resampled_ap`, for these of its areas (indices into all, small, medium, large)."""
    chosen = list(areas)
    categories, run_first_D, run_end_D = len(matches.category_ids_C), *_runs(matches)
    ignored_ATD, tp_ATD = matches.det_ignored_ATD[chosen], matches.det_tp_ATD[chosen]
    counted_AD = 2 * ignored_ATD.sum(axis=1) <= ignored_ATD.shape[1]
    fix_ATD = (~ignored_ATD).astype(np.int8) - counted_AD[:, None].astype(np.int8)
    area_E, threshold_E, det_E = np.nonzero(tp_ATD | (fix_ATD != 0))
    block_E = (area_E * ignored_ATD.shape[1] + threshold_E) * categories + matches.det_category_D[det_E]
    bounds = np.searchsorted(block_E, np.arange(ignored_ATD.shape[0] * ignored_ATD.shape[1] * categories + 1))
    inner = bounds[:-1].reshape(ignored_ATD.shape[0], ignored_ATD.shape[1], categories)
    ends = bounds[categories::categories].reshape(inner.shape[:2])[:, :, None]
    return Plan(
        images=len(matches.image_ids_I),
        det_image_D=np.ascontiguousarray(matches.det_image_D, dtype=np.int32),
        det_start_C1=np.searchsorted(matches.det_category_D, np.arange(categories + 1)),
        counted_AD=counted_AD,
        obj_image_G=np.ascontiguousarray(matches.obj_image_G, dtype=np.int32),
        obj_category_G=np.ascontiguousarray(matches.obj_category_G, dtype=np.int32),
        obj_counted_AG=~matches.obj_ignored_AG[chosen],
        event_start_ATC1=np.concatenate([inner, ends], axis=2),
        event_det_E=det_E.astype(np.int32),
        event_image_E=matches.det_image_D[det_E].astype(np.int32),
        event_tp_E=tp_ATD[area_E, threshold_E, det_E].astype(np.int8),
        event_fix_E=fix_ATD[area_E, threshold_E, det_E],
        in_run_E=(run_end_D - run_first_D)[det_E] > 1,
        run_first_E=run_first_D[det_E].astype(np.int32),
        run_end_E=run_end_D[det_E].astype(np.int32),
    )


def _runs(matches: Matches) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last + 1 position of each detection's run: same class, same image, same score, next to each other."""
    keys = (matches.det_category_D, matches.det_image_D, matches.det_score_D)
    new_D = np.ones(len(matches.det_image_D) + 1, dtype=bool)
    if len(matches.det_image_D):
        new_D[1:-1] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    first = np.flatnonzero(new_D)
    number_D = np.cumsum(new_D[:-1]) - 1
    return first[number_D], first[number_D + 1]


def image_counts(images: int, resamples: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """How often each image is drawn, in chunks of (up to 256, I): ``images`` draws with replacement per resample, one stream per seed.

    The first resamples are the same however many are asked for.
    """
    generator = np.random.default_rng(seed)
    for begin in range(0, resamples, CHUNK):
        rows = [np.bincount(generator.integers(images, size=images), minlength=images) for _ in range(min(CHUNK, resamples - begin))]
        yield np.array(rows, dtype=np.int32)


def resampled_ap(planned: Plan, weights_RI: NDArray[np.int32], *, threads: int | None = None) -> NDArray[np.float64]:
    """AP in percent of every resample, by area and IoU threshold: (R, A, T); NaN where no class has an object in the resample.

    Args:
        planned: the run.
        weights_RI: whole numbers from 0: how often each image counts.
        threads: at most so many; None = as many as cores may be used. The numbers are the same with any.
    """
    areas, thresholds = planned.event_start_ATC1.shape[:2]
    out_RAT = np.empty((len(weights_RI), areas, thresholds))
    workers = max(1, min(threads or usable_cores(), len(weights_RI)))
    run = _kernel()
    if run is None:
        for row, weights_I in enumerate(weights_RI):
            out_RAT[row] = plain_ap(planned, weights_I)
        return out_RAT
    parts = [slice(len(weights_RI) * i // workers, len(weights_RI) * (i + 1) // workers) for i in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda part: run(weights_RI[part], out_RAT[part], *_arrays(planned), RECALL_LEVELS), parts))
    return out_RAT


def _arrays(planned: Plan) -> tuple[Any, ...]:
    return (
        planned.det_image_D,
        planned.det_start_C1,
        planned.counted_AD,
        planned.obj_image_G,
        planned.obj_category_G,
        planned.obj_counted_AG,
        planned.event_start_ATC1,
        planned.event_det_E,
        planned.event_image_E,
        planned.event_tp_E,
        planned.event_fix_E,
        planned.in_run_E,
        planned.run_first_E,
        planned.run_end_E,
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _kernel() -> Any:
    """The compiled loop, or None where numba is not installed: then NumPy does it, some hundred times slower."""
    try:
        from salt_lab.evaluate import resample_kernel
    except ImportError:
        return None
    return resample_kernel.ap_of_resamples


def plain_ap(planned: Plan, weights_I: NDArray[np.int32]) -> NDArray[np.float64]:
    """One resample in NumPy alone, (A, T) percent: every detection is written out as often as its image was drawn, then counted as pycocotools
    does. Slow and simple: what the compiled loop is tested against, and what stands in for it."""
    ap_ATC = np.full(planned.event_start_ATC1[:, :, :-1].shape, np.nan)
    for area, threshold, category in np.ndindex(ap_ATC.shape):
        in_class_G = (planned.obj_category_G == category) & planned.obj_counted_AG[area]
        objects = int(weights_I[planned.obj_image_G[in_class_G]].sum())
        if objects:
            tp_N, counted_N = _written_out(planned, weights_I, area, threshold, category)
            ap_ATC[area, threshold, category] = _average_precision(tp_N, counted_N, objects)
    present = ~np.isnan(ap_ATC)
    total_AT = np.where(present, ap_ATC, 0.0).sum(axis=2)
    with np.errstate(invalid="ignore"):
        return 100 * total_AT / present.sum(axis=2)


def _written_out(planned: Plan, weights_I: NDArray[np.int32], area: int, threshold: int, category: int) -> tuple[Any, Any]:
    """True positive? and counted? of one class's detections in pycocotools' order, copies included."""
    dets = slice(planned.det_start_C1[category], planned.det_start_C1[category + 1])
    events = slice(*planned.event_start_ATC1[area, threshold, category : category + 2])
    place_E = planned.event_det_E[events] - dets.start
    counted_D = planned.counted_AD[area, dets].astype(np.int8)
    tp_D, first_D = np.zeros_like(counted_D), np.arange(len(counted_D))
    counted_D[place_E] += planned.event_fix_E[events]
    tp_D[place_E] = planned.event_tp_E[events]
    first_D[place_E] = planned.run_first_E[events] - dets.start
    for begin, end in {*zip(planned.run_first_E[events] - dets.start, planned.run_end_E[events] - dets.start, strict=True)}:
        first_D[begin:end] = begin
    times_D = weights_I[planned.det_image_D[dets]]
    source_N = np.repeat(np.arange(len(times_D)), times_D)
    copy_N = np.arange(len(source_N)) - np.repeat(np.cumsum(times_D) - times_D, times_D)
    source_N = source_N[np.lexsort((source_N, copy_N, first_D[source_N]))]
    return tp_D[source_N], counted_D[source_N]


def _average_precision(tp_N: NDArray[np.int8], counted_N: NDArray[np.int8], objects: int) -> float:
    tp_N, seen_N = np.cumsum(tp_N, dtype=np.int64), np.cumsum(counted_N, dtype=np.int64)
    precision_N = np.maximum.accumulate((tp_N / (seen_N + np.spacing(1)))[::-1])[::-1]
    place = np.searchsorted(tp_N / objects, RECALL_LEVELS, side="left")
    return float(np.append(precision_N, 0.0)[np.minimum(place, len(precision_N))].mean())
