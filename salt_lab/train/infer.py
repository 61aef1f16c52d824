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
from salt_lab.ops.points import boxes_from_distances


class InferResult(NamedTuple):
    """What a detector found on one image; M boxes by descending score, K points. Coordinates are pixels of the image as read."""

    boxes_N4: np.ndarray  #: (M, 4) x1 y1 x2 y2
    scores_N: np.ndarray  #: (M,) 0..1
    labels_N: np.ndarray  #: (M,) indices into ``classes``
    classes: tuple[str, ...]
    r_points: np.ndarray | None  #: (M, K, 2) x, y; None without the operator
    c_points: np.ndarray | None  #: (M, K, 2) x, y
    coarse_N4: np.ndarray | None  #: (M, 4) x1 y1 x2 y2
    image: np.ndarray  #: (H, W, 3) uint8 BGR


class Inferencer:
    """A model ready to look at images.

    Args:
        config: mmdet-style config file.
        checkpoint: weights that fit it; plain tensors (loaded without trusting a pickle).
        device: "cpu", "cuda", "cuda:1", ...; None takes a GPU where there is one.

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
        steps = [step for step in self.config.test_dataloader.dataset.pipeline if step["type"] != "LoadAnnotations"]
        self.pipeline = Compose(steps)

    def __call__(self, image: str) -> InferResult:
        """Look at one image file.

        Raises:
            UserError: it cannot be read as a picture.
        """
        import cv2

        pixels = cv2.imread(image)
        if pixels is None:
            raise UserError(f"{image}: cannot be read as a picture (png, jpg, ...)")
        packed = self.pipeline(dict(img_path=image, img_id=0))
        batch = self.model.data_preprocessor(dict(inputs=[packed["inputs"]], data_samples=[packed["data_samples"]]), False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mmdet warns of its own deprecated names
            found, points = detect(self.model, batch["inputs"], batch["data_samples"][0].metainfo)
        scale_2 = np.array(batch["data_samples"][0].metainfo["scale_factor"], dtype=np.float32)
        boxes, scores, labels = (t.detach().cpu().numpy() for t in (found.bboxes, found.scores, found.labels))
        r_points, c_points, coarse = (None, None, None) if points is None else (p.detach().cpu().numpy() for p in points)
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


def detect(model: Any, inputs: Tensor, meta: dict[str, Any]) -> tuple[Any, tuple[Tensor, Tensor, Tensor] | None]:
    """Detections of one image in the network's own pixels, and the points behind each, if the head has the operator.

    Where a detection came from is asked of autograd: the gradient of its score with respect to the class maps is zero but at its own
    location. That holds for every host, whatever it does between maps and boxes.
    """
    head = model.bbox_head
    aligned: list[Any] = []
    hook = head.salt.register_forward_hook(lambda module, args, out: aligned.append(out)) if hasattr(head, "salt") else None
    try:
        with torch.no_grad():
            outputs = head(model.extract_feat(inputs))
    finally:
        if hook is not None:
            hook.remove()
    class_maps = [m.detach().requires_grad_(bool(aligned)) for m in outputs[0]]
    found = _boxes(head, class_maps, outputs, meta)
    if not aligned:
        return found, None
    origins = [origin(score, class_maps) for score in found.scores]
    return found, points_at(head, aligned, origins)


def _boxes(head: Any, class_maps: list[Tensor], outputs: Any, meta: dict[str, Any]) -> Any:
    """The host's own post-processing of one image. Its public form, ``predict_by_feat``, would cut the graph that :func:`origin` reads."""
    priors = head.prior_generator.grid_priors([m.shape[-2:] for m in class_maps], dtype=class_maps[0].dtype, device=class_maps[0].device)
    factors = [m[0] for m in outputs[2]] if len(outputs) > 2 else [None] * len(priors)
    maps = [m[0] for m in class_maps], [m[0] for m in outputs[1]]
    return head._predict_by_feat_single(*maps, factors, priors, meta, cfg=head.test_cfg, rescale=False, with_nms=True)


def origin(score: Tensor, class_maps: list[Tensor]) -> tuple[int, int, int]:
    """(level, row, column) of the location that a score was computed at."""
    gradients = torch.autograd.grad(score, class_maps, retain_graph=True, allow_unused=True)
    strength = [0.0 if g is None else float(g.abs().max()) for g in gradients]
    level = int(np.argmax(strength))
    at = int(gradients[level][0].abs().amax(0).argmax())
    return level, *divmod(at, class_maps[level].shape[-1])


def points_at(head: Any, aligned: list[Any], origins: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """R-points (M, K, 2), C-points (M, K, 2), both x y, and coarse boxes (M, 4), in the network's pixels, at the given locations."""
    sizes = [level.coarse_N4HW.shape[-2:] for level in aligned]
    priors = head.prior_generator.grid_priors(sizes, device=aligned[0].coarse_N4HW.device)
    r_points, c_points, coarse = [], [], []
    for level, row, column in origins:
        prior = priors[level][row * sizes[level][1] + column]
        centre_xy = (prior[:2] + prior[2:]) / 2 if len(prior) == 4 else prior
        stride = float(np.ravel(head.prior_generator.strides[level])[0])
        r_points.append(centre_xy + stride * aligned[level].r_points_NK2HW[0, :, :, row, column].flip(-1))
        c_points.append(centre_xy + stride * aligned[level].c_points_NK2HW[0, :, :, row, column].flip(-1))
        coarse.append(boxes_from_distances(centre_xy, stride * aligned[level].coarse_N4HW[0, :, row, column]))
    K = head.salt.num_points
    empty = priors[0].new_zeros
    if not origins:
        return empty(0, K, 2), empty(0, K, 2), empty(0, 4)
    return torch.stack(r_points), torch.stack(c_points), torch.stack(coarse)


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
