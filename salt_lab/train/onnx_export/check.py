"""Does onnxruntime say what PyTorch says? Boxes in pixels, scores, and the selection where it is part of the graph.

Legend: N images, L rows (all locations of all levels), C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from salt_lab.train.onnx_export.graph import RawDetector
from salt_lab.train.onnx_export.selection import Detections, Selection, detections

#: Largest allowed differences. The most that was seen while this was written: 3e-3 px and 4e-6 (a small RepPoints + SALT of random weights),
#: below 1e-3 px and 2e-6 on every other host whose differences were looked at.
BOX_TOLERANCE_PX = 0.05
SCORE_TOLERANCE = 1e-4
#: Of the detections of a graph with selection, the share that must be mmdet's own (two boxes at the threshold may fall either way).
SAME_DETECTIONS = 0.95
#: Longest side of the pictures that are compared: a few seconds on a CPU for the largest models.
LONGEST = 512


class Session:
    """An ONNX file in onnxruntime on the CPU, with as many threads as PyTorch uses.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        self.run = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.run.get_outputs()]

    def __call__(self, image_N3HW: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name."""
        return dict(zip(self.names, self.run.run(None, {"image": image_N3HW}), strict=True))


class Agreement(NamedTuple):
    """How far onnxruntime's outputs are from PyTorch's, the largest over all locations of all sizes."""

    sizes: tuple[tuple[int, int], ...]  #: height, width
    box_error_px: float
    score_error: float
    same_detections: tuple[int, int] | None  #: how many of the selected are mmdet's own, of how many; None without selection

    @property
    def good(self) -> bool:
        """Are all differences rounding?"""
        near = self.box_error_px <= BOX_TOLERANCE_PX and self.score_error <= SCORE_TOLERANCE
        same, total = self.same_detections or (0, 0)
        return near and same >= SAME_DETECTIONS * total

    def words(self) -> str:
        """One line for a person."""
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes)
        line = (
            f"onnxruntime against PyTorch on {sizes}: boxes differ by at most {self.box_error_px:.1e} px (allowed {BOX_TOLERANCE_PX:g}), "
            f"scores by {self.score_error:.1e} (allowed {SCORE_TOLERANCE:g})"
        )
        return (
            line if self.same_detections is None else f"{line}, detections: {self.same_detections[0]} of {self.same_detections[1]} the same"
        )

    def facts(self) -> dict[str, str]:
        """The same for the file's metadata."""
        return {
            "max_box_error_px": f"{self.box_error_px:.2e}",
            "max_score_error": f"{self.score_error:.2e}",
            "checked_sizes": ", ".join(f"{height}x{width}" for height, width in self.sizes),
        }


def check_sizes(scale: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Three (height, width) for a test scale (width, height): its shape, on its side, and a smaller odd one; at most 512 pixels long."""
    shrink = min(1.0, LONGEST / max(scale))
    width, height = (max(32, round(side * shrink)) for side in scale)
    return (height, width), (width, height), (height * 2 // 3 | 1, width // 2 | 1)


def compare(raw: RawDetector, session: Session, sizes: tuple[tuple[int, int], ...], test_cfg: Mapping[str, Any] | None = None) -> Agreement:
    """Run both on one picture of each size.

    Args:
        raw: PyTorch's side.
        session: onnxruntime's, with ``boxes`` and ``scores`` among its outputs.
        sizes: height, width.
        test_cfg: of the model, where the graph selects too.
    """
    box_error, score_error, same, total = 0.0, 0.0, 0, 0
    for number, (height, width) in enumerate(sizes):
        image = picture(1, height, width, seed=number)
        with torch.no_grad():
            boxes, scores, *quality = (output.numpy() for output in raw(torch.from_numpy(image)))
            rows = raw.look(torch.from_numpy(image)).rows if test_cfg is not None else []
        theirs = session(image)
        box_error = max(box_error, _difference(theirs["boxes"], boxes))
        score_error = max(score_error, _difference(theirs["scores"], scores), *(_difference(theirs["quality"], q) for q in quality))
        if test_cfg is not None:
            mine = detections(theirs["boxes"], theirs["scores"], test_cfg, rows, theirs.get("quality"))[0]
            same, total = same + common(mine, theirs["dets"][0], theirs["labels"][0]), total + len(mine.scores_M)
    return Agreement(sizes, box_error, score_error, None if test_cfg is None else (same, total))


def picture(images: int, height: int, width: int, seed: int) -> np.ndarray:
    """``(N, 3, H, W)`` float32 in 0..255: coarse patches under fine noise, so that features of all sizes are there."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (images, 3, height // 16 + 1, width // 16 + 1)).repeat(16, axis=2).repeat(16, axis=3)
    fine = generator.uniform(-32, 32, (images, 3, height, width))
    return np.clip(coarse[..., :height, :width] + fine, 0, 255).astype(np.float32)


def common(mine: Detections, dets_M5: np.ndarray, labels_M: np.ndarray) -> int:
    """How many of ``mine`` are among the graph's: the label, the box to a tenth of a pixel and the score to 1e-4."""
    near = np.abs(mine.boxes_M4[:, None] - dets_M5[None, :, :4]).max(-1, initial=0) < 0.1
    near &= np.abs(mine.scores_M[:, None] - dets_M5[None, :, 4]) < SCORE_TOLERANCE
    return int((near & (mine.labels_M[:, None] == labels_M[None])).any(1).sum())


def works_on_two(session: Session, module: RawDetector | Selection) -> bool:
    """Does the graph give two pictures at once what PyTorch gives them?"""
    image = picture(2, 65, 97, seed=7)
    try:
        theirs = session(image)
    except Exception:  # onnxruntime raises classes of its own for a shape that does not fit
        return False
    raw = module.raw if isinstance(module, Selection) else module
    with torch.no_grad():
        boxes, scores, *_ = (output.numpy() for output in raw(torch.from_numpy(image)))
    fits = theirs["boxes"].shape == boxes.shape
    return bool(
        fits and _difference(theirs["boxes"], boxes) <= BOX_TOLERANCE_PX and _difference(theirs["scores"], scores) <= SCORE_TOLERANCE
    )


def _difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Largest absolute difference; infinite where a shape differs or a number is not finite."""
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        return float("inf")
    return float(np.abs(theirs - ours).max(initial=0))
