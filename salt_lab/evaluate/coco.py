"""COCO's twelve numbers for boxes: the values of COCO's own evaluator (pycocotools), sooner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_lab.evaluate.accumulate import CocoNumbers, numbers
from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.ground_truth import GroundTruth, load_truth
from salt_lab.evaluate.matching import match

__all__ = ["CocoNumbers", "coco_numbers"]


def coco_numbers(
    ground_truth: Path | str | GroundTruth | Mapping[str, Any] | Any, detections: Detections | Sequence[dict[str, Any]]
) -> CocoNumbers:
    """Evaluate ``detections`` in COCO's result form (image_id, category_id, bbox ``[x, y, w, h]`` pixels, score in 0..1).

    Args:
        ground_truth: annotation file or its content, a :class:`GroundTruth`, or a loaded ``pycocotools.coco.COCO``.
        detections: may be empty, then everything that can be measured is 0.

    Raises:
        DataError: a detection names an image that the ground truth does not have, or the annotations are malformed.
    """
    truth = ground_truth if isinstance(ground_truth, GroundTruth) else load_truth(getattr(ground_truth, "dataset", ground_truth))
    return numbers(match(truth, detections))
