"""The losses that SALT adds to any host: the coarse box loss and SDR, the loss in which the refined box teaches the coarse one.

Shape legend: P positive locations of the host's own assignment, over all images and levels of a worker.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from torch import Tensor
from torch.nn import functional as F


class Positives(NamedTuple):
    """The positive locations of one batch. The three boxes of a row share one unit and origin; GIoU does not care which."""

    coarse_P4: Tensor  #: coarse boxes, x1 y1 x2 y2, with gradient
    refined_P4: Tensor  #: the host's refined boxes
    target_P4: Tensor  #: ground truth
    weight_P: Tensor  #: the host's own regression weight u_i, detached
    cell_P1: Tensor | float  #: the side of a location's cell in the boxes' unit: its stride where that is pixels, 1 where it is cells


def giou_loss_sum(boxes_P4: Tensor, target_P4: Tensor, weight_P: Tensor) -> Tensor:
    """``sum_i u_i * (1 - GIoU(box_i, target_i))``: a scalar, exactly 0 with a gradient path when there is no positive."""
    if boxes_P4.numel() == 0:
        return boxes_P4.sum() * 0
    return (weight_P * (1 - bbox_overlaps(boxes_P4, target_P4, mode="giou", is_aligned=True))).sum()


def sdr_loss_sum(positives: Positives, kind: str, gate: bool) -> Tensor:
    """``sum_i u_i * sdr_i`` **(ours)**, where the refined box, without gradient, is the coarse box's teacher.

    ``kind`` "giou": ``1 - GIoU``; "smooth_l1": mean over the four sides of the smooth L1 (beta = 1) of the distances' difference in cells.
    With ``gate`` only locations count whose refined box has the greater IoU with the ground truth.

    "giou" does not blend with the coarse loss, it outvotes it or not: both pull at a side with a force that does not fade with the distance, so
    with ``lambda_sdr >= lambda_c`` the coarse box learns the refined one and the ground truth has no say; below, the ground truth alone decides where
    it ends. "smooth_l1" blends. (Measured: docs/findings.md, section 3.)
    """
    refined_P4, weight_P = positives.refined_P4.detach(), positives.weight_P
    if gate:
        coarse_iou_P, refined_iou_P = (
            bbox_overlaps(boxes, positives.target_P4, is_aligned=True) for boxes in (positives.coarse_P4.detach(), refined_P4)
        )
        weight_P = weight_P * (refined_iou_P > coarse_iou_P)
    if kind == "giou":
        return giou_loss_sum(positives.coarse_P4, refined_P4, weight_P)
    # corners differ by what the distances differ by: both boxes are measured from the same location
    apart_P4 = (positives.coarse_P4 - refined_P4) / positives.cell_P1
    return (weight_P * F.smooth_l1_loss(apart_P4, torch.zeros_like(apart_P4), reduction="none").mean(dim=1)).sum()


def added_losses(
    positives: Positives, coarse_weight: float, sdr_weight: float, floor: float, sdr_kind: str = "giou", sdr_gate: bool = False
) -> dict[str, Tensor]:
    """Coarse loss and SDR, both divided by ``sum u_i`` averaged over all workers.

    Coarse: ``lambda_c * u_i * (1 - GIoU(coarse_i, gt_i))`` (released code). SDR **(ours)**, since the paper gives no formula and the
    released code has no such term: ``lambda_sdr * u_i * (1 - GIoU(coarse_i, stop_gradient(refined_i)))`` or a variant of it, see
    :func:`sdr_loss_sum`.

    Args:
        positives: what the host assigned and predicted.
        coarse_weight: lambda_c >= 0; 0 leaves the term out.
        sdr_weight: lambda_sdr >= 0; 0 leaves the term out.
        floor: smallest normaliser, the host's own (1e-6 in FCOS, 1 in ATSS and GFL).
        sdr_kind: "giou" or "smooth_l1".
        sdr_gate: SDR only where the refined box is better than the coarse one.

    Returns:
        ``loss_coarse`` and ``loss_sdr``, scalars, as far as their weights are not 0.
    """
    normaliser = reduce_mean(positives.weight_P.sum().detach()).clamp(min=floor)
    losses = {}
    if coarse_weight:
        losses["loss_coarse"] = coarse_weight * giou_loss_sum(positives.coarse_P4, positives.target_P4, positives.weight_P) / normaliser
    if sdr_weight:
        losses["loss_sdr"] = sdr_weight * sdr_loss_sum(positives, sdr_kind, sdr_gate) / normaliser
    return losses
