"""Focal losses with the signatures of mmcv's compiled ops: each writes its result into the tensor that the caller hands in.

The formulas are mmcv's CUDA kernels' (RetinaNet, arXiv 1708.02002) with two exceptions, both nearer to double precision: logarithms of
sigmoids are taken from the logits (the kernels lose them to rounding beyond about 16), and half precision is computed in float32.

Legend: N rows (locations), C classes. A target that names no class (background: C; ignored: negative) makes a row of negatives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float) -> None:
    """Write the loss of each logit into ``output``: ``-alpha (1 - p)^gamma log p`` at the target, ``-(1 - alpha) p^gamma log(1 - p)`` elsewhere.

    Args:
        input: logits ``(N, C)``.
        target: class per row, ``(N,)`` int64.
        weight: per class ``(C,)``, or empty for none. A row whose target is no class keeps weight 1 **(ours**: mmcv reads past the end).
        output: ``(N, C)``, overwritten.
        gamma: focusing power, at least 0.
        alpha: share of the positives, 0-1.
    """
    x_NC, is_target_NC = _widened(input), _one_hot(target, input.shape[1])
    p_NC, q_NC = x_NC.sigmoid(), (-x_NC).sigmoid()
    positive_NC = -alpha * q_NC.pow(gamma) * F.logsigmoid(x_NC)
    negative_NC = -(1 - alpha) * p_NC.pow(gamma) * F.logsigmoid(-x_NC)
    output.copy_(torch.where(is_target_NC, positive_NC, negative_NC) * _row_weight(weight, target))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float) -> None:
    """Write the derivative of :func:`sigmoid_focal_loss_forward` with respect to each logit into ``grad_input``, ``(N, C)``."""
    x_NC, is_target_NC = _widened(input), _one_hot(target, input.shape[1])
    p_NC, q_NC = x_NC.sigmoid(), (-x_NC).sigmoid()
    positive_NC = -alpha * q_NC.pow(gamma) * (q_NC - gamma * p_NC * F.logsigmoid(x_NC))
    negative_NC = -(1 - alpha) * p_NC.pow(gamma) * (gamma * q_NC * F.logsigmoid(-x_NC) - p_NC)
    grad_input.copy_(torch.where(is_target_NC, positive_NC, negative_NC) * _row_weight(weight, target))


def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float) -> None:
    """Write ``-alpha (1 - p)^gamma log p`` of each row's target into ``output``, ``(N,)``; zero where the target is negative.

    Args:
        input: probabilities ``(N, C)``, already through the softmax (mmcv's Function does that).
        target: class per row, ``(N,)`` int64, below C.
        weight: per class ``(C,)``, or empty for none.
        output: overwritten.
        gamma, alpha: as in :func:`sigmoid_focal_loss_forward`.
    """
    p_N = _target_probability(input, target)
    loss_N = -alpha * (1 - p_N).pow(gamma) * p_N.clamp(min=_TINY).log()
    output.copy_(torch.where(target >= 0, loss_N * _row_weight(weight, target)[:, 0], 0))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative with respect to the logits before the softmax into ``grad_input``, ``(N, C)``; ``buff``, ``(N,)``, is scratch."""
    p_N = _target_probability(input, target)
    rest_N = (1 - p_N).clamp(min=_TINY)
    slope_N = alpha * (gamma * rest_N.pow(gamma - 1) * p_N * p_N.clamp(min=_TINY).log() - (1 - p_N).pow(gamma))
    buff.copy_(torch.where(target >= 0, slope_N * _row_weight(weight, target)[:, 0], 0))
    grad_input.copy_(buff[:, None] * (_one_hot(target, input.shape[1]).to(input.dtype) - input))


def _widened(x: Tensor) -> Tensor:
    """At least float32."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _one_hot(target_N: Tensor, classes: int) -> Tensor:
    """``(N, C)`` bool; all False in rows whose target is no class."""
    return target_N[:, None] == torch.arange(classes, device=target_N.device)


def _row_weight(weight_C: Tensor, target_N: Tensor) -> Tensor:
    """``(N, 1)``: the target's class weight; 1 without weights and for targets that are no class."""
    if weight_C.numel() == 0:
        return torch.ones(1, 1, device=target_N.device)
    inside_N = (target_N >= 0) & (target_N < len(weight_C))
    weight_N = _widened(weight_C)[target_N.clamp(0, len(weight_C) - 1)]
    return torch.where(inside_N, weight_N, 1)[:, None]


def _target_probability(p_NC: Tensor, target_N: Tensor) -> Tensor:
    """``(N,)``: each row's probability of its target, at least float32; of class 0 where the target is negative (masked by the caller)."""
    return _widened(p_NC).gather(1, target_N.clamp(min=0)[:, None])[:, 0]
