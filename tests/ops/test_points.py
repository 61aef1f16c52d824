"""Where R-points and C-points lie."""

import pytest
import torch

from salt_lab.ops.points import boxes_from_distances, kernel_order, move_c_points, num_factors, place_r_points

LEFT, TOP, RIGHT, BOTTOM = 2.0, 3.0, 4.0, 5.0


def placed(K, q):
    """Points of a single cell whose coarse box is 2 left, 3 up, 4 right, 5 down, all scale factors equal to ``q``."""
    distances = torch.tensor([LEFT, TOP, RIGHT, BOTTOM]).view(1, 4, 1, 1)
    return place_r_points(distances, torch.full((1, num_factors(K), 1, 1), q), K)[0, :, :, 0, 0]


@pytest.mark.parametrize("K", [4, 5, 9, 13, 16, 25])
def test_scale_factors_zero_and_one_put_every_point_on_a_corner_of_the_box(K):
    for q in (0.0, 1.0):
        for y, x in placed(K, q).tolist():
            assert y in (-TOP, BOTTOM) and x in (-LEFT, RIGHT)


@pytest.mark.parametrize("K", [4, 9, 16])
def test_four_points_lie_on_the_four_sides_and_the_others_inside(K):
    torch.manual_seed(0)
    distances = torch.rand(2, 4, 3, 5) * 6
    points = place_r_points(distances, torch.rand(2, num_factors(K), 3, 5), K)
    left, top, right, bottom = distances.unbind(1)
    order = kernel_order(K)
    y, x = points[:, :, 0], points[:, :, 1]
    torch.testing.assert_close(x[:, order[0]], -left)
    torch.testing.assert_close(y[:, order[1]], -top)
    torch.testing.assert_close(x[:, order[2]], right)
    torch.testing.assert_close(y[:, order[3]], bottom)
    slack = 1e-5
    assert ((y >= -top[:, None] - slack) & (y <= bottom[:, None] + slack)).all()
    assert ((x >= -left[:, None] - slack) & (x <= right[:, None] + slack)).all()


def test_nine_points_follow_the_released_order():
    points = placed(9, 0.5)
    assert points[3].tolist() == [1.0, -LEFT]
    assert points[1].tolist() == [-TOP, 1.0]
    assert points[5].tolist() == [1.0, RIGHT]
    assert points[7].tolist() == [BOTTOM, 1.0]
    assert {tuple(points[k].tolist()) for k in (0, 2, 4, 6, 8)} == {(1.0, 1.0)}


def test_a_mirrored_box_has_mirrored_points():
    torch.manual_seed(1)
    distances, factors = torch.rand(1, 4, 2, 2) * 5, torch.rand(1, 14, 2, 2)
    mirrored_factors = factors.clone()
    mirrored_factors[:, [0, 2]] = factors[:, [2, 0]]
    mirrored_factors[:, [1, 3]] = 1 - factors[:, [1, 3]]
    mirrored_factors[:, 5::2] = 1 - factors[:, 5::2]
    points = place_r_points(distances, factors, 9)
    mirrored = place_r_points(distances[:, [2, 1, 0, 3]], mirrored_factors, 9)
    swap = [0, 1, 2, 5, 4, 3, 6, 7, 8]
    torch.testing.assert_close(mirrored[:, :, 0], points[:, swap, 0])
    torch.testing.assert_close(mirrored[:, :, 1], -points[:, swap, 1])


def test_three_points_are_too_few():
    with pytest.raises(ValueError, match="at least 4 points"):
        num_factors(3)


def test_c_points_pull_on_the_vectors_and_not_on_the_r_points():
    r_points = torch.randn(1, 4, 2, 3, 3, requires_grad=True)
    vectors = torch.randn(1, 4, 2, 3, 3, requires_grad=True)
    move_c_points(r_points, vectors).sum().backward()
    assert r_points.grad is None
    assert vectors.grad.abs().sum() > 0


def test_vectors_of_zero_leave_the_points_where_they_are():
    r_points = torch.randn(1, 4, 2, 3, 3)
    assert torch.equal(move_c_points(r_points, torch.zeros_like(r_points)), r_points)


def test_wild_vectors_do_not_overflow():
    assert move_c_points(torch.ones(1, 4, 2, 1, 1), torch.full((1, 4, 2, 1, 1), 1e4)).isfinite().all()


def test_a_box_from_distances_has_its_centre_where_the_distances_say():
    boxes = boxes_from_distances(torch.tensor([[10.0, 20.0]]), torch.tensor([[LEFT, TOP, RIGHT, BOTTOM]]))
    assert boxes.tolist() == [[8.0, 17.0, 14.0, 25.0]]
