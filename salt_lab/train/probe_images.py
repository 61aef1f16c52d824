"""From one batch of val images to the columns of a probe: objects as mmdet would train on them, pixels of the original picture, ids.

G objects and C crowds of an image, P positive locations, K points.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from salt_lab.evaluate.probe_data import Probe, arrays, empty_probe
from salt_lab.train.probe_hosts import Seen, look

#: Most positives that are kept. Where there are more, those of objects drawn evenly are, each object's all or none **(ours)**.
LIMIT = 20_000
#: Of the draw of objects: the same for all trials on a data set, so that they keep the same objects.
SEED = 0
Columns = dict[str, np.ndarray]


class Objects(NamedTuple):
    """The G objects of one image; boxes are x1 y1 x2 y2 in pixels of the original picture."""

    boxes_G4: np.ndarray
    labels_G: np.ndarray  #: classes as the head numbers them
    columns: Columns  #: what a probe says of an object, one row an object, and ``turn``: when it is drawn
    crowds_C4: np.ndarray  #: boxes to ignore


def read_objects(file: Path, cat2label: dict[int, int]) -> dict[int, Objects]:
    """Image id -> its objects, those that mmdet would train on; images without any are left out.

    mmdet leaves out annotations that are marked ``ignore``, have no area, are narrower than a pixel or lie outside the picture.
    """
    content = json.loads(file.read_bytes())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    ids = sorted(row["id"] for row in content["annotations"])
    turns = dict(zip(ids, np.random.default_rng(SEED).permutation(len(ids)).tolist(), strict=True))
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in content["annotations"]:
        if row["category_id"] in cat2label and row["image_id"] in sizes and _is_trained_on(row, *sizes[row["image_id"]]):
            rows.setdefault(row["image_id"], []).append(row)
    found = {image: _objects([r for r in them if not r.get("iscrowd")], them, cat2label, turns) for image, them in rows.items()}
    return {image: objects for image, objects in found.items() if len(objects.boxes_G4)}


def _is_trained_on(row: dict[str, Any], width: float, height: float) -> bool:
    x, y, w, h = row["bbox"]
    inside = min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)
    return inside and row["area"] > 0 and w >= 1 and h >= 1 and not row.get("ignore")


def _objects(rows: list[dict[str, Any]], all_rows: list[dict[str, Any]], cat2label: dict[int, int], turns: dict[int, int]) -> Objects:
    boxes_G4, crowds_C4 = _corners(rows), _corners([row for row in all_rows if row.get("iscrowd")])
    columns = {
        "image_P": np.array([row["image_id"] for row in rows]),
        "object_P": np.array([row["id"] for row in rows]),
        "category_P": np.array([row["category_id"] for row in rows]),
        "object_box_P4": boxes_G4,
        "area_P": np.array([row["area"] for row in rows], np.float64),
        "mark_P2": np.array([row.get("mark") or (np.nan, np.nan) for row in rows], np.float64).reshape(-1, 2),
        "turn": np.array([turns[row["id"]] for row in rows]),
    }
    return Objects(boxes_G4, np.array([cat2label[row["category_id"]] for row in rows], np.int64), columns, crowds_C4)


def _corners(rows: list[dict[str, Any]]) -> np.ndarray:
    xywh = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def probe_batch(model: Any, items: Sequence[Any], truth: Sequence[Objects]) -> Columns:
    """The columns of a probe for some items of the data set, from a model in eval mode, without gradients; ``truth``: the items' objects."""
    data = {"inputs": [item["inputs"] for item in items], "data_samples": [item["data_samples"] for item in items]}
    data = model.data_preprocessor(data, False)
    inputs, metas = data["inputs"], [sample.metainfo for sample in data["data_samples"]]
    boxes, crowds = ([_resized(box, meta, inputs) for box, meta in zip(some, metas, strict=True)]
                     for some in ([t.boxes_G4 for t in truth], [t.crowds_C4 for t in truth]))  # fmt: skip
    labels = [torch.from_numpy(t.labels_G).to(inputs.device) for t in truth]
    return _columns(look(model, inputs, metas, boxes, labels, crowds), metas, truth)


def _resized(boxes_G4: np.ndarray, meta: dict[str, Any], like: Tensor) -> Tensor:
    """Boxes as the training pipeline makes them: resized with the picture, and clipped to it."""
    (height, width), scale_2 = meta["img_shape"][:2], np.array(meta["scale_factor"], np.float32)
    clipped_G4 = (boxes_G4.astype(np.float32) * np.tile(scale_2, 2)).clip(0, np.array([width, height, width, height], np.float32))
    return torch.from_numpy(clipped_G4).to(like.device)


def _columns(seen: Seen, metas: list[dict[str, Any]], truth: Sequence[Objects]) -> Columns:
    """From the network's pixels to those of the original picture, and from numbers within the batch to ids."""
    found = {name: value.cpu().numpy() for name, value in seen._asdict().items()}
    image_P = found["image_P"]
    before_N = np.cumsum([0, *(len(each.boxes_G4) for each in truth)])
    at_P = before_N[image_P] + found["object_P"]
    of_object = {name: np.concatenate([each.columns[name] for each in truth])[at_P] for name in truth[0].columns}
    scale_P2 = np.array([meta["scale_factor"] for meta in metas], np.float32)[image_P]
    far_P4 = np.array([meta["img_shape"][1::-1] * 2 for meta in metas], np.float32)[image_P]
    target_P4 = of_object["object_box_P4"]
    iou_P, coarse_P = (_iou(found[name].clip(0, far_P4) / np.tile(scale_P2, 2), target_P4) for name in ("box_P4", "coarse_P4"))
    return of_object | {
        "score_P": found["class_score_P"] * found["quality_P"],
        "class_score_P": found["class_score_P"],
        "iou_P": iou_P,
        "coarse_iou_P": coarse_P,
        "level_P": found["level_P"],
        "stride_P": found["stride_P"] / np.sqrt(scale_P2.prod(axis=1)),
        "cell_P2": found["centre_P2"] / scale_P2,
        "reg_points_PK2": found["reg_points_PK2"] / scale_P2[:, None],
        "cls_points_PK2": found["cls_points_PK2"] / scale_P2[:, None],
    }


def _iou(a_P4: np.ndarray, b_P4: np.ndarray) -> np.ndarray:
    """IoU row by row; NaN where a box is."""
    overlap_P = np.maximum(np.minimum(a_P4[:, 2:], b_P4[:, 2:]) - np.maximum(a_P4[:, :2], b_P4[:, :2]), 0).prod(axis=1)
    areas = [np.maximum(box[:, 2:] - box[:, :2], 0).prod(axis=1) for box in (a_P4, b_P4)]
    return np.asarray(overlap_P / np.maximum(areas[0] + areas[1] - overlap_P, 1e-9))


class Kept:
    """Positives so far, never many more than ``limit``: above it those of the objects whose turn comes first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.total = limit, 0
        self.columns: Columns = {}

    def add(self, columns: Columns, total: int | None = None) -> None:
        """All positives of some objects; ``total``: how many there were before some were left out."""
        self.total += len(columns["turn"]) if total is None else total
        self.columns = {name: np.concatenate([self.columns[name], new]) for name, new in columns.items()} if self.columns else columns
        if len(self.columns["turn"]) > 4 * self.limit:
            self.thin()

    def thin(self) -> None:
        """Objects by turn, as many as fit, each with all its positives."""
        turns, counts = np.unique(self.columns["turn"], return_counts=True)
        fit = turns[np.cumsum(counts) <= self.limit]
        at = np.isin(self.columns["turn"], fit)
        self.columns = {name: value[at] for name, value in self.columns.items()}


def joined(parts: Sequence[Kept | str]) -> Probe:
    """One probe from what each worker found; a worker's reason stands for all."""
    for part in parts:
        if isinstance(part, str):
            return empty_probe(part)
    whole = Kept(parts[0].limit if isinstance(parts[0], Kept) else LIMIT)
    for part in parts:
        if isinstance(part, Kept) and part.columns:
            whole.add(part.columns, part.total)
    if not whole.columns or not whole.total:
        return empty_probe("no location of the val images learns an object")
    whole.thin()
    found = whole.columns
    order = np.lexsort((found["cell_P2"][:, 0], found["cell_P2"][:, 1], found["level_P"], found["object_P"], found["image_P"]))
    return Probe(**{name: found[name][order] for name in arrays()}, total=whole.total)
