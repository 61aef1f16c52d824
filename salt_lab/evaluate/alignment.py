"""Do the scores rank boxes as their IoU does? Rank correlation, the IoU lost by trusting the score, and coarse against refined boxes.

Arrays in, named numbers out. Letters: C categories, D detections, G objects, N candidates (detections or positive locations).

The measures are ours in their details **(ours)**; the question is that of "task misalignment" in the SALT paper (arXiv 2108.12176), of TOOD (ICCV
2021) and of IoU-Net (ECCV 2018), which show such clouds of score against IoU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from salt_lab.evaluate.overlaps import Overlaps, nearest, of_size
from salt_lab.evaluate.probe_data import Probe

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

NAN = float("nan")
#: Fewer candidates have no correlation worth a number.
LEAST = 10
#: IoU that is lost where the highest-scored candidate is not the best-located one, from which it is worth a count.
GAP = 0.05


class RankCorrelation(NamedTuple):
    """-1 to 1; 1: whatever is scored higher is located better. NaN for fewer than LEAST candidates, or where all are scored or located alike."""

    spearman: float
    kendall: float  #: tau-b
    candidates: int


class IouGap(NamedTuple):
    """Over objects that have a candidate. IoU is 0 to 1; NaN where no object has one."""

    mean: float  #: IoU of the best-located candidate minus that of the highest-scored one, 0 to 1, the lower the better
    share: float  #: objects where that is more than GAP, 0 to 1
    chosen: float  #: mean IoU of the highest-scored candidate
    best: float  #: mean IoU of the best-located one
    objects: int


class Refinement(NamedTuple):
    """Coarse against refined boxes of SALT's positive locations. NaN without SALT."""

    coarse: float  #: mean IoU of the coarse box with the object, 0 to 1
    refined: float  #: mean IoU of the final box
    better: float  #: share of locations whose refined box has the greater IoU: those that a gated SDR acts on
    locations: int


def rank_correlation(score_N: Floats, iou_N: Floats, least: int = LEAST) -> RankCorrelation:
    """Spearman's rho and Kendall's tau-b (scipy.stats) of score and IoU."""
    from scipy import stats

    n = len(score_N)
    if n < max(2, least) or np.ptp(score_N) == 0 or np.ptp(iou_N) == 0:
        return RankCorrelation(NAN, NAN, n)
    rho, tau = stats.spearmanr(score_N, iou_N).statistic, stats.kendalltau(score_N, iou_N).statistic
    return RankCorrelation(float(rho), float(tau), n)


def iou_gap(object_N: Indices, score_N: Floats, iou_N: Floats) -> IouGap:
    """What is lost where each object's highest-scored candidate is taken for the best one.

    Args:
        object_N: which object each candidate is of. Of candidates with equal scores the first is the highest.
    """
    if not len(object_N):
        return IouGap(NAN, NAN, NAN, NAN, 0)
    order_N = np.lexsort((-score_N, object_N))
    first_S = np.flatnonzero(np.diff(object_N[order_N], prepend=object_N.min() - 1))
    chosen_S = iou_N[order_N][first_S]
    best_S = np.maximum.reduceat(iou_N[order_N], first_S)
    gap_S = best_S - chosen_S
    return IouGap(float(gap_S.mean()), float((gap_S > GAP).mean()), float(chosen_S.mean()), float(best_S.mean()), len(gap_S))


def refinement(coarse_N: Floats, refined_N: Floats) -> Refinement:
    """Compare the IoU of coarse and refined boxes; locations without a coarse one (NaN) do not count."""
    known_N = np.isfinite(coarse_N) & np.isfinite(refined_N)
    coarse_N, refined_N = coarse_N[known_N].astype(np.float64), refined_N[known_N].astype(np.float64)
    if not len(coarse_N):
        return Refinement(NAN, NAN, NAN, 0)
    return Refinement(float(coarse_N.mean()), float(refined_N.mean()), float((refined_N > coarse_N).mean()), len(coarse_N))


class Candidates(NamedTuple):
    """Boxes that might stand for an object, from detections or from positive locations."""

    category_N: Indices  #: category id
    object_N: Indices
    area_N: Floats  #: of the object, square pixels, as annotated
    score_N: Floats  #: of the object's class
    iou_N: Floats  #: with the object


def detected(pairs: Overlaps, least_iou: float = 0.1) -> Candidates:
    """Detections whose best IoU with an object of their class (crowds left out) is at least ``least_iou`` **(ours)**, each a candidate of that
    object. With 0.5 those that COCO could count as right, duplicates among them. Not below 0.1."""
    near = nearest(pairs)
    at_N = np.flatnonzero((near.object_D >= 0) & (near.iou_D >= least_iou))
    object_N = near.object_D[at_N]
    return Candidates(
        pairs.category_ids_C[pairs.det_category_D[at_N]], object_N, pairs.obj_area_G[object_N], pairs.det_score_D[at_N], near.iou_D[at_N]
    )


def probed(probe: Probe) -> Candidates:
    """The probe's positive locations, each a candidate of the object that it learns. Score as inference uses it."""
    return Candidates(
        probe.category_P.astype(np.int64),
        probe.object_P.astype(np.int64),
        probe.area_P.astype(np.float64),
        probe.score_P.astype(np.float64),
        probe.iou_P.astype(np.float64),
    )


def select(of: Candidates, category: int, size: str = "all") -> Candidates:
    """The candidates of one class (its id) whose objects are of one size ("all", "s", "m", "l"), and whose IoU is known."""
    at_N = (of.category_N == category) & of_size(of.area_N, size) & np.isfinite(of.iou_N)
    return Candidates(*(part[at_N] for part in of))
