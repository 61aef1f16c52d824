"""A data set as training sees it: images and boxes after the config's own pipeline (resize, flip, crop, mosaic, ...)."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from salt_lab.data.sheet import Labelled
from salt_lab.errors import DataError, UserError

LOADERS = {"train": "train_dataloader", "val": "val_dataloader"}


def augmented(config: Any, name: str, split: str, n: int, seed: int) -> tuple[list[Labelled], tuple[str, ...]]:
    """Images of a config's data set after its pipeline, and the names of the classes.

    Which images, and what chance does to each, follows from ``seed`` alone: an image looks the same whatever ``n``.

    Args:
        config: mmengine Config in mmdet's style. It is not changed.
        name: what to call the config in errors.
        split: "train" or "val".
        n: how many images; all where there are fewer.
        seed: 0, 1, ...

    Raises:
        UserError: no such data section, or its pipeline cannot be run.
        DataError: the annotation file is not there, an image cannot be read, or nothing is left to show.
    """
    from salt_lab.train.libraries import load_libraries

    load_libraries()
    section = (config.get(LOADERS[split]) or {}).get("dataset")
    if section is None:
        raise UserError(f"{name}: has no {LOADERS[split]}.dataset to show")
    dataset = _build(_open(section.to_dict() if hasattr(section, "to_dict") else section), name, split)
    classes = tuple((dataset.metainfo or {}).get("classes") or ())
    if len(dataset) == 0:
        raise DataError(f"{name}: {LOADERS[split]}.dataset has no image left (filter_cfg removes those without boxes)")
    samples = []
    for index in _choose(len(dataset), n, seed):
        _seed_everything([seed, index])
        samples.append(_labelled(_one(dataset, index, name, split), classes))
    return samples, classes


def _build(section: Mapping[str, Any], name: str, split: str) -> Any:
    from mmdet.registry import DATASETS

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return DATASETS.build(section)
    except FileNotFoundError as error:
        hint = f"{LOADERS[split]}.dataset.data_root=DIR"
        raise DataError(f"{name}: {error.filename or error}: no such file; put the data there or override {hint}") from error
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"{name}: {LOADERS[split]}.dataset cannot be built: {_reason(error)}") from error


def _one(dataset: Any, index: int, name: str, split: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = dataset[index]
    except FileNotFoundError as error:
        raise DataError(f"{name}: {error.filename or error}: no such image; check {LOADERS[split]}.dataset.data_prefix") from error
    except Exception as error:  # a pipeline is anybody's code
        raise UserError(f"{name}: {LOADERS[split]}: image {index} does not pass its pipeline: {_reason(error)}") from error
    if not isinstance(results, dict) or "img" not in results or "gt_bboxes" not in results:
        raise UserError(f"{name}: {LOADERS[split]}: its pipeline leaves no image with boxes (a pipeline with branches cannot be shown)")
    return results


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _choose(length: int, n: int, seed: int) -> list[int]:
    """``n`` of ``length`` images in their order; those of a smaller ``n`` are among them."""
    return sorted(np.random.default_rng(seed).permutation(length)[:n].tolist())


def _seed_everything(numbers: Sequence[int]) -> None:
    import torch

    state = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)  # noqa: NPY002  # mmdet's transforms draw from numpy's global generator
    torch.manual_seed(state)


def _open(section: Any) -> Any:
    """A copy of a data section whose pipelines end before the image is packed into a tensor and load boxes before they move them."""
    if isinstance(section, Mapping):
        return {key: _open_pipeline(value) if key == "pipeline" else _open(value) for key, value in section.items()}
    if isinstance(section, (list, tuple)):
        return type(section)(_open(item) for item in section)
    return section


def _open_pipeline(steps: Sequence[Mapping[str, Any]]) -> list[Any]:
    kept = [_open(step) for step in steps if _kind(step) != "PackDetInputs"]
    boxes = [step for step in kept if _kind(step) == "LoadAnnotations"]
    if not boxes and any(_kind(step).startswith("LoadImage") for step in kept):
        boxes = [dict(type="LoadAnnotations", with_bbox=True)]
    # mmdet's test pipelines read the boxes after resizing, to measure in the image's own pixels; here they are to be drawn
    others = [step for step in kept if _kind(step) != "LoadAnnotations"]
    at = next((place + 1 for place, step in enumerate(others) if _kind(step).startswith("LoadImage")), 0)
    return [*others[:at], *boxes, *others[at:]]


def _kind(step: Mapping[str, Any]) -> str:
    kind = step["type"]
    return (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]


def _labelled(results: dict[str, Any], classes: tuple[str, ...]) -> Labelled:
    boxes = results["gt_bboxes"]
    boxes = getattr(boxes, "tensor", boxes)
    count = len(boxes)
    labels = np.asarray(results.get("gt_bboxes_labels", np.zeros(count)), dtype=int)
    ignored = np.asarray(results.get("gt_ignore_flags", np.zeros(count)), dtype=bool)
    return Labelled(_pixels(results), np.asarray(boxes, dtype=float).reshape(-1, 4), labels, ignored, " ".join(_caption(results)))


def _pixels(results: dict[str, Any]) -> np.ndarray:
    """The image as uint8 BGR, with a ``Normalize`` step undone where there was one."""
    image = np.asarray(results["img"], dtype=np.float32)
    norm = results.get("img_norm_cfg")
    if norm is not None:
        image = image * np.asarray(norm["std"], dtype=np.float32) + np.asarray(norm["mean"], dtype=np.float32)
        image = image[..., ::-1] if norm.get("to_rgb") else image
    return np.ascontiguousarray(np.clip(np.round(image), 0, 255).astype(np.uint8))


def _caption(results: dict[str, Any]) -> Iterator[str]:
    """Which image, how large it is now, and whether it is mirrored."""
    yield f"id {results.get('img_id', '?')} "
    if path := results.get("img_path"):
        yield f"{str(path).replace(chr(92), '/').rpartition('/')[2]} "
    height, width = np.asarray(results["img"]).shape[:2]
    yield f"{width}x{height}"
    if results.get("flip"):
        yield f"{results.get('flip_direction') or 'horizontal'} flip"
