"""On which images do two runs disagree most? A measure per image **(ours)**, from matches alone.

Scores of two runs are not of one scale, so none is compared with another's. A box is weighed by its *belief*: the precision that its own run has
down to its score, for its class and IoU threshold (the envelope that AP is the area under). Then

* an object is worth, to a run, the belief of the box that found it, 0 where none did, averaged over IoU 0.50:0.05:0.95. The mean of that over a
  class's objects is the class's AP but for COCO's 101-point sampling, so the differences of two runs, summed over objects, are the difference in AP;
* a false alarm is a box that its run shows and that is wrong at IoU 0.5; it costs its belief at IoU 0.5.

A run *shows* the boxes of a class from the score on that gives its best F1 at IoU 0.5 on these images: the working point that a person would choose.
An image's disagreement is the sum over its objects of the absolute difference of worth, plus the absolute difference of the false alarms' cost: in
objects, 1 = one run is sure of an object in its place, the other has nothing there.

Letters: T IoU thresholds, D detections, G objects, I images, C categories.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from salt_lab.evaluate.matching import Matches

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Disagreement(NamedTuple):
    """Two runs on one image; all in objects. ``total = objects + abs(alarms)``."""

    image_id: int
    total: float
    objects: float  #: sum over objects of the absolute difference of their worth
    gain: float  #: the same with its sign: above 0 where the variant has found more, or better
    alarms: float  #: cost of the variant's false alarms minus the baseline's: above 0 where the variant has more, or surer ones


class Judged(NamedTuple):
    """One run's detections and objects, weighed."""

    worth_G: Floats  #: of each object, 0 to 1
    alarm_D: Floats  #: cost of each detection, 0 where it is none
    shown_D: Bools  #: at or above the working point of its class


def disagreements(variant: Matches, baseline: Matches) -> list[Disagreement]:
    """Every image, the most disputed first, equal ones by id.

    Raises:
        ValueError: the two runs were not matched with the same objects.
    """
    if not (np.array_equal(variant.image_ids_I, baseline.image_ids_I) and np.array_equal(variant.obj_image_G, baseline.obj_image_G)):
        raise ValueError("variant and baseline were matched with different ground truth: give runs on the same images")
    mine, other = judge(variant), judge(baseline)
    images = len(variant.image_ids_I)
    change_G = mine.worth_G - other.worth_G
    objects_I, gain_I = (np.bincount(variant.obj_image_G, value_G, images) for value_G in (np.abs(change_G), change_G))
    alarms_I = np.bincount(variant.det_image_D, mine.alarm_D, images) - np.bincount(baseline.det_image_D, other.alarm_D, images)
    total_I = objects_I + np.abs(alarms_I)
    order_I = np.lexsort((variant.image_ids_I, -total_I))
    columns = zip(*(part[order_I].tolist() for part in (variant.image_ids_I, total_I, objects_I, gain_I, alarms_I)), strict=True)
    return [Disagreement(*row) for row in columns]


def judge(run: Matches) -> Judged:
    """Weigh a run's detections and objects."""
    belief_TD, shown_D = np.zeros(run.det_object_TD.shape), np.zeros(len(run.det_score_D), np.bool_)
    objects_C = np.bincount(run.obj_category_G[~run.obj_ignored_AG[0]], minlength=len(run.category_ids_C))
    edges_C = np.searchsorted(run.det_category_D, np.arange(len(run.category_ids_C) + 1))
    for category, (low, high) in enumerate(zip(edges_C[:-1].tolist(), edges_C[1:].tolist(), strict=True)):
        right_TD, ignored_TD = run.det_tp_ATD[0, :, low:high], run.det_ignored_ATD[0, :, low:high]
        belief_TD[:, low:high] = _envelope(right_TD, ignored_TD)
        shown_D[low:high] = _shown(run.det_score_D[low:high], right_TD[0], ignored_TD[0], int(objects_C[category]))
    wrong_D = shown_D & ~run.det_tp_ATD[0, 0] & ~run.det_ignored_ATD[0, 0]
    return Judged(_worth(run, belief_TD), np.where(wrong_D, belief_TD[0], 0.0), shown_D)


def _envelope(right_TD: Bools, ignored_TD: Bools) -> Floats:
    """Largest precision from each detection of a class on, the detections sorted by score."""
    found_TD = np.cumsum(right_TD & ~ignored_TD, axis=1)
    said_TD = np.cumsum(~ignored_TD, axis=1)
    precision_TD = found_TD / np.maximum(said_TD, 1)
    return np.asarray(np.maximum.accumulate(precision_TD[:, ::-1], axis=1)[:, ::-1], np.float64)


def _shown(score_D: Floats, right_D: Bools, ignored_D: Bools, objects: int) -> Bools:
    """Detections of a class at or above the score of the best F1; equal scores are shown together."""
    if not right_D.any():
        return np.zeros(len(score_D), np.bool_)
    found_D, said_D = np.cumsum(right_D & ~ignored_D), np.cumsum(~ignored_D)
    last_D = np.append(score_D[1:] < score_D[:-1], True)
    f1_D = np.where(last_D, 2 * found_D / np.maximum(said_D + objects, 1), -1.0)
    return np.asarray(score_D >= score_D[int(f1_D.argmax())], np.bool_)


def _worth(run: Matches, belief_TD: Floats) -> Floats:
    """Of each object: mean over thresholds of the belief of the detection that found it; 0 for an ignored one."""
    worth_TG = np.zeros((len(belief_TD), len(run.obj_image_G)))
    for threshold, right_D in enumerate(run.det_tp_ATD[0]):
        worth_TG[threshold, run.det_object_TD[threshold, right_D]] = belief_TD[threshold, right_D]
    return np.asarray(np.where(run.obj_ignored_AG[0], 0.0, worth_TG.mean(axis=0)), np.float64)
