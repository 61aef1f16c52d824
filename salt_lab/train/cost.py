"""What a trial costs, the two numbers that need no run: parameters and memory. Arithmetic: :mod:`.flops`, time: :mod:`.speed`."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch
from torch import nn


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included."""
    return sum(p.numel() for p in model.parameters())


def peak_memory_mb() -> float:
    """Most memory used so far, MiB: the device's allocations on a GPU, else this process's resident size."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (2**20 if sys.platform == "darwin" else 2**10)
