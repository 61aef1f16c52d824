"""The points behind each detection: which location of which level it came from, and where the operator looked there.

Shape legend: M detections, K points. Coordinates are pixels of the image as the network sees it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from salt_lab.ops.points import boxes_from_distances

Origin = tuple[int, int, int]  # level, row, column


class PointSets(NamedTuple):
    """Points behind M detections. A row is NaN where there are none: its level is one on which the operator does not act, or its score is
    below what was asked for. A field is None where this model has no such points at all."""

    r_points: Tensor | None  #: (M, K, 2) x, y
    c_points: Tensor | None  #: (M, K, 2) x, y; None also where class features are gathered at the R-points themselves
    coarse_N4: Tensor  #: (M, 4) x1 y1 x2 y2


def detect_with_points(model: Any, inputs: Tensor, meta: dict[str, Any], at_least: float = 0.0) -> tuple[Any, PointSets]:
    """Detections of one image by a model whose head has the operator, and the points behind those with a score of ``at_least``.

    Where a detection came from is asked of autograd: the gradient of its score with respect to the class maps is zero but at its own
    location. That holds for every host, whatever it does between maps and boxes.
    """
    head = model.bbox_head
    aligned: list[Any] = []
    hook = head.salt.register_forward_hook(lambda module, args, out: aligned.append(out))
    try:
        with torch.no_grad():
            outputs = head(model.extract_feat(inputs))
    finally:
        hook.remove()
    cls_maps, box_maps = ([m.detach().float().requires_grad_() for m in maps] for maps in outputs[:2])
    found = _boxes(head, cls_maps, box_maps, outputs[2] if len(outputs) > 2 else None, meta)
    origins: list[Origin | None] = [None] * len(found.scores)
    asked = (found.scores.detach() >= at_least).nonzero()[:, 0]
    for row, place in zip(asked.tolist(), find_origins(found.scores[asked], found.bboxes[asked], cls_maps, box_maps), strict=True):
        origins[row] = place
    return found, points_at(head, aligned, origins)


def _boxes(head: Any, cls_maps: list[Tensor], box_maps: list[Tensor], factor_maps: Any, meta: dict[str, Any]) -> Any:
    """The host's own post-processing of one image. Its public form, ``predict_by_feat``, would cut the graph that :func:`find_origins` reads."""
    priors = head.prior_generator.grid_priors([m.shape[-2:] for m in cls_maps], dtype=cls_maps[0].dtype, device=cls_maps[0].device)
    factors = [None] * len(priors) if factor_maps is None else [m[0] for m in factor_maps]
    maps = [m[0] for m in cls_maps], [m[0] for m in box_maps]
    return head._predict_by_feat_single(*maps, factors, priors, meta, cfg=head.test_cfg, rescale=False, with_nms=True)


def find_origins(scores: Tensor, boxes: Tensor, cls_maps: list[Tensor], box_maps: list[Tensor]) -> list[Origin | None]:
    """The location that each of M detections was computed at; None where neither its score nor its box depends on any.

    A score so sure that the sigmoid is flat has no gradient; then the box, which depends on the same location, is asked.
    """
    origins = _trace(scores, cls_maps)
    for row in [row for row, place in enumerate(origins) if place is None]:
        origins[row] = _trace(boxes[row].sum()[None], box_maps)[0]
    return origins


def _trace(values: Tensor, maps: list[Tensor]) -> list[Origin | None]:
    """The location of ``maps`` (level, row, column) that each of M values depends on most.

    Two backward passes for all of them: d(sum of m * value_m) / d(sum of value_m) is m wherever value m comes from.
    """
    origins: list[Origin | None] = [None] * len(values)
    if not len(values) or not values.requires_grad:
        return origins
    numbers = torch.arange(1, len(values) + 1, device=values.device, dtype=values.dtype)
    sums = [torch.autograd.grad(total, maps, retain_graph=True, allow_unused=True) for total in (values.sum(), (numbers * values).sum())]
    strongest = [0.0] * len(values)
    for level, (plain, weighted) in enumerate(zip(*sums, strict=True)):
        if plain is None:
            continue
        for _, channel, row, column in plain.nonzero().tolist():
            strength = float(plain[0, channel, row, column])
            number = round(float(weighted[0, channel, row, column]) / strength) - 1
            if abs(strength) > strongest[number]:
                strongest[number], origins[number] = abs(strength), (level, row, column)
    return origins


def points_at(head: Any, aligned: list[Any], origins: list[Origin | None]) -> PointSets:
    """The operator's points and coarse boxes at the given locations. ``aligned``: what the operator returned for each level."""
    operator = head.salt
    sizes = [level.coarse_N4HW.shape[-2:] for level in aligned]
    priors = head.prior_generator.grid_priors(sizes, device=aligned[0].coarse_N4HW.device)
    nowhere = aligned[0].coarse_N4HW.new_full
    M, K = len(origins), operator.num_points
    coarse_M4 = nowhere((M, 4), math.nan)
    r_points, c_points = (nowhere((M, K, 2), math.nan) if there else None for there in has_points(operator))
    for row, place in enumerate(origins):
        if place is None or place[0] not in operator.levels:
            continue
        level, i, j = place
        prior = priors[level][i * sizes[level][1] + j]
        centre_xy = (prior[:2] + prior[2:]) / 2 if len(prior) == 4 else prior
        cell = float(np.ravel(head.prior_generator.strides[level])[0])
        coarse_M4[row] = boxes_from_distances(centre_xy, cell * aligned[level].coarse_N4HW[0, :, i, j])
        for points, field in ((r_points, aligned[level].r_points_NK2HW), (c_points, aligned[level].c_points_NK2HW)):
            if points is not None:
                points[row] = centre_xy + cell * field[0, :, :, i, j].flip(-1)
    return PointSets(r_points, c_points, coarse_M4)


def has_points(operator: Any) -> tuple[bool, bool]:
    """Does this operator place R-points, and does it place C-points of their own?"""
    return operator.factors_out is not None, operator.vectors_out is not None


def limits(head: Any) -> tuple[str, ...]:
    """What of the operator this head does not have, in words for whoever asked for its points; empty where all is there."""
    if not hasattr(head, "salt"):
        return ("this model's head has no SALT operator: no points and no coarse box",)
    operator, said = head.salt, []
    r_points, c_points = has_points(operator)
    if not r_points:
        said.append("the operator gathers no features at points (reg_at and cls_at: cell): only the coarse box is drawn")
    elif operator.reg_align is None:
        said.append("box features are gathered at the cell (reg_at: cell): the R-points are those that the class side starts from")
    if r_points and not c_points:
        where = "at the R-points (cls_at: r_points)" if operator.cls_align is not None else "at the cell (cls_at: cell)"
        said.append(f"class features are gathered {where}: no C-points")
    strides = [float(np.ravel(stride)[0]) for stride in head.prior_generator.strides]
    if len(operator.levels) < len(strides):
        names = ", ".join(f"P{round(math.log2(strides[level]))}" for level in operator.levels)
        said.append(f"the operator acts on {names} only: boxes from other levels have no points")
    return tuple(said)
