"""What a dense head says of the locations that its own assigner gives to objects, for every host that assigns by place alone.

One way for all hosts, with the operator and without **(ours)**: the head's own loss is started with each object's number in the place of its
class and ended as soon as it has its targets, so where a target's class would stand is the object that the location learns. Boxes and scores
come from the head's own post-processing, as for a model that is exported (:mod:`salt_lab.train.onnx_export.heads`).

Letters: N images, R rows (locations x priors of all levels, ordered as :func:`~salt_lab.models.hosts.seam.flat_N4`), P of them positive, K points.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from salt_lab.errors import UserError
from salt_lab.models.hosts.seam import flat_N4
from salt_lab.ops.points import boxes_from_distances
from salt_lab.train.onnx_export.heads import OpenHead, Rows, check_head
from salt_lab.train.points import has_points

#: mmdet's heads whose losses ask ``get_targets`` once for all, without the classes of objects or the scores of locations having a say.
KNOWN = ("ATSSHead", "AnchorHead", "FCOSHead", "FoveaHead", "GFLHead", "RepPointsHead", "VFNetHead")


class NoProbe(Exception):
    """This model's positive locations cannot be asked; the message says why."""


class Seen(NamedTuple):
    """What a head says of P positive locations of a batch. Lengths are pixels of the network's input; boxes that
    the head's coder would clip to the image are not clipped."""

    image_P: Tensor  #: which image of the batch
    object_P: Tensor  #: which object of that image
    level_P: Tensor  #: 0 is the finest
    stride_P: Tensor
    centre_P2: Tensor  #: x, y
    box_P4: Tensor  #: final box, x1 y1 x2 y2
    class_score_P: Tensor  #: of the object's class, 0..1
    quality_P: Tensor  #: what the host multiplies it with; 1 where there is nothing
    coarse_P4: Tensor  #: the operator's coarse box; NaN where it does not act
    reg_points_PK2: Tensor  #: R-points, x, y; NaN where it does not act, K = 0 where there are none
    cls_points_PK2: Tensor  #: C-points, likewise


def check_host(model: Any) -> None:
    """Can this detector's positives be asked?

    Raises:
        NoProbe: says why not.
    """
    try:
        check_head(model, "model")
    except UserError as error:
        raise NoProbe(str(error)) from error
    head = model.bbox_head
    for name in ("loss_by_feat", "get_targets"):
        owner = _owner(head, name)
        if owner is None or owner.__module__.partition(".")[0] != "mmdet" or owner.__name__ not in KNOWN:
            raise NoProbe(f"{type(head).__name__} assigns objects to locations in a way of its own, which looks at more than their places")


def look(
    model: Any, inputs: Tensor, metas: list[dict[str, Any]], objects: list[Tensor], labels: list[Tensor], crowds: list[Tensor]
) -> Seen:
    """Ask a detector in eval mode for the positives of a batch. Nothing of it changes. Call it without gradients.

    Args:
        model: one that :func:`check_host` accepts, with its parameters on the device of ``inputs``.
        inputs: ``(N, 3, H, W)``, preprocessed.
        metas: what mmdet knows of each image (``img_shape``, ``pad_shape``, ...).
        objects, labels: per image the boxes ``(G, 4)``, x1 y1 x2 y2 in the network's pixels, and the classes ``(G,)``.
        crowds: per image the boxes to ignore.

    Raises:
        NoProbe: its targets are not as expected.
    """
    head, features = model.bbox_head, model.extract_feat(inputs)
    with _listening(head) as aligned:
        outputs = head(features)
    priors = head.prior_generator.grid_priors([m.shape[-2:] for m in outputs[0]], dtype=torch.float32, device=inputs.device)
    place = _Place.of(len(inputs), priors, head.prior_generator.strides)
    object_R = _assigned(head, _training_outputs(head, features, outputs), metas, objects, crowds)
    rows = _decoded(head, outputs, priors, metas)
    if not len(object_R) == len(rows.boxes_R4) == len(place.image_R):
        raise NoProbe(f"{type(head).__name__}: {len(object_R)} targets, {len(rows.boxes_R4)} boxes, {len(place.image_R)} locations")
    at_P = (object_R >= 0).nonzero()[:, 0]
    image_P, level_P, stride_P, centre_P2 = (column[at_P] for column in place)
    before_N = torch.tensor([0, *(len(each) for each in labels)], device=inputs.device).cumsum(0)
    label_P = torch.cat(labels)[before_N[image_P] + object_R[at_P]]
    score_P = rows.scores_RC[at_P].gather(1, label_P[:, None])[:, 0]
    quality_P = torch.ones_like(score_P) if rows.quality_R is None else rows.quality_R[at_P]
    points = _points(head, aligned, at_P, centre_P2, stride_P)
    return Seen(image_P, object_R[at_P], level_P, stride_P, centre_P2, rows.boxes_R4[at_P], score_P, quality_P, *points)


def _owner(head: Any, name: str) -> type | None:
    """The class that gives a head this method, the lab's own heads left out: they hand it on."""
    return next((kind for kind in type(head).__mro__ if name in vars(kind) and not kind.__module__.startswith("salt_lab.")), None)


class _Caught(Exception):
    """Ends a loss that has its targets."""


def _assigned(head: Any, outputs: tuple[Any, ...], metas: list[dict[str, Any]], objects: list[Tensor], crowds: list[Tensor]) -> Tensor:
    """``(R,)``: the object of its image that each row learns; -1 = none."""
    from mmengine.structures import InstanceData

    first = head.num_classes + 1  # above every class and above the background's number
    truth = [InstanceData(bboxes=boxes, labels=torch.arange(len(boxes), device=boxes.device) + first) for boxes in objects]
    owner, kept = _owner(head, "loss_by_feat"), list[Any]()
    ask = _owner(head, "get_targets").get_targets  # type: ignore[union-attr]

    def catch(*args: Any, **keywords: Any) -> Any:
        targets = ask(head, *args, **keywords)
        if keywords.get("stage") == "init":  # RepPoints' first boxes; those that count come from its second stage
            return targets
        kept.append(targets)
        raise _Caught

    head.get_targets = catch
    try:
        owner.loss_by_feat(head, *outputs, truth, metas, [InstanceData(bboxes=boxes) for boxes in crowds])  # type: ignore[union-attr]
    except _Caught:
        pass
    finally:
        del head.get_targets
    if not kept or kept[0] is None:
        raise NoProbe(f"{type(head).__name__}: its loss has no targets of its own")
    number_R = _labels_of(kept[0]) - first
    return torch.where(number_R >= 0, number_R, torch.full_like(number_R, -1))


def _labels_of(targets: Any) -> Tensor:
    """The first targets that are whole numbers: labels, level by level or in one piece."""
    for part in targets:
        levels = [part] if isinstance(part, Tensor) else part
        if isinstance(levels, (list, tuple)) and levels and all(isinstance(v, Tensor) and v.dtype == torch.long for v in levels):
            return torch.cat([level.flatten() for level in levels])
    raise NoProbe("no labels among the head's targets")


def _training_outputs(head: Any, features: Any, outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the loss takes before the batch: what the head returned, or where that is less (first boxes, points) what it returns in training.

    Only the head's own mode is switched: that of its layers (batch norm, dropout) stays.
    """
    names = list(inspect.signature(_owner(head, "loss_by_feat").loss_by_feat).parameters)  # type: ignore[union-attr]
    wanted = names.index("batch_gt_instances") - 1
    if wanted <= len(outputs):
        return tuple(outputs[:wanted])
    before, head.training = head.training, True
    try:
        return tuple(head(features)[:wanted])
    finally:
        head.training = before


def _decoded(head: Any, outputs: tuple[Any, ...], priors: list[Tensor], metas: list[dict[str, Any]]) -> Rows:
    """Boxes and scores of all rows. Images of one size stand below each other as one tall picture, which the head takes for one image."""
    counts, opened = [len(level) for level in priors], OpenHead(head)
    starts = [len(metas) * sum(counts[:level]) for level in range(len(counts))]
    at, found = list[Tensor](), list[Rows]()
    for shape in dict.fromkeys(tuple(meta["img_shape"][:2]) for meta in metas):
        images = torch.tensor([n for n, meta in enumerate(metas) if tuple(meta["img_shape"][:2]) == shape], device=priors[0].device)
        maps = [[m[images].float().transpose(0, 1).flatten(1, 2) for m in levels] for levels in outputs[:3]]
        found.append(opened(maps[0], maps[1], maps[2] if len(maps) > 2 else None, [p.repeat(len(images), 1) for p in priors], shape))
        for start, count in zip(starts, counts, strict=True):
            at.append((start + images[:, None] * count + torch.arange(count, device=images.device)).flatten())
    back = torch.cat(at).argsort()
    quality = [rows.quality_R for rows in found if rows.quality_R is not None]
    boxes_R4, scores_RC = torch.cat([rows.boxes_R4 for rows in found]), torch.cat([rows.scores_RC for rows in found])
    return Rows(boxes_R4[back], scores_RC[back], torch.cat(quality)[back] if quality else None)


class _Place(NamedTuple):
    """Where each row lies."""

    image_R: Tensor
    level_R: Tensor
    stride_R: Tensor
    centre_R2: Tensor

    @staticmethod
    def of(images: int, priors: list[Tensor], strides: Any) -> _Place:
        """``priors``: per level, one row a prior of one image, points or boxes."""
        parts: list[tuple[Tensor, ...]] = []
        for level, (prior, stride) in enumerate(zip(priors, strides, strict=True)):
            centre = (prior[:, :2] + prior[:, 2:]) / 2 if prior.shape[1] == 4 else prior[:, :2]
            number = torch.arange(images, device=prior.device).repeat_interleave(len(prior))
            side = float(stride[0] if isinstance(stride, (tuple, list)) else stride)
            parts.append((number, torch.full_like(number, level), centre.new_full((len(number),), side), centre.repeat(images, 1)))
        return _Place(*(torch.cat(column) for column in zip(*parts, strict=True)))


@contextlib.contextmanager
def _listening(head: Any) -> Iterator[list[Any]]:
    """What the operator returns for each level while this is open; stays empty where the head has none."""
    aligned: list[Any] = []
    hook = head.salt.register_forward_hook(lambda module, args, out: aligned.append(out)) if hasattr(head, "salt") else None
    try:
        yield aligned
    finally:
        if hook is not None:
            hook.remove()


def _points(head: Any, aligned: list[Any], at_P: Tensor, centre_P2: Tensor, stride_P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coarse boxes, R-points and C-points of the rows ``at_P``."""
    if not aligned:
        none = centre_P2.new_zeros(len(at_P), 0, 2)
        return centre_P2.new_full((len(at_P), 4), math.nan), none, none
    coarse = [level.coarse_N4HW for level in aligned]
    coarse_P4 = boxes_from_distances(centre_P2, flat_N4(coarse)[at_P] * stride_P[:, None])
    coarse_P4[~head.acting_rows(coarse)[at_P]] = math.nan
    r_points, c_points = has_points(head.salt)
    K = head.salt.num_points
    reg = _at_points([level.r_points_NK2HW for level in aligned], coarse, K if r_points else 0)[at_P]
    cls = _at_points([level.c_points_NK2HW for level in aligned], coarse, K if c_points else 0)[at_P]
    reg_PK2, cls_PK2 = (centre_P2[:, None] + cells * stride_P[:, None, None] for cells in (reg, cls))
    return coarse_P4, reg_PK2, cls_PK2


def _at_points(levels: list[Tensor | None], coarse: list[Tensor], K: int) -> Tensor:
    """Points of all rows, ``(R, K, 2)``, x, y in cells; NaN on levels that have none."""
    maps = []
    for points, like in zip(levels, coarse, strict=True):
        there = points is not None and K > 0
        maps.append(points.flatten(1, 2) if there else like.new_full((len(like), 2 * K, *like.shape[-2:]), math.nan))  # type: ignore[union-attr]
    rows = flat_N4(maps)
    return rows.reshape(len(rows), K, 2).flip(-1)
