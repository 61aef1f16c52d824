"""What a process is told before a trial runs in it."""

import mmengine.device.utils as where
import torch

from salt_lab.train.trial import set_up


def test_numbers_too_small_for_full_precision_count_as_zero_since_a_cpu_is_slow_with_them(monkeypatch):
    monkeypatch.setattr(where, "DEVICE", where.DEVICE)
    tiny = torch.full((8,), 1e-20)
    try:
        torch.set_flush_denormal(False)
        assert (tiny * 1e-20).sum() > 0
        set_up(threads=None, device="cpu", workers=1, gpus=0)
        assert (tiny * 1e-20).sum() == 0
    finally:
        torch.set_flush_denormal(False)
