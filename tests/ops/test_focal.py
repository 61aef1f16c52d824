"""Focal losses through mmcv's Functions against the textbook formula in double precision, value by value, gradient included."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from salt_lab.ops import focal
from salt_lab.ops.portable import install

pytestmark = pytest.mark.skipif(not install(), reason="compiled mmcv ops are installed: the portable ones are not in use")


def logits_and_targets(seed: int = 0, rows: int = 7, classes: int = 4, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    """Targets run over all classes and the background, which is ``classes``."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=g, dtype=torch.float64) * spread, torch.arange(rows) % (classes + 1)


def sigmoid_focal_by_hand(x: float, positive: bool, gamma: float, alpha: float) -> float:
    """One logit; log(sigmoid) without cancellation."""
    if not positive:
        x = -x
    log_p = -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))
    return -(alpha if positive else 1 - alpha) * (1 / (1 + math.exp(x))) ** gamma * log_p


def sigmoid_focal_table(x: Tensor, target: Tensor, gamma: float, alpha: float, weight: Tensor | None = None) -> Tensor:
    table = [
        [sigmoid_focal_by_hand(float(v), int(t) == c, gamma, alpha) for c, v in enumerate(row)] for row, t in zip(x, target, strict=True)
    ]
    scale = [1.0 if weight is None or int(t) >= x.shape[1] else float(weight[int(t)]) for t in target]
    return torch.tensor(table, dtype=torch.float64) * torch.tensor(scale, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_focal_loss_is_the_formula(gamma: float, weighted: bool) -> None:
    from mmcv.ops import sigmoid_focal_loss

    x, target = logits_and_targets()
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64) if weighted else None
    found = sigmoid_focal_loss(x, target, gamma, 0.25, weight, "none")
    torch.testing.assert_close(found, sigmoid_focal_table(x, target, gamma, 0.25, weight), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_its_module_reduces_over_rows(reduction: str) -> None:
    from mmcv.ops import SigmoidFocalLoss

    x, target = logits_and_targets()
    total = sigmoid_focal_table(x, target, 2.0, 0.25).sum()
    expected = total / len(x) if reduction == "mean" else total
    torch.testing.assert_close(SigmoidFocalLoss(2.0, 0.25, reduction=reduction)(x, target), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_sigmoid_focal_gradient_is_the_numeric_one(gamma: float) -> None:
    from mmcv.ops import sigmoid_focal_loss

    x, target = logits_and_targets(seed=1)
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: sigmoid_focal_loss(v, target, gamma, 0.25, weight, "none"), (x.requires_grad_(),))


def test_confident_mistakes_keep_their_price_in_float32() -> None:
    """At a logit of 40 on background, 1 - p is 0 in float32; the loss is still 40 and its slope still 1 (times 1 - alpha)."""
    from mmcv.ops import sigmoid_focal_loss

    x = torch.tensor([[40.0], [-200.0]], requires_grad=True)
    loss = sigmoid_focal_loss(x, torch.tensor([1, 0]), 2.0, 0.25, None, "none")
    loss.sum().backward()
    assert loss[:, 0].tolist() == [30.0, 50.0]
    assert x.grad is not None and x.grad[:, 0].tolist() == [0.75, -0.25]


def test_mmdets_focal_loss_through_the_op_equals_its_own_python_version() -> None:
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss, sigmoid_focal_loss

    x, target = (t for t in logits_and_targets(seed=2))
    x = x.float()
    one_hot = torch.nn.functional.one_hot(target, x.shape[1] + 1)[:, :-1]
    torch.testing.assert_close(sigmoid_focal_loss(x, target, avg_factor=3.0), py_sigmoid_focal_loss(x, one_hot, avg_factor=3.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_at_the_end(dtype: torch.dtype) -> None:
    from mmcv.ops import sigmoid_focal_loss

    x, target = logits_and_targets(seed=3)
    half = x.to(dtype).requires_grad_()
    loss = sigmoid_focal_loss(half, target, 2.0, 0.25, None, "none")
    exact = sigmoid_focal_table(half.detach().double(), target, 2.0, 0.25)
    assert loss.dtype == dtype
    torch.testing.assert_close(loss.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-6)


def softmax_focal(x: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    """The formula, differentiable, in the precision of ``x``; rows with a negative target cost nothing."""
    p = x.softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    return torch.where(target >= 0, -alpha * (1 - p) ** gamma * p.log(), 0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_softmax_focal_loss_and_its_gradient_are_the_formulas(gamma: float, reduction: str) -> None:
    from mmcv.ops import SoftmaxFocalLoss

    x, _ = logits_and_targets(seed=4)
    target = torch.tensor([0, 1, 2, 3, 0, -1, 2])
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = SoftmaxFocalLoss(gamma, 0.25, weight, reduction)(ours, target)
    rows = softmax_focal(theirs, target, gamma, 0.25) * weight[target.clamp(min=0)]
    expected = rows.mean() if reduction == "mean" else rows.sum()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def test_a_certain_and_right_softmax_row_has_a_finite_gradient_at_any_gamma() -> None:
    from mmcv.ops import softmax_focal_loss

    x = torch.tensor([[200.0, -200.0]], requires_grad=True)
    softmax_focal_loss(x, torch.tensor([0]), 0.5, 0.25, None, "sum").backward()
    assert x.grad is not None and x.grad.tolist() == [[0.0, 0.0]]


def test_no_rows_cost_nothing() -> None:
    from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss

    for loss in (sigmoid_focal_loss, softmax_focal_loss):
        x = torch.zeros(0, 4, requires_grad=True)
        total = loss(x, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, "sum")
        total.backward()
        assert total == 0 and x.grad is not None and x.grad.shape == (0, 4)


def test_the_inputs_are_left_alone() -> None:
    x, target = logits_and_targets()
    before = x.clone()
    focal.sigmoid_focal_loss_forward(x, target, x.new_empty(0), torch.empty_like(x), 2.0, 0.25)
    focal.sigmoid_focal_loss_backward(x, target, x.new_empty(0), torch.empty_like(x), 2.0, 0.25)
    assert torch.equal(x, before)
