"""Do scores rank boxes as their IoU does? Clouds of score against IoU, the baseline beside the variant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.patheffects import Normal, withStroke

from salt_lab.evaluate.alignment import Candidates, probed, rank_correlation
from salt_lab.evaluate.matching import Matches
from salt_lab.evaluate.probe_data import Probe
from salt_lab.report.style import DENSITY, INK, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

#: More candidates than these are drawn as a density, of so many bins a side.
MOST_POINTS, BINS = 2000, 40
#: Detections that overlap no object of their class by this much are not candidates of one (as in ``salt-lab why``).
LEAST_IOU = 0.1


class Cloud(NamedTuple):
    """One of the two clouds: score and IoU of N candidates, 0 to 1.

    ``spearman``: rank correlation, mean over classes (a class of fewer than 10 candidates does not count), as ``salt-lab why`` has it; NaN where no
    class has one. ``median_B``: median IoU in bins of equally many candidates, from the lowest to the highest ``score_B`` (their median score).
    """

    name: str
    source: str
    score_N: NDArray[np.float64]
    iou_N: NDArray[np.float64]
    spearman: float
    score_B: NDArray[np.float64]
    median_B: NDArray[np.float64]


def score_iou_cloud(
    variant: Probe | Matches, baseline: Probe | Matches, axes: Sequence[Axes], names: tuple[str, str] = ("baseline", "variant")
) -> tuple[Cloud, Cloud]:
    """Score against IoU of two runs side by side, on the same axes: baseline on the left, variant on the right.

    Args:
        variant, baseline: a probe (all positive locations: score of the object's class, IoU of the final box) or a run's matches (detections with an
            IoU of 0.1 or more with an object of their class); both of one kind, or the two clouds are not of the same thing.
        axes: two.
        names: of the baseline and of the variant.

    Returns:
        What was drawn: the baseline's cloud and the variant's.

    Raises:
        ValueError: the two are not of one kind.
    """
    if isinstance(variant, Probe) != isinstance(baseline, Probe):
        raise ValueError(f"variant is a {type(variant).__name__}, baseline a {type(baseline).__name__}: give two of one kind")
    clouds = (_cloud(names[0], baseline), _cloud(names[1], variant))
    dense = any(len(cloud.score_N) > MOST_POINTS for cloud in clouds)
    most = max((float(cloud.score_N.max()) for cloud in clouds if len(cloud.score_N)), default=1.0)
    right = min(1.0, most * 1.04) or 1.0
    norm = _norm(clouds, right)
    for cloud, ax in zip(clouds, axes, strict=True):
        if dense:
            share = _share(cloud, right)
            ax.imshow(
                np.ma.masked_equal(share, 0), origin="lower", extent=(0, right, 0, 1), aspect="auto", cmap=DENSITY, norm=norm, zorder=1
            )
        else:
            ax.plot(cloud.score_N, cloud.iou_N, "o", ms=2.2, mew=0, color=look(0).colour, alpha=0.45)
        _finish(cloud, right, ax)
    axes[0].set_ylabel("IoU with the object")
    return clouds


def _cloud(name: str, source: Probe | Matches) -> Cloud:
    of, kind = (probed(source), "positive locations") if isinstance(source, Probe) else (_detected(source), "detections")
    known_N = np.isfinite(of.iou_N) & np.isfinite(of.score_N)
    of = Candidates(*(part[known_N] for part in of))
    rhos = [rank_correlation(of.score_N[at_N], of.iou_N[at_N]).spearman for at_N in (of.category_N == c for c in np.unique(of.category_N))]
    rho = float(np.nanmean(rhos)) if np.isfinite(rhos).any() else math.nan
    return Cloud(name, kind, of.score_N, of.iou_N, rho, *_running_median(of.score_N, of.iou_N))


def _detected(run: Matches) -> Candidates:
    at_N = np.flatnonzero(run.det_iou_D >= LEAST_IOU)
    nothing_N = np.zeros(len(at_N))
    categories_N = run.category_ids_C[run.det_category_D[at_N]]
    return Candidates(categories_N, nothing_N.astype(np.int64), nothing_N, run.det_score_D[at_N], run.det_iou_D[at_N].astype(np.float64))


def _running_median(score_N: NDArray[np.float64], iou_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    bins = min(10, len(score_N) // 20)
    parts = np.array_split(np.argsort(score_N, kind="stable"), bins) if bins > 1 else []
    return np.array([np.median(score_N[part]) for part in parts]), np.array([np.median(iou_N[part]) for part in parts])


def _share(cloud: Cloud, right: float) -> NDArray[np.float64]:
    """Share of the cloud in each bin, rows from IoU 0, columns from score 0."""
    counts, _, _ = np.histogram2d(cloud.iou_N, cloud.score_N, bins=BINS, range=((0, 1), (0, right)))
    return np.asarray(counts / max(1, len(cloud.score_N)), np.float64)


def _norm(clouds: Sequence[Cloud], right: float) -> LogNorm:
    """One scale of grey for both, so that equally dark is equally frequent."""
    shares = np.concatenate([_share(cloud, right).ravel() for cloud in clouds])
    shares = shares[shares > 0]
    return LogNorm(shares.min() / 2, shares.max()) if len(shares) else LogNorm(0.1, 1)


def _finish(cloud: Cloud, right: float, ax: Axes) -> None:
    halo = [withStroke(linewidth=3.2, foreground="white"), Normal()]
    ax.plot(cloud.score_B, cloud.median_B, "-o", color=INK, lw=1.2, ms=2.6, path_effects=halo, label="median IoU")
    ax.set_xlim(0, right)
    ax.set_ylim(0, 1)
    ax.set_xlabel("score")
    rho = "not known" if math.isnan(cloud.spearman) else f"{cloud.spearman:.2f}"
    ax.set_title(f"{cloud.name}\nSpearman ρ = {rho}, {len(cloud.score_N):,} {cloud.source}", loc="left")
