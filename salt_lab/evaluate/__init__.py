"""What detections are worth: arrays in, named numbers out."""

from salt_lab.evaluate.accumulate import CocoNumbers, Curves, curves, numbers, per_class
from salt_lab.evaluate.coco import coco_numbers
from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.ground_truth import GroundTruth, load_truth
from salt_lab.evaluate.matching import Matches, match

__all__ = [
    "CocoNumbers",
    "Curves",
    "Detections",
    "GroundTruth",
    "Matches",
    "coco_numbers",
    "curves",
    "load_truth",
    "match",
    "numbers",
    "per_class",
]
