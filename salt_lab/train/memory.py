"""Memory of one process, in GiB: what it takes now and the most that it took, where the kernel tells it.

``getrusage`` is not asked: its maximum survives fork and exec, so a small process that a large one started reports the large one's peak.
"""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

GIB = 2**30


def peak_rss_gb(pid: int | None = None) -> float | None:
    """Most resident memory of a process since it was started, or since :func:`forget_peak` in it; None where it is gone or not Linux.

    Args:
        pid: the process; None = this one, which is known everywhere.
    """
    status = Path("/proc") / ("self" if pid is None else str(pid)) / "status"
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found.group(1)) * 1024 / GIB
    if pid is not None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB


def forget_peak() -> None:
    """Start this process's peaks anew (resident memory, and the GPU's where torch uses one): a warm worker's next trial has its own."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def die_first() -> None:
    """Where memory runs out, this process is the one that the kernel shall kill, and not the one that started it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
