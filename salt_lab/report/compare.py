"""Every cell of a study against its baseline: the difference, how sure it is, and how it is known.

AP in percent, differences in AP points, 95 % intervals. What each assumes and does not cover: docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from salt_lab.evaluate.seeds import difference, holm, win_rate

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.image_draws import ImageDraws
    from salt_lab.report.results import StudyResults
    from salt_lab.spec.study import Cell

#: Adjusted p below which a comparison gets its mark.
MARKS = ((0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class Comparison:
    """A cell against its baseline, over the seeds that both have finished; AP points, 95 %.

    Attributes:
        cell, baseline: keys of the two cells.
        delta: mean over the ``pairs`` common seeds of AP - baseline AP; NaN where there is nothing to subtract.
        low, high: its interval; NaN with method "none".
        method: where interval and p come from. "seeds and images": :mod:`salt_lab.evaluate.hierarchical`, paired by seed. "seeds": paired t.
            "seeds, unpaired": Welch's t, where no seed is common. "images": paired bootstrap over images of one seed, which knows nothing of
            other seeds. "none": no interval.
        pairs: number of common seeds.
        p, p_adjusted: two-sided; after Holm's correction over all comparisons of the study that can earn a mark (one seed a side cannot: NaN
            there). NaN with method "none".
        better: probability that a run of the variant beats one of the baseline (Mann and Whitney, unpaired, ties half); with method "images" the
            share of resamples in which it does; NaN with "none".
        mark: "**" where p_adjusted < 0.01, "*" where < 0.05, else ""; never where early stopping chose the seeds by their AP, nor with method
            "images": one seed a side says that two trained models differ, not that two methods do.
        note: why the images are not in the interval, or why there is no mark; "" where nothing is missing.
    """

    cell: str
    baseline: str
    delta: float
    low: float
    high: float
    method: str
    pairs: int
    p: float
    p_adjusted: float
    better: float
    mark: str
    note: str = ""


def compare(results: StudyResults, store: Store | None, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
    """Compare each cell that has a baseline with it.

    Args:
        results: the study's records; only trials that are done count.
        store: where detections and data are looked for; None = over seeds alone, which takes no time.
        resamples: bootstrap draws; 0 = over seeds alone.
        seed: of the draws; the same seed gives the same numbers.

    Returns:
        Cell key -> comparison, in the study's order.
    """
    aps = ap_of_cells(results)
    draws = _draws(results, store, resamples, seed)
    found = {cell.key: _compared(cell, aps, draws) for cell in results.study.cells if cell.baseline is not None}
    adjusted = holm({key: math.nan if one.method == "images" else one.p for key, one in found.items()})
    chosen = _chosen_by_ap(results)
    return {key: _marked(one, adjusted[key], bool(chosen & {key, one.baseline})) for key, one in found.items()}


def ap_of_cells(results: StudyResults) -> dict[str, dict[int, float]]:
    """AP by seed of every cell of the study, in its order; trials that are not done, or whose AP is undefined, are left out."""
    aps: dict[str, dict[int, float]] = {cell.key: {} for cell in results.study.cells}
    done = results.frame[(results.frame["state"] == "done") & results.frame["AP"].notna()]
    for key, seed, ap in zip(done["cell"], done["seed"], done["AP"], strict=True):
        aps[key][int(seed)] = float(ap)
    return aps


def _draws(results: StudyResults, store: Store | None, resamples: int, seed: int) -> ImageDraws | None:
    if store is None or resamples < 1:
        return None
    from salt_lab.report.image_draws import ImageDraws  # takes numba along, which a table over seeds alone does not need

    return ImageDraws(results, store, resamples, seed)


def _compared(cell: Cell, aps: Mapping[str, Mapping[int, float]], draws: ImageDraws | None) -> Comparison:
    """One comparison, its p not yet adjusted."""
    baseline = str(cell.baseline)
    mine, other = aps[cell.key], aps.get(baseline, {})
    common = sorted(mine.keys() & other.keys())
    one = _over_seeds(cell.key, baseline, mine, other, common)
    if draws is None or not common:
        return one
    drawn = draws.estimate(cell.key, baseline, common)
    if isinstance(drawn, str):
        return replace(one, note=drawn)
    better = one.better if len(common) > 1 else draws.win_share(cell.key, baseline, common[0])
    return replace(one, low=drawn.low, high=drawn.high, p=drawn.p, method=drawn.method, better=better)


def _over_seeds(cell: str, baseline: str, mine: Mapping[int, float], other: Mapping[int, float], common: Sequence[int]) -> Comparison:
    """From the recorded APs alone. A single common seed stands for itself; arms with none in common are compared as independent ones."""
    paired = [{seed: arm[seed] for seed in common} for arm in (mine, other)]
    found = difference(paired[0], paired[1]) if common else difference(mine, other)
    method = {"paired": "seeds", "welch": "seeds, unpaired"}.get(found.method, "none")
    better = math.nan if method == "none" else win_rate(list(mine.values()), list(other.values()))
    return Comparison(cell, baseline, found.delta, found.low, found.high, method, len(common), found.p, math.nan, better, mark="")


def _marked(one: Comparison, adjusted: float, chosen: bool) -> Comparison:
    if chosen:
        note = "; ".join(filter(None, [one.note, "no mark: early stopping chose the seeds by their AP"]))
        return replace(one, p_adjusted=adjusted, note=note)
    earned = next((mark for level, mark in MARKS if adjusted < level), "")
    return replace(one, p_adjusted=adjusted, mark="" if one.method == "images" else earned)


def _chosen_by_ap(results: StudyResults) -> set[str]:
    """Cells of which early stopping ended a seed: those that are left are the better ones."""
    return set(results.frame.loc[results.frame["state"] == "stopped", "cell"])
