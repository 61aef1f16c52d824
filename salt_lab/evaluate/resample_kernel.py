"""The compiled loop behind :func:`salt_lab.evaluate.resample.resampled_ap`. Importing this file imports numba; its layout is explained there.

For each class and threshold it walks the events from the lowest score up, so that the precision envelope and the recall levels that it
reaches come out in one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from salt_lab.ops.jit import compiled

EPS = float(np.spacing(1))


@compiled()
def ap_of_resamples(
    weights_RI: Any,
    out_RAT: Any,
    det_image_D: Any,
    det_start_C1: Any,
    counted_AD: Any,
    obj_image_G: Any,
    obj_category_G: Any,
    obj_counted_AG: Any,
    event_start_ATC1: Any,
    event_det_E: Any,
    event_image_E: Any,
    event_tp_E: Any,
    event_fix_E: Any,
    in_run_E: Any,
    run_first_E: Any,
    run_end_E: Any,
    levels_L: Any,
) -> None:
    """Fill ``out_RAT`` with AP in percent."""
    areas, thresholds, categories = event_start_ATC1.shape[0], event_start_ATC1.shape[1], event_start_ATC1.shape[2] - 1
    seen_D1 = np.zeros(det_image_D.shape[0] + 1, np.int32)
    objects_C = np.empty(categories, np.int64)
    needed_CL = np.empty((categories, levels_L.shape[0]), np.int64)
    for r in range(weights_RI.shape[0]):
        weights_I = weights_RI[r]
        for a in range(areas):
            _count_objects(objects_C, weights_I, obj_image_G, obj_category_G, obj_counted_AG[a])
            _needed(needed_CL, objects_C, levels_L)
            _count_detections(seen_D1, weights_I, det_image_D, counted_AD[a])
            for t in range(thresholds):
                total, present = 0.0, 0
                for c in range(categories):
                    if objects_C[c]:
                        present += 1
                        total += _class_ap(
                            event_start_ATC1[a, t, c],
                            event_start_ATC1[a, t, c + 1],
                            det_start_C1[c],
                            needed_CL[c],
                            weights_I,
                            seen_D1,
                            event_det_E,
                            event_image_E,
                            event_tp_E,
                            event_fix_E,
                            in_run_E,
                            run_first_E,
                            run_end_E,
                        )
                out_RAT[r, a, t] = 100.0 * total / present if present else np.nan


@compiled()
def _count_objects(objects_C: Any, weights_I: Any, obj_image_G: Any, obj_category_G: Any, counted_G: Any) -> None:
    objects_C[:] = 0
    for g in range(obj_image_G.shape[0]):
        if counted_G[g]:
            objects_C[obj_category_G[g]] += weights_I[obj_image_G[g]]


@compiled()
def _count_detections(seen_D1: Any, weights_I: Any, det_image_D: Any, counted_D: Any) -> None:
    """``seen_D1[d]``: how many counted detections stand before position d."""
    running = np.int32(0)
    for d in range(det_image_D.shape[0]):
        running += weights_I[det_image_D[d]] * counted_D[d]
        seen_D1[d + 1] = running


@compiled()
def _needed(needed_CL: Any, objects_C: Any, levels_L: Any) -> None:
    """The smallest number of objects found whose share reaches each recall level, by the same division that pycocotools compares."""
    for c in range(objects_C.shape[0]):
        objects = objects_C[c]
        if objects:
            for level in range(levels_L.shape[0]):
                count = np.int64(levels_L[level] * objects)
                while count > 0 and (count - 1) / objects >= levels_L[level]:
                    count -= 1
                while count / objects < levels_L[level]:
                    count += 1
                needed_CL[c, level] = count


@compiled()
def _class_ap(
    begin: int,
    end: int,
    det_begin: int,
    needed_L: Any,
    weights_I: Any,
    seen_D1: Any,
    event_det_E: Any,
    event_image_E: Any,
    event_tp_E: Any,
    event_fix_E: Any,
    in_run_E: Any,
    run_first_E: Any,
    run_end_E: Any,
) -> float:
    """AP (0 to 1) of one class at one threshold.

    An event of weight 0, or one that is no true positive, may put its precision into the envelope: no larger one than that of the true positive
    before it, and no recall level lies between the two. So the walk has no branch for it.
    """
    tp, fix = np.int64(0), -np.int64(seen_D1[det_begin])
    for e in range(begin, end):
        weight = weights_I[event_image_E[e]]
        tp += weight * event_tp_E[e]
        fix += weight * event_fix_E[e]
    level = needed_L.shape[0] - 1
    total, envelope = 0.0, 0.0
    while level >= 0 and needed_L[level] > tp:
        level -= 1  # never reached: precision 0
    e = end - 1
    while e >= begin and level >= 0:
        weight = weights_I[event_image_E[e]]
        if in_run_E[e] and weight > 1:
            first = e
            while first > begin and event_det_E[first - 1] >= run_first_E[e]:
                first -= 1
            run_tp, run_fix = np.int64(0), np.int64(0)
            for k in range(first, e + 1):
                run_tp += event_tp_E[k]
                run_fix += event_fix_E[k]
            tp -= weight * run_tp
            fix -= weight * run_fix
            seen_before = np.int64(seen_D1[run_first_E[e]])
            run_seen = (seen_D1[run_end_E[e]] - seen_before) // weight + run_fix
            for copy in range(weight - 1, -1, -1):
                found, fixed = run_tp, run_fix
                for k in range(e, first - 1, -1):
                    within = (seen_D1[event_det_E[k] + 1] - seen_before) // weight + fixed
                    reached = tp + copy * run_tp + found
                    envelope = max(envelope, reached / (seen_before + fix + copy * run_seen + within + EPS))
                    found -= event_tp_E[k]
                    fixed -= event_fix_E[k]
                    while level >= 0 and needed_L[level] > reached - event_tp_E[k]:
                        total += envelope
                        level -= 1
            e = first
        else:
            envelope = max(envelope, tp / (seen_D1[event_det_E[e] + 1] + fix + EPS))
            tp -= weight * event_tp_E[e]
            fix -= weight * event_fix_E[e]
            while level >= 0 and needed_L[level] > tp:
                total += envelope
                level -= 1
        e -= 1
    return (total + envelope * (level + 1)) / needed_L.shape[0]  # recall 0 is reached before any object is found
