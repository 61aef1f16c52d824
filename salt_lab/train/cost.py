"""What a trial costs: parameters, arithmetic, memory."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch
from torch import nn


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included."""
    return sum(p.numel() for p in model.parameters())


def gflops(model: nn.Module, height: int, width: int) -> float | None:
    """GFLOPs (multiply-adds counted once, as mmdet does) of one image through backbone, neck and head; None if it cannot be traced.

    The point convolution is a matrix product here, so it is counted, unlike a deformable convolution in mmdet's own counter.
    Bilinear reading is not.
    """
    from mmengine.analysis import FlopAnalyzer

    training = model.training
    device = next(model.parameters()).device
    try:
        model.eval()
        with torch.no_grad():
            count = FlopAnalyzer(model, torch.zeros(1, 3, height, width, device=device)).unsupported_ops_warnings(False)
            return float(count.uncalled_modules_warnings(False).tracer_warnings("none").total()) / 1e9
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return None  # a host that cannot be traced still trains
    finally:
        model.train(training)


def peak_memory_mb() -> float:
    """Most memory used so far, MiB: the device's allocations on a GPU, else this process's resident size."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (2**20 if sys.platform == "darwin" else 2**10)
