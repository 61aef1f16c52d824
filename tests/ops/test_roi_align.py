"""RoIAlign: the same numbers as a plain loop over boxes, cells and readings, and the exact transpose as its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import salt_lab.ops.roi_align as room
from salt_lab.errors import MissingOpError
from salt_lab.ops.portable import install


def bilinear(x_CHW: Tensor, y: float, x: float) -> Tensor:
    """One reading: nothing further than a cell outside, the border's value up to there."""
    height, width = x_CHW.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return x_CHW.new_zeros(len(x_CHW))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    low, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, h = y - top, x - left
    upper = (1 - h) * x_CHW[:, top, left] + h * x_CHW[:, top, right]
    return (1 - v) * upper + v * ((1 - h) * x_CHW[:, low, left] + h * x_CHW[:, low, right])


def by_hand(x: Tensor, rois: Tensor, grid: tuple[int, int], scale: float, ratio: int, aligned: bool) -> Tensor:
    """The definition, one reading at a time."""
    output = x.new_zeros(len(rois), x.shape[1], *grid)
    for r, (image, *box) in enumerate(rois.tolist()):
        left, top, right, low = (side * scale - (0.5 if aligned else 0) for side in box)
        sides = [low - top, right - left] if aligned else [max(low - top, 1.0), max(right - left, 1.0)]
        steps = [side / cells for side, cells in zip(sides, grid, strict=True)]
        counts = [ratio or math.ceil(step) for step in steps]
        for i in range(grid[0]):
            for j in range(grid[1]):
                read = [
                    bilinear(x[int(image)], top + (i + (a + 0.5) / counts[0]) * steps[0], left + (j + (b + 0.5) / counts[1]) * steps[1])
                    for a in range(counts[0])
                    for b in range(counts[1])
                ]
                output[r, :, i, j] = torch.stack(read).mean(0) if read else 0
    return output


def layer(grid: tuple[int, int], scale: float, ratio: int, aligned: bool) -> torch.nn.Module:
    install()
    from mmcv.ops import RoIAlign

    return RoIAlign(grid, scale, ratio, aligned=aligned)


def problem() -> tuple[Tensor, Tensor]:
    """Two maps; boxes inside, across the border, outside, flat, and one that covers everything."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 9, 7, generator=generator, dtype=torch.float64)
    boxes = [[1, 3, 4, 30, 25], [0, -9, -9, 12, 9], [1, 40, 20, 90, 60], [0, 5, 5, 5, 20], [0, 0, 0, 28, 36], [1, 100, 100, 130, 120]]
    return x, torch.tensor(boxes, dtype=torch.float64)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("grid", [(2, 3), (7, 7)])
def test_it_is_the_mean_of_readings_spread_over_each_part_of_the_box(grid: tuple[int, int], ratio: int, aligned: bool) -> None:
    x, rois = problem()
    assert torch.allclose(layer(grid, 0.25, ratio, aligned)(x, rois), by_hand(x, rois, grid, 0.25, ratio, aligned), atol=1e-10)


@pytest.mark.parametrize("budget", [1, 2**26])
def test_its_gradient_is_the_transpose_whatever_fits_into_memory(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_READINGS", budget)
    x, rois = problem()
    x.requires_grad_()
    output = layer((2, 3), 0.25, 0, True)(x, rois)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (output * upstream).sum().backward()
    assert x.grad is not None
    assert float((x.grad * x.detach()).sum()) == pytest.approx(float((output.detach() * upstream).sum()), rel=1e-9)
    assert torch.allclose(output, by_hand(x.detach(), rois, (2, 3), 0.25, 0, True), atol=1e-10)


def test_a_constant_map_reads_as_its_value_in_every_box_inside_it() -> None:
    inside = torch.tensor([[0.0, 4, 4, 20, 24]])
    assert torch.allclose(layer((3, 3), 0.25, 0, True)(torch.full((1, 2, 9, 9), 5.0), inside), torch.tensor(5.0))


def test_no_boxes_give_no_features_and_no_gradient() -> None:
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    output = layer((2, 2), 0.5, 0, True)(x, torch.zeros(0, 5))
    output.sum().backward()
    assert output.shape == (0, 3, 2, 2) and x.grad is not None and not x.grad.any()


def test_the_maximum_is_left_to_the_compiled_op() -> None:
    install()
    from mmcv.ops import roi_align

    with pytest.raises(MissingOpError, match="pool_mode"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, "max")
