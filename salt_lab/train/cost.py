"""What a trial costs, the two numbers that need no run: parameters and memory. Arithmetic: :mod:`.flops`, time: :mod:`.speed`."""

from __future__ import annotations

import torch
from torch import nn

from salt_lab.train.memory import peak_rss_gb


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included."""
    return sum(p.numel() for p in model.parameters())


def peak_memory_mb() -> float:
    """Most memory used since :func:`salt_lab.train.memory.forget_peak`, MiB: the device's allocations on a GPU, else this process's resident
    size."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return 1024 * (peak_rss_gb() or 0.0)
