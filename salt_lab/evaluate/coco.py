"""COCO's twelve numbers for boxes, by COCO's own evaluator (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class CocoNumbers(NamedTuple):
    """Average precision and recall in percent, 0 to 100; NaN where there is nothing to measure (no object of that size)."""

    AP: float  #: over IoU 0.50 to 0.95, all sizes, 100 detections an image
    AP50: float  #: at IoU 0.50
    AP75: float  #: at IoU 0.75
    APs: float  #: objects under 32 x 32 pixels
    APm: float  #: 32 x 32 to 96 x 96
    APl: float  #: larger
    AR1: float  #: average recall, 1 detection an image
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float


def coco_numbers(ground_truth: Path | Any, detections: Sequence[dict[str, Any]]) -> CocoNumbers:
    """Evaluate ``detections`` in COCO's result form (image_id, category_id, bbox ``[x, y, w, h]`` pixels, score in 0..1).

    Args:
        ground_truth: annotation file, or a loaded ``pycocotools.coco.COCO``.
        detections: may be empty, then everything that can be measured is 0.

    Raises:
        AssertionError: a detection names an image that the ground truth does not have (from pycocotools).
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ground_truth)) if isinstance(ground_truth, (str, Path)) else ground_truth
        if not detections:
            return _nothing_found(truth)
        evaluation = COCOeval(truth, truth.loadRes([dict(d) for d in detections]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return CocoNumbers(*(float(v) * 100 if v >= 0 else float("nan") for v in evaluation.stats))


def _nothing_found(truth: Any) -> CocoNumbers:
    """No detection: 0 wherever there are objects of that size, else NaN."""
    areas = np.array([a["area"] for a in truth.dataset["annotations"] if not a.get("iscrowd")])
    bounds = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, np.inf)}
    present = {size: bool(((areas >= low) & (areas < high)).any()) for size, (low, high) in bounds.items()}
    values = [0.0 if present.get(name[-1], areas.size > 0) else float("nan") for name in CocoNumbers._fields]
    return CocoNumbers(*values)
