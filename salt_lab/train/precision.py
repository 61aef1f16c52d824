"""Mixed precision runs on a GPU or not at all."""

from __future__ import annotations

from typing import Any

from salt_lab.errors import UserError


def check_precision(settings: Any, said: str, remedy: str) -> None:
    """Refuse mixed precision on a machine without a CUDA GPU, before anything is built.

    mmengine's ``AmpOptimWrapper`` computes in float16 with loss scaling, which needs CUDA. Taking bfloat16 on a CPU instead would train another model
    under the same trial id **(ours)**: a result must not depend on which machine of a cluster was free.

    Args:
        settings: mmengine Config.
        said: where mixed precision was asked for, e.g. ``schedule.amp = true``.
        remedy: how to ask for none, e.g. ``schedule.amp=false``.

    Raises:
        UserError: mixed precision is asked for and there is no GPU.
    """
    import torch

    kind = str((settings.get("optim_wrapper") or {}).get("type", ""))
    if "AmpOptimWrapper" in kind and not torch.cuda.is_available():
        raise UserError(f"{said}: mixed precision computes in float16, which needs a CUDA GPU, and there is none here; {remedy}")
