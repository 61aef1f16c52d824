"""Inference with one model: boxes of an image and, for a SALT head, the points and coarse box that each of them came from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from salt_lab.errors import UserError, WeightsError
from salt_lab.train.points import detect_with_points, limits


class InferResult(NamedTuple):
    """What a detector found on one image; M boxes by descending score, K points. Coordinates are pixels of the image as read.

    Points and coarse boxes are None where the model has none, or none were asked for; a row is NaN where that box has none
    (:class:`~salt_lab.train.points.PointSets`).
    """

    boxes_N4: np.ndarray  #: (M, 4) x1 y1 x2 y2
    scores_N: np.ndarray  #: (M,) 0..1
    labels_N: np.ndarray  #: (M,) indices into ``classes``
    classes: tuple[str, ...]
    r_points: np.ndarray | None  #: (M, K, 2) x, y
    c_points: np.ndarray | None  #: (M, K, 2) x, y
    coarse_N4: np.ndarray | None  #: (M, 4) x1 y1 x2 y2
    image: np.ndarray  #: (H, W, 3) uint8 BGR


class Inferencer:
    """A model ready to look at images.

    Args:
        config: mmdet-style config file.
        checkpoint: weights that fit it; plain tensors (loaded without trusting a pickle).
        device: "cpu", "cuda", "cuda:1", ...; None takes a GPU where there is one.

    Attributes:
        limits: what of the SALT operator the model does not have, in words (:func:`salt_lab.train.points.limits`).

    Raises:
        UserError: the config cannot be read, or the device is not there.
        WeightsError: the checkpoint cannot be read or does not fit the config.
    """

    def __init__(self, config: str, checkpoint: str, device: str | None = None) -> None:
        from salt_lab.train.libraries import load_libraries

        load_libraries()
        from mmcv.transforms import Compose
        from mmdet.registry import MODELS

        from salt_lab.models.weights import read_weights

        self.config = read_config(config)
        self.device = pick_device(device)
        self.classes = class_names(self.config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = MODELS.build(strip_init(self.config.model)).to(self.device).eval()
        load_fitting(self.model, read_weights(Path(checkpoint)), checkpoint)
        head = getattr(self.model, "bbox_head", None)
        self.has_operator, self.limits = hasattr(head, "salt"), limits(head)
        steps = [step for step in self.config.test_dataloader.dataset.pipeline if step["type"] != "LoadAnnotations"]
        self.from_file, self.from_pixels = Compose(steps), Compose([_takes_pixels(steps[0]), *steps[1:]])

    def __call__(self, image: str | np.ndarray, points: bool = True, at_least: float = 0.0) -> InferResult:
        """Look at one image.

        Args:
            image: a picture's file, or pixels (H, W, 3) uint8 BGR, such as a video's frame.
            points: find the points behind each box too; boxes alone are faster.
            at_least: lowest score, 0 to 1, of a box whose points are looked for.

        Raises:
            UserError: the file cannot be read as a picture.
        """
        pixels = read_picture(image) if isinstance(image, str) else image
        packed = self.from_file(dict(img_path=image, img_id=0)) if isinstance(image, str) else self.from_pixels(dict(img=pixels, img_id=0))
        batch = self.model.data_preprocessor(dict(inputs=[packed["inputs"]], data_samples=[packed["data_samples"]]), False)
        sample = batch["data_samples"][0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mmdet warns of its own deprecated names
            if points and self.has_operator:
                found, sets = detect_with_points(self.model, batch["inputs"], sample.metainfo, at_least)
            else:
                found, sets = self._detect(batch["inputs"], sample), None
        scale_2 = np.array(sample.metainfo["scale_factor"], dtype=np.float32)
        boxes, scores, labels = (t.detach().cpu().numpy() for t in (found.bboxes, found.scores, found.labels))
        r_points, c_points, coarse = (None if p is None else p.detach().cpu().numpy() for p in sets or (None, None, None))
        return InferResult(
            boxes / np.tile(scale_2, 2),
            scores,
            labels,
            self.classes,
            None if r_points is None else r_points / scale_2,
            None if c_points is None else c_points / scale_2,
            None if coarse is None else coarse / np.tile(scale_2, 2),
            pixels,
        )

    def _detect(self, inputs: Tensor, sample: Any) -> Any:
        """Any detector of mmdet, by its own public way; boxes in the network's pixels."""
        with torch.no_grad():
            return self.model.predict(inputs, [sample], rescale=False)[0].pred_instances


def read_picture(path: str) -> np.ndarray:
    """A picture's pixels (H, W, 3) uint8 BGR.

    Raises:
        UserError: the file cannot be read as a picture.
    """
    import cv2

    pixels = cv2.imread(path)
    if pixels is None:
        raise UserError(f"{path}: cannot be read as a picture (png, jpg, ...). Save it again, or leave it out")
    return np.asarray(pixels)


def _takes_pixels(loader: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline's loading step, for pixels in place of a file."""
    return dict(type="LoadImageFromNDArray", to_float32=loader.get("to_float32", False))


def read_config(path: str) -> Any:
    """An mmengine Config; a clear error where it cannot be read."""
    from mmengine.config import Config

    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is Python code: anything can go wrong in it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UserError(f"{path}: cannot be read as an mmdet-style config: {reason}") from error


def strip_init(model: Any) -> Any:
    """The model section without ``init_cfg`` downloads: all weights come from the checkpoint."""
    model = model.copy()
    model.backbone = {k: v for k, v in model.backbone.items() if k not in ("init_cfg", "pretrained")}
    return model


def class_names(config: Any) -> tuple[str, ...]:
    """Names of the classes: the data section's, else COCO's 80."""
    meta = config.test_dataloader.dataset.get("metainfo") or {}
    if "classes" in meta:
        return tuple(meta["classes"])
    from mmdet.datasets import CocoDataset

    return tuple(CocoDataset.METAINFO["classes"])


def pick_device(device: str | None) -> str:
    """The device asked for, or a GPU where there is one."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: not available here ({str(error).splitlines()[0]}); use cpu") from error
    return device


def load_fitting(model: torch.nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Load a whole model's weights, read from ``path``; every tensor of the model must be among them with its shape.

    Raises:
        WeightsError: says how many are missing or differ, and names the first.
    """
    own = model.state_dict()
    wrong = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
    if wrong:
        raise WeightsError(
            f"{path}: does not fit the config: {len(wrong)} of {len(own)} tensors are missing or have another shape, first {wrong[0]}"
        )
    model.load_state_dict({k: state[k] for k in own})
