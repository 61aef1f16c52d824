"""What the workers of one trial tell each other. With one worker each question answers itself, so the same code trains one and many.

:func:`gathered`, :func:`agreed` and :func:`any_worker` are called by all workers, at the same place.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")
#: The group of all workers, and beside NCCL's one over gloo: small words between processes shall wait for no GPU.
_words: tuple[Any, Any] = (None, None)


def how_many() -> int:
    """Workers of this trial."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Number of this worker, from 0."""
    return dist.get_rank() if _joined() else 0


def is_first() -> bool:
    """Is this the worker that records: the only one, or that of rank 0?"""
    return rank() == 0


def gathered(mine: T) -> list[T]:
    """What each worker says, by rank; any small picklable value."""
    if not _joined():
        return [mine]
    said: list[Any] = [None] * how_many()
    dist.all_gather_object(said, mine, group=_group())
    return said


def agreed(mine: T) -> T:
    """What the first worker says, whatever the others would have said."""
    if not _joined():
        return mine
    said: list[Any] = [mine]
    dist.broadcast_object_list(said, src=0, group=_group())
    return said[0]


def any_worker(mine: bool) -> bool:
    """Does any worker say yes? One byte between processes: cheap enough to be asked in every step."""
    if not _joined():
        return mine
    answer = torch.tensor([int(mine)], dtype=torch.uint8)
    dist.all_reduce(answer, op=dist.ReduceOp.MAX, group=_group())
    return bool(answer.item())


def share_statistics(runner: Any) -> None:
    """Set batch norm's running statistics to their mean over the workers, in a runner's model and in its running mean (EMA)."""
    if not _joined():
        return
    averaged = [hook.ema_model.module for hook in runner.hooks if hasattr(hook, "ema_model")]
    for network in (runner.model, *averaged):
        for one in statistics(network):
            dist.all_reduce(one)
            one /= how_many()


def statistics(model: nn.Module) -> list[Tensor]:
    """Batch norm's running statistics in a model, bare or wrapped."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [one for norm in norms for one in (norm.running_mean, norm.running_var) if one is not None]


def before_keeping(runner: Any) -> None:
    """On all workers, before the first one writes a checkpoint amid an epoch: what each has of its own is brought together.

    Hooks with something to bring have a method ``share``.
    """
    for hook in runner.hooks if how_many() > 1 else ():
        if hasattr(hook, "share"):
            hook.share(runner)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _group() -> Any:
    """Made on first use, by all workers together; None = the group of all, which is over gloo itself."""
    global _words
    if dist.get_backend() != "nccl":
        return None
    if _words[0] is not dist.group.WORLD:
        _words = (dist.group.WORLD, dist.new_group(backend="gloo"))
    return _words[1]
