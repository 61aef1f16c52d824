"""What other images would do to a study's numbers: the bootstrap over images, from the recorded detections of its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from salt_lab.evaluate.bootstrap import paired
from salt_lab.evaluate.hierarchical import Estimate, hierarchical
from salt_lab.report.matches import matches_of

if TYPE_CHECKING:
    from salt_lab.evaluate.matching import Matches
    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults

#: Standard errors on either side of a 95 % interval.
Z = 1.959964


class ImageDraws:
    """The runs of a study's cells on resampled images; matched once, when first asked for.

    Args:
        results: the study's records.
        store: where detections and data are.
        resamples: bootstrap draws.
        seed: of the draws; all runs get the same images.
    """

    def __init__(self, results: StudyResults, store: Store, resamples: int, seed: int) -> None:
        self._resamples, self._seed = resamples, seed
        self._found = matches_of(results, store)
        self._trials = {(row.cell, int(row.seed)): str(row.trial_id) for row in results.frame.itertuples()}

    def estimate(self, variant: str, baseline: str | None, seeds: Sequence[int]) -> Estimate | str:
        """The mean over these seeds of a cell's AP, or of its difference to another's, with its interval; or why there is none.

        Over seeds and images from two seeds on, over images with one.
        """
        arms = [{seed: self._trials[cell, seed] for seed in seeds} for cell in (variant, baseline) if cell is not None]
        if why := self._why_not([trial for arm in arms for trial in arm.values()]):
            return why
        runs = [{seed: self._matches(trial) for seed, trial in arm.items()} for arm in arms]
        return hierarchical(*runs, resamples=self._resamples, seed=self._seed)["AP"]

    def win_share(self, variant: str, baseline: str, seed: int) -> float:
        """Share of the resamples of the images in which one seed's run of ``variant`` has the higher AP, ties counted half.

        Only where :meth:`estimate` has a number for the two.
        """
        mine, other = (self._matches(self._trials[cell, seed]) for cell in (variant, baseline))
        gain_R = paired(mine, other, resamples=self._resamples, seed=self._seed, metrics=("AP",)).draws["AP"]
        gain_R = gain_R[~np.isnan(gain_R)]
        return float((gain_R > 0).mean() + 0.5 * (gain_R == 0).mean()) if len(gain_R) else math.nan

    def images(self, cell: str, seed: int) -> int:
        """Number of images that a run was evaluated on; 0 where its detections are missing."""
        found = self._found.matches(self._trials[cell, seed])
        return 0 if found is None else len(found.image_ids_I)

    def _why_not(self, trials: Sequence[str]) -> str:
        """Why these trials cannot be drawn on the same images; "" where they can."""
        reasons = (self._found.why_not_paired(trials[0], other) for other in trials)
        return next((reason for reason in reasons if reason), "")

    def _matches(self, trial_id: str) -> Matches:
        found = self._found.matches(trial_id)
        assert found is not None, f"trial {trial_id}: asked for after it was found missing"
        return found


@dataclass(frozen=True)
class StudyImages:
    """Image noise of a study, in AP points.

    ``se_images``: standard error of a difference (``paired``; else of an AP) from what other images do to all seeds alike, root mean square over
    ``groups`` comparisons (cells); with one seed, from what they do to this one. ``se_seeds``: the same from the seeds that there are, NaN with
    one. ``images``: size of the evaluation set. ``reason``: why it is not known; "" where it is.
    """

    se_images: float
    se_seeds: float
    images: int
    groups: int
    paired: bool
    reason: str

    @property
    def half(self) -> float:
        """Half the width of the 95 % interval that ever so many seeds leave, in AP points."""
        return Z * self.se_images

    @property
    def share(self) -> float:
        """Share (0-1) of the variance, at the present number of seeds, that is the images' and that no further seed takes away."""
        total = self.se_images**2 + self.se_seeds**2
        return self.se_images**2 / total if total > 0 else math.nan


def study_images(results: StudyResults, store: Store, resamples: int = 1000, seed: int = 0) -> StudyImages:
    """Image noise of the study's differences, or of its APs where it compares nothing; of the cells whose detections and data are here."""
    from salt_lab.report.compare import ap_of_cells

    aps, cells = ap_of_cells(results), results.study.cells
    is_paired = any(cell.baseline for cell in cells)
    arms = [(cell.key, cell.baseline) for cell in cells if cell.baseline or not is_paired]
    asked = [(*pair, sorted(set.intersection(*(set(aps.get(key, ())) for key in pair if key)))) for pair in arms]
    asked = [one for one in asked if one[2]]
    if not asked:
        return StudyImages(
            math.nan, math.nan, 0, 0, is_paired, "no seed of a comparison is done in both arms" if is_paired else "no trial is done"
        )
    draws = ImageDraws(results, store, resamples, seed)
    estimates = [draws.estimate(*one) for one in asked]
    known = [one for one in estimates if not isinstance(one, str)]
    if not known:
        return StudyImages(math.nan, math.nan, 0, 0, is_paired, next(one for one in estimates if isinstance(one, str)))
    images, seeds = (math.sqrt(np.mean([getattr(one, name) ** 2 for one in known])) for name in ("se_images", "se_seeds"))
    return StudyImages(images, seeds, max(draws.images(key, number) for key, _, (number, *_) in asked), len(known), is_paired, "")
