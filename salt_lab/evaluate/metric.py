"""The evaluator that training runs: collects detections, keeps them, and returns COCO's numbers unrounded.

mmdet's own CocoMetric rounds to a tenth of a point, too coarse for differences between runs.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from salt_lab.evaluate.coco import coco_numbers
from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.ground_truth import GroundTruth, load_truth
from salt_lab.evaluate.submission import zip_submission


@METRICS.register_module()
class LabCocoMetric(BaseMetric):
    """COCO's twelve numbers in percent, without prefix.

    Args:
        ann_file: ground truth.
        out_file: where the detections go after every evaluation (COCO result list, JSON, gzipped where the name ends in .gz); None keeps
            them nowhere.
        format_only: only write ``out_file``, and a zip of it beside it for COCO's server; ``ann_file`` needs no annotations then.
        collect_device: "cpu" or "gpu": where the workers' results are brought together.
    """

    default_prefix = ""

    def __init__(self, ann_file: str, out_file: str | None = None, format_only: bool = False, collect_device: str = "cpu") -> None:
        super().__init__(collect_device=collect_device)
        if format_only and out_file is None:
            raise ValueError("format_only writes a result file and nothing else: give out_file")
        self.format_only = format_only
        self.ann_file = ann_file
        self.out_file = Path(out_file) if out_file else None
        self._file: Any = None
        self._truth: GroundTruth | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep one row of arrays per image."""
        for sample in data_samples:
            found = sample["pred_instances"]
            rows = (found["bboxes"].cpu().numpy(), found["scores"].cpu().numpy(), found["labels"].cpu().numpy())
            self.results.append((sample["img_id"], *rows))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Evaluate everything collected over all workers; each image comes once, also where workers were given some twice to fill up."""
        categories = self._categories()
        if self.out_file is not None:
            write_detections(self.out_file, [row for image in results for row in detection_rows(*image, categories=categories)])
        if self.format_only and self.out_file is not None:
            zip_submission(self.out_file)
            return {}
        if self._truth is None:
            self._truth = load_truth(self._file.dataset, name=self.ann_file)
        return dict(coco_numbers(self._truth, detection_arrays(results, categories=categories))._asdict())

    def _categories(self) -> list[int]:
        """The category id behind each label. mmdet numbers labels in the file's order, and only the classes that the data section names."""
        from pycocotools.coco import COCO

        if self._file is None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._file = COCO(self.ann_file)
        classes = (self.dataset_meta or {}).get("classes", ())
        return list(self._file.getCatIds(catNms=[classes] if isinstance(classes, str) else list(classes)))


def detection_arrays(results: Sequence[tuple[int, Any, Any, Any]], *, categories: Sequence[int]) -> Detections:
    """Many images' (image id, boxes, scores, labels) at once: the numbers of :func:`detection_rows`, image after image, without a dict for each."""
    if not results:
        return Detections.from_rows([])
    images, boxes, scores, labels = zip(*results, strict=True)
    boxes_N4 = np.concatenate(boxes).astype(np.float64).reshape(-1, 4)
    boxes_N4[:, 2:] -= boxes_N4[:, :2]
    image_id_N = np.repeat(np.array([int(image) for image in images], np.int64), [len(each) for each in scores])
    category_id_N = np.array(categories, np.int64)[np.concatenate(labels).astype(np.int64)]
    return Detections(image_id_N, category_id_N, boxes_N4, np.concatenate(scores).astype(np.float64))


def detection_rows(image_id: int, boxes_N4: Any, scores_N: Any, labels_N: Any, *, categories: Sequence[int]) -> list[dict[str, Any]]:
    """One image's detections in COCO's result form; boxes come as x1 y1 x2 y2 pixels, labels as indices into ``categories``."""
    return [
        {
            "image_id": int(image_id),
            "category_id": int(categories[label]),
            "bbox": [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)],
            "score": float(score),
        }
        for (x1, y1, x2, y2), score, label in zip(boxes_N4, scores_N, labels_N, strict=True)
    ]


def write_detections(path: Path, detections: list[dict[str, Any]]) -> None:
    """Write a COCO result list as JSON, gzipped where the name ends in ``.gz``; a reader never sees half a file."""
    partial = path.with_name(path.name + ".partial")
    with gzip.open(partial, "wt") if path.suffix == ".gz" else partial.open("w") as file:
        json.dump(detections, file)
    os.replace(partial, path)
