"""Two finished runs on the same images: their matches, their boxes, and the pictures where those are here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from salt_lab.errors import DataError, SaltLabError
from salt_lab.evaluate.ground_truth import GroundTruth
from salt_lab.evaluate.matching import Matches
from salt_lab.report.matches import Found, matches_of
from salt_lab.report.pictures.disagreement import Judged, judge
from salt_lab.report.why_data import Truths, read_detections
from salt_lab.spec.trial import CocoData, EmbeddedData

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults
    from salt_lab.spec.trial import Trial


@dataclass(frozen=True, eq=False)
class Run:
    """A run's detections, weighed; ``boxes_D4``: x, y, width, height of the detections of ``matches``, in pixels of the original picture."""

    name: str
    matches: Matches
    boxes_D4: NDArray[np.float64]

    @cached_property
    def judged(self) -> Judged:
        """See :func:`salt_lab.report.pictures.disagreement.judge`."""
        return judge(self.matches)


@dataclass(frozen=True, eq=False)
class Pair:
    """A baseline's and a variant's run with the objects that both were to find. ``images``: folder of the pictures; None where they are not here."""

    truth: GroundTruth
    baseline: Run
    variant: Run
    images: Path | None = None

    def picture(self, image_id: int) -> NDArray[np.uint8] | None:
        """(H, W, 3) RGB, in the size that the annotations say; None where it cannot be read."""
        import cv2

        at = int(np.searchsorted(self.truth.image_ids_I, image_id))
        if self.images is None or not self.truth.file_names[at]:
            return None
        pixels = cv2.imread(str(self.images / self.truth.file_names[at]), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        return None if pixels is None else np.ascontiguousarray(pixels[:, :, ::-1], dtype=np.uint8)

    def size(self, image_id: int) -> tuple[float, float]:
        """Width and height in pixels; where the annotations do not say, as far as the objects reach."""
        at = int(np.searchsorted(self.truth.image_ids_I, image_id))
        width, height = self.truth.image_sizes_I2[at].tolist()
        if width > 0 and height > 0:
            return float(width), float(height)
        reach = (self.truth.boxes_G4[:, :2] + self.truth.boxes_G4[:, 2:])[self.truth.obj_image_G == at]
        return (float(math.ceil(reach[:, 0].max())), float(math.ceil(reach[:, 1].max()))) if len(reach) else (1.0, 1.0)


def load_pair(
    results: StudyResults,
    store: Store,
    variant: str,
    baseline: str,
    names: tuple[str, str] = ("baseline", "variant"),
    found: Found | None = None,
) -> Pair:
    """Two finished trials of a study, by their ids, with what they were to find.

    Args:
        results, store: the study's records.
        variant, baseline: trial ids.
        names: of the baseline and of the variant.
        found: their matches, where they are known already.

    Raises:
        SaltLabError: the two cannot be compared image by image, in words: not finished, detections or annotations not here, different annotations.
    """
    found = matches_of(results, store, only=(variant, baseline)) if found is None else found
    if why := found.why_not_paired(variant, baseline):
        raise DataError(why)
    trial = _trials(results)[variant]
    truth = Truths(store).of(trial.data)
    runs = [_run(name, found, identity, store) for name, identity in zip(names, (baseline, variant), strict=True)]
    if any(len(run.matches.obj_image_G) != len(truth.obj_image_G) for run in runs):
        raise DataError(f"trial {variant}: its annotations have changed while they were read. Try again")
    return Pair(truth, runs[0], runs[1], _images(trial.data, store))


def _run(name: str, found: Found, identity: str, store: Store) -> Run:
    matches = found.matches(identity)
    assert matches is not None, f"trial {identity}: paired without matches"
    return Run(name, matches, read_detections(store.trial_dir(identity)).boxes_N4[matches.det_index_D])


def _trials(results: StudyResults) -> Mapping[str, Trial]:
    """Trial id -> trial."""
    of: dict[tuple[str, int], Trial] = {(cell.key, trial.seed): trial for cell in results.study.cells for trial in cell.trials()}
    rows: Any = zip(results.frame["cell"], results.frame["seed"], results.frame["trial_id"], strict=True)
    return {str(identity): of[cell, int(seed)] for cell, seed, identity in rows}


def _images(data: EmbeddedData | CocoData, store: Store) -> Path | None:
    """Folder of the val pictures; None where it is not here."""
    from salt_lab.data import prepare
    from salt_lab.data.paths import coco_files

    try:
        folder = coco_files(data).val_images if isinstance(data, CocoData) else prepare(data, store.data_dir).val_images
    except SaltLabError:
        return None
    return folder if folder.is_dir() else None
