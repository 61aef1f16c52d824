"""The added losses: who teaches whom, and what happens when there is nothing to learn from."""

import pytest
import torch

from salt_lab.models.losses import Positives, added_losses


def positives(n=4):
    torch.manual_seed(n)
    corner = torch.rand(n, 2) * 10
    make = lambda: torch.cat([corner, corner + 5 + torch.rand(n, 2) * 5], dim=1)  # noqa: E731
    return Positives(make().requires_grad_(), make().requires_grad_(), make(), torch.rand(n), 1.0)


@pytest.mark.parametrize("coarse_weight", [0.5, 1.0])
@pytest.mark.parametrize(
    ("share", "who"), [(0.5, "the ground truth"), (0.8, "the ground truth"), (1.25, "the refined box"), (2.0, "the refined box")]
)
def test_the_heavier_of_coarse_loss_and_sdr_decides_alone_where_the_coarse_box_ends(coarse_weight, share, who):
    boxes = {"the ground truth": torch.tensor([[0.0, 0.0, 100.0, 100.0]]), "the refined box": torch.tensor([[10.0, 8.0, 88.0, 95.0]])}
    coarse = torch.tensor([[20.0, 20.0, 70.0, 70.0]], requires_grad=True)
    optimizer = torch.optim.Adam([coarse], lr=1.0)
    falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    for _ in range(700):
        optimizer.zero_grad()
        p = Positives(coarse, boxes["the refined box"], boxes["the ground truth"], torch.ones(1), 8.0)
        sum(added_losses(p, coarse_weight, share * coarse_weight, 1e-6).values()).backward()
        optimizer.step()
        falling.step()
    assert (coarse - boxes[who]).abs().max() < 0.2, coarse


def test_sdr_sends_no_gradient_to_the_refined_boxes():
    p = positives()
    added_losses(p, coarse_weight=0, sdr_weight=1, floor=1e-6)["loss_sdr"].backward()
    assert p.refined_P4.grad is None
    assert p.coarse_P4.grad.abs().sum() > 0


def test_coarse_boxes_equal_to_their_teachers_cost_nothing():
    p = positives()
    same = Positives(p.target_P4, p.target_P4, p.target_P4, p.weight_P, 1.0)
    losses = added_losses(same, 1.0, 1.0, 1e-6)
    assert losses["loss_coarse"].abs() < 1e-5 and losses["loss_sdr"].abs() < 1e-5


def test_the_losses_are_the_weighted_mean_of_one_minus_giou():
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])
    giou = 2 / 6 - 0 / 6  # intersection 2, union 6, the hull of the two is their union
    p = Positives(a, b, b, torch.tensor([0.5]), 1.0)
    losses = added_losses(p, coarse_weight=2.0, sdr_weight=3.0, floor=1e-6)
    assert losses["loss_coarse"].item() == pytest.approx(2 * (1 - giou), abs=1e-5)
    assert losses["loss_sdr"].item() == pytest.approx(3 * (1 - giou), abs=1e-5)


def test_the_host_floor_keeps_a_tiny_normaliser_from_exploding():
    p = positives(1)
    tiny = p._replace(weight_P=torch.tensor([1e-3]))
    with_floor, without = (added_losses(tiny, 1.0, 0.0, floor)["loss_coarse"] for floor in (1.0, 1e-6))
    assert with_floor.item() == pytest.approx(without.item() * 1e-3, rel=1e-4)


def test_without_positives_every_added_loss_is_zero_finite_and_has_a_gradient_path():
    maps = torch.rand(5, 4, requires_grad=True)
    none = Positives(maps[:0], maps[:0], torch.zeros(0, 4), torch.zeros(0), 1.0)
    losses = added_losses(none, 1.0, 1.0, 1e-6)
    assert {k: v.item() for k, v in losses.items()} == {"loss_coarse": 0.0, "loss_sdr": 0.0}
    sum(losses.values()).backward()
    assert maps.grad.abs().sum() == 0


def test_a_weight_of_zero_leaves_the_term_out():
    assert set(added_losses(positives(), 0.0, 1.0, 1.0)) == {"loss_sdr"}
    assert set(added_losses(positives(), 1.0, 0.0, 1.0)) == {"loss_coarse"}
