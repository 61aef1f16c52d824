"""From a study's records to "how many seeds do I need?": its own spread where it has one, else what others report.

What the images leave open, whatever the number of seeds, is :func:`salt_lab.report.image_draws.study_images`; where it is known, the answer says
apart what the table's mark takes, which counts it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from salt_lab.evaluate.power import (
    PUBLISHED,
    Noise,
    given_noise,
    least_of_images,
    pairs_for_mark,
    pooled_noise,
    resolves,
    seeds_needed,
    smallest_seen,
)
from salt_lab.evaluate.seeds import smallest_sign_flip_p
from salt_lab.report.compare import ap_of_cells

if TYPE_CHECKING:
    from salt_lab.report.image_draws import StudyImages
    from salt_lab.report.results import StudyResults

#: Numbers of seeds in the small table, besides the study's own and the one that is needed.
USUAL = (2, 3, 4, 5, 6, 8, 10, 20)


@dataclass(frozen=True)
class Ask:
    """The question: a true difference of ``see`` AP points, found with chance ``power`` by a two-sided t test at ``alpha``."""

    see: float = 0.3
    power: float = 0.8
    alpha: float = 0.05

    def needed(self, sd: float, paired: bool, comparisons: int = 1) -> int | None:
        """Seeds in each arm; with several comparisons, at the level of Holm's first step, alpha / comparisons. None: beyond all reason."""
        return seeds_needed(self.see, sd, paired=paired, power=self.power, alpha=self.alpha / comparisons)


@dataclass(frozen=True)
class Line:
    """What ``seeds`` in each arm can tell: half the interval's width and the smallest difference seen, in AP points, and the least p of the
    sign-flip test."""

    seeds: int
    half: float
    seen: float
    flips: float


@dataclass(frozen=True)
class MarkPower:
    """What a comparison of the study's table takes to get p < ``level`` from seeds and images. (ours)

    ``least``: the difference, AP points, that ever so many seeds show with the power that was asked for. ``needed``: pairs of seeds, ``needed_low``
    to ``needed_high`` as the seeds' spread is uncertain; None where ``never``, or beyond all reason. ``images``: how many there would have to be
    for the difference to be as large as ``least``, the images' noise going with 1 / sqrt(images).
    """

    level: float
    least: float
    never: bool
    needed: int | None
    needed_low: int | None
    needed_high: int | None
    images: int


@dataclass(frozen=True)
class StudyPower:
    """The answer. ``needed`` seeds in each arm, ``needed_low`` to ``needed_high`` as the spread itself is uncertain (None: beyond all reason).

    ``why`` says why the study's own spread is not the basis, "" where it is: a key of :data:`WHY`. ``seeds``: most seeds that a
    comparison, or a cell, has now. ``comparisons``: of the study; ``needed_all``: at the level of Holm's first step over them.
    ``mark``, ``mark_all``: the same two for the table's mark; None where the images' part is not known from two seeds or more.
    """

    ask: Ask
    noise: Noise
    why: str
    seeds: int
    needed: int | None
    needed_low: int | None
    needed_high: int | None
    comparisons: int
    needed_all: int | None
    lines: tuple[Line, ...]
    mark: MarkPower | None = None
    mark_all: MarkPower | None = None


#: Why the spread of a study's own paired differences is not the basis, in words.
WHY = {
    "": "",
    "given": "",
    "nothing done": "No trial of this study is done, so its own spread is unknown",
    "one seed": "No cell of this study has two finished seeds, so its own spread is unknown",
    "no spread": "The finished seeds do not differ at all, so there is no spread to go by (is the seed used?)",
    "not compared": "The study compares nothing (it has no 'compare' section), so nothing is paired: this is the spread of the runs of a cell",
    "not paired": "No comparison has two seeds that are finished in both arms, so nothing is paired: this is the spread of the runs of a cell",
}


def study_power(results: StudyResults | None, ask: Ask, sd: float | None = None, images: StudyImages | None = None) -> StudyPower:
    """Answer ``ask`` from the records, or from ``sd`` (AP points, spread of one arm's runs) where it is given, with or without a study; with the
    study's ``images``, also what its table's mark takes."""
    noise, why, seeds = (given_noise(sd), "given", 0) if sd is not None else (PUBLISHED, "nothing done", 0)
    comparisons = 0
    if results is not None:
        comparisons = sum(cell.baseline is not None for cell in results.study.cells)
        found, reason, seeds = study_noise(results)
        noise, why = (noise, why) if sd is not None else (found, reason)
    needed = ask.needed(noise.sd, noise.paired)
    return StudyPower(
        ask=ask,
        noise=noise,
        why=why,
        seeds=seeds,
        needed=needed,
        needed_low=ask.needed(noise.low, noise.paired),
        needed_high=ask.needed(noise.high, noise.paired),
        comparisons=comparisons,
        needed_all=ask.needed(noise.sd, noise.paired, comparisons) if comparisons > 1 else needed,
        lines=lines(ask, noise, {seeds, needed}),
        mark=mark(ask, noise, images),
        mark_all=mark(ask, noise, images, max(comparisons, 1)),
    )


def mark(ask: Ask, noise: Noise, images: StudyImages | None, comparisons: int = 1) -> MarkPower | None:
    """What the table's mark takes, at ``ask``'s level over ``comparisons``; None where what the images do to all seeds alike is not known.

    The table pairs by seed. A spread of one arm's runs counts as if the two runs of a seed had nothing in common: sqrt(2) times it.
    """
    if images is None or images.reason or not images.paired or math.isnan(images.se_images + images.se_seeds):
        return None
    level = ask.alpha / comparisons
    least = least_of_images(images.se_images, power=ask.power, alpha=level)
    scale = 1 if noise.paired else math.sqrt(2)
    needed, low, high = (
        pairs_for_mark(ask.see, sd * scale, images.se_images, power=ask.power, alpha=level) for sd in (noise.sd, noise.low, noise.high)
    )
    return MarkPower(level, least, ask.see <= least, needed, low, high, math.ceil(images.images * (least / ask.see) ** 2))


def lines(ask: Ask, noise: Noise, more: set[int | None]) -> tuple[Line, ...]:
    """The table of what a number of seeds can tell, for :data:`USUAL` numbers and ``more``."""
    numbers = sorted({*USUAL, *(number for number in more if number is not None and number >= 2)})
    return tuple(
        Line(
            number,
            resolves(number, noise.sd, paired=noise.paired, level=1 - ask.alpha),
            smallest_seen(number, noise.sd, paired=noise.paired, power=ask.power, alpha=ask.alpha),
            smallest_sign_flip_p(number),
        )
        for number in numbers
    )


def study_noise(results: StudyResults) -> tuple[Noise, str, int]:
    """The spread to go by, why it is not that of paired differences (a key of :data:`WHY`, or ""), and the seeds that there are.

    Finished trials only. Paired differences first, pooled over the comparisons that have two pairs or more; then the runs of each cell; then
    what others report.
    """
    aps = ap_of_cells(results)
    differences = [_differences(aps[cell.key], aps.get(cell.baseline, {})) for cell in results.study.cells if cell.baseline is not None]
    most_pairs, most_runs = (max(map(len, groups), default=0) for groups in (differences, list(aps.values())))
    if most_runs == 0:
        return PUBLISHED, "nothing done", 0
    if noise := pooled_noise(differences, paired=True):
        return noise, "", most_pairs
    if most_pairs >= 2 or most_runs < 2:
        return PUBLISHED, "no spread" if most_pairs >= 2 else "one seed", most_runs
    noise = pooled_noise([list(runs.values()) for runs in aps.values()], paired=False)
    reason = "not paired" if differences else "not compared"
    return (noise, reason, most_runs) if noise else (PUBLISHED, "no spread", most_runs)


def _differences(variant: Mapping[int, float], baseline: Mapping[int, float]) -> list[float]:
    return [variant[seed] - baseline[seed] for seed in sorted(variant.keys() & baseline.keys())]
