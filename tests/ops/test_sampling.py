"""Reading a map between its cells: does the sampler read what a bilinear interpolation by hand reads, borders and all?"""

from __future__ import annotations

import math

import pytest
import torch

from salt_lab.ops.sampling import sample


def read_by_hand(map_HW: torch.Tensor, y: float, x: float) -> float:
    """Bilinear reading, zero outside, with plain loops over the four neighbours."""
    total = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < map_HW.shape[0] and 0 <= j < map_HW.shape[1]:
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * float(map_HW[i, j])
    return total


def random_map(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def test_a_position_on_a_cell_reads_that_cell() -> None:
    x = random_map(2, 3, 4, 5)
    cells = torch.cartesian_prod(torch.arange(4.0), torch.arange(5.0)).double()
    read = sample(x, cells.expand(2, -1, -1))
    torch.testing.assert_close(read, x.flatten(2), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(4, 5), (1, 6), (3, 1), (1, 1)])
def test_any_position_reads_its_four_neighbours_and_zero_outside_the_map(shape: tuple[int, int]) -> None:
    x = random_map(1, 2, *shape)
    span = torch.rand(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    at = span * (torch.tensor(shape) + 3) - 2
    by_hand = [[read_by_hand(x[0, c], float(y), float(col)) for y, col in at] for c in range(2)]
    torch.testing.assert_close(sample(x, at[None])[0], torch.tensor(by_hand, dtype=torch.float64), rtol=0, atol=1e-13)


def test_half_a_cell_outside_the_border_reads_half_of_the_border_cell() -> None:
    x = torch.full((1, 1, 3, 4), 8.0)
    at = torch.tensor([[[-0.5, 1.0], [2.5, 1.0], [1.0, -0.5], [1.0, 3.5], [-0.5, -0.5]]])
    assert sample(x, at)[0, 0].tolist() == [4.0, 4.0, 4.0, 4.0, 2.0]


@pytest.mark.parametrize("far", [-1.0, 4.0, -7.3, 1e9, 3e38, math.inf, -math.inf, math.nan])
def test_far_outside_everything_is_zero_the_gradients_too(far: float) -> None:
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    at = torch.tensor([[[far, 1.5], [1.5, far], [far, far]]], requires_grad=True)
    read = sample(x, at)
    read.sum().backward()
    assert read.abs().max() == 0 and x.grad is not None and x.grad.abs().max() == 0
    assert at.grad is not None and at.grad.abs().max() == 0


def test_gradients_to_map_and_positions_are_the_numeric_ones() -> None:
    x = random_map(2, 3, 4, 5).requires_grad_()
    fraction = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.8 + 0.1
    whole = torch.randint(-2, 5, (2, 12, 2), generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(sample, (x, (whole + fraction).requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_map_is_still_read_at_the_right_cell_of_a_wide_row(dtype: torch.dtype) -> None:
    """float16 cannot even represent 3000.25, and knows 4096 columns only in steps of 2 to 4."""
    x = torch.zeros(1, 1, 1, 4096, dtype=dtype)
    x[..., 3001] = 1
    read = sample(x, torch.tensor([[[0.0, 3000.25], [0.0, 3001.0], [0.0, 3002.0]]]))
    assert read.dtype == dtype
    torch.testing.assert_close(read[0, 0].float(), torch.tensor([0.25, 1.0, 0.0]), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("images", "channels", "points"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_nothing_to_read_gives_nothing_but_keeps_a_gradient_path(images: int, channels: int, points: int) -> None:
    x = torch.ones(images, channels, 4, 4, requires_grad=True)
    at = torch.ones(images, points, 2, requires_grad=True)
    read = sample(x, at)
    assert read.shape == (images, channels, points)
    read.sum().backward()
    assert x.grad is not None and at.grad is not None
