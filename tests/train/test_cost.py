"""Parameters and memory."""

import torch
from torch import nn

from salt_lab.train.cost import parameters, peak_memory_mb


def test_frozen_parameters_count_and_buffers_do_not():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].requires_grad_(False)
    assert parameters(model) == 4 * 3 * 9 + 4 + 2 * 4


def test_peak_memory_is_in_mebibytes_and_does_not_forget():
    before = peak_memory_mb()
    taken = torch.ones(32 * 2**20 // 4)  # 32 MiB
    assert float(taken.sum()) > 0
    del taken
    after = peak_memory_mb()
    assert 20 < after < 500_000 and after >= before
