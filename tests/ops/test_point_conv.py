"""Point convolution against plain loops, torch's own convolution and finite differences."""

import math

import pytest
import torch
from torch.nn import functional as F

from salt_lab.ops.point_conv import point_conv


def grid_3x3(n, h, w, dtype=torch.float64):
    grid = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)], dtype=dtype)
    return grid[None, :, :, None, None].expand(n, 9, 2, h, w)


def by_loops(x, points, weight):
    """The definition, one number at a time."""
    n, _, h, w = x.shape
    out = torch.zeros(n, weight.shape[0], h, w, dtype=x.dtype)
    for b in range(n):
        for i in range(h):
            for j in range(w):
                for k in range(weight.shape[2]):
                    y, z = i + float(points[b, k, 0, i, j]), j + float(points[b, k, 1, i, j])
                    y0, x0 = math.floor(y), math.floor(z)
                    for yy, xx in ((y0, x0), (y0, x0 + 1), (y0 + 1, x0), (y0 + 1, x0 + 1)):
                        if 0 <= yy < h and 0 <= xx < w:
                            share = (1 - abs(y - yy)) * (1 - abs(z - xx))
                            out[b, :, i, j] += weight[:, :, k] @ x[b, :, yy, xx] * share
    return out


@pytest.mark.parametrize("K", [4, 5, 9, 16])
def test_it_is_the_sum_over_points_and_channels_that_the_definition_says(K):
    torch.manual_seed(K)
    x, weight = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(6, 3, K, dtype=torch.float64)
    points = torch.randn(2, K, 2, 5, 4, dtype=torch.float64) * 3
    torch.testing.assert_close(point_conv(x, points, weight), by_loops(x, points, weight))


def test_points_on_the_3x3_grid_make_it_an_ordinary_convolution():
    x, weight = torch.randn(2, 8, 7, 6), torch.randn(5, 8, 9)
    ours = point_conv(x, grid_3x3(2, 7, 6, torch.float32), weight)
    torch.testing.assert_close(ours, F.conv2d(x, weight.view(5, 8, 3, 3), padding=1), atol=1e-5, rtol=1e-5)


def test_points_outside_the_map_read_zero():
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(3, 2, 4)
    far = torch.full((1, 4, 2, 4, 4), 50.0)
    assert point_conv(x, far, weight).abs().max() == 0
    assert point_conv(x, -far, weight).abs().max() == 0


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    # 0.3 to 0.7 between cells: bilinear reading has a kink on a cell
    points = (torch.randint(-2, 3, (1, 5, 2, 4, 3)) + 0.3 + 0.4 * torch.rand(1, 5, 2, 4, 3)).double().requires_grad_()
    weight = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(point_conv, (x, points, weight))


def test_a_map_of_one_cell_works():
    x, weight = torch.randn(2, 3, 1, 1), torch.randn(4, 3, 4)
    centre = torch.zeros(2, 4, 2, 1, 1)
    torch.testing.assert_close(point_conv(x, centre, weight)[..., 0, 0], x[..., 0, 0] @ weight.sum(2).T)


def test_half_precision_features_are_read_at_full_precision_positions():
    x, weight = torch.arange(400.0).view(1, 1, 1, 400), torch.ones(1, 1, 1)
    half = torch.full((1, 1, 2, 1, 400), 0.0)
    half[:, :, 1] = 0.25
    read = point_conv(x.bfloat16(), half, weight.bfloat16())
    torch.testing.assert_close(read[0, 0, 0, 300].float(), torch.tensor(300.25), atol=2.0, rtol=0)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"expected points \(N, K, 2, H, W\) = \(1, 9, 2, 4, 4\)"):
        point_conv(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 2, 4, 4), torch.zeros(3, 2, 9))
