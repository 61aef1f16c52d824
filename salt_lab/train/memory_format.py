"""The order in memory of images, features and convolution kernels, where ``schedule.memory_format`` is ``channels_last``.

With the channels of a cell side by side a convolution needs no rearranging on CPU (oneDNN) nor for the tensor cores of a GPU. Results are the
same to rounding: sums are taken in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.utils import apply_to
from torch import Tensor, nn

#: Weights in a checkpoint, by name.
WEIGHTS = ("state_dict", "ema_state_dict")
#: Where the operators live that only read contiguous tensors.
COMPILED_OPS = "mmcv.ops"


@HOOKS.register_module()
class MemoryFormatHook(Hook):
    """Arranges model, images and optimiser state before training, evaluation or test, after the weights have been drawn or read.

    Drawing a tensor that lies channels last gives each weight another number, so weights are drawn as ever and moved then. Checkpoints hold
    contiguous tensors, as those of a training without this hook.

    Args:
        memory_format: "channels_last".
    """

    priority = "VERY_LOW"  # saved last: after the running mean has put itself in place of the weights

    def __init__(self, memory_format: str = "channels_last") -> None:
        self.memory_format = memory_format

    def before_train(self, runner: Any) -> None:
        """On a fresh start and on resuming alike."""
        self._arrange(runner)
        arrange_optimizer(runner.optim_wrapper.optimizer)

    def before_val(self, runner: Any) -> None:
        """An evaluation may come without a training."""
        self._arrange(runner)

    def before_test(self, runner: Any) -> None:
        """Likewise."""
        self._arrange(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Weights and optimiser state are kept as any other training keeps them."""
        for weights in (checkpoint[part] for part in WEIGHTS if part in checkpoint):
            weights.update({name: value.contiguous() for name, value in weights.items()})
        if "optimizer" in checkpoint:
            checkpoint["optimizer"] = apply_to(checkpoint["optimizer"], lambda value: isinstance(value, Tensor), Tensor.contiguous)

    def _arrange(self, runner: Any) -> None:
        arrange(runner.model.module if is_model_wrapper(runner.model) else runner.model)


def arrange(model: nn.Module) -> None:
    """Kernels of convolutions, and from now on the images that come out of ``model.data_preprocessor``, channels last; doing it again changes
    nothing.

    Parameters stay the same objects with the same values, so an optimiser that knows them goes on knowing them. mmcv's compiled operators read
    contiguous memory alone: their layers get their inputs so.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        elif type(module).__module__.startswith(COMPILED_OPS):
            _hook_once(module._forward_pre_hooks, module.register_forward_pre_hook, _give_contiguous)
    source: Any = getattr(model, "data_preprocessor", None)
    if isinstance(source, nn.Module):
        _hook_once(source._forward_hooks, source.register_forward_hook, _images_last)


def arrange_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """State that has a parameter's shape gets its order in memory: fused optimisers walk both side by side without asking."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _hook_once(known: Mapping[int, Any], register: Any, hook: Any) -> None:
    if hook not in known.values():
        register(hook)


def _images_last(module: nn.Module, args: Any, batch: Any) -> Any:
    """What a data preprocessor hands to the network: the stacked images channels last, the rest as it is."""
    if isinstance(batch, dict) and isinstance(batch.get("inputs"), Tensor) and batch["inputs"].dim() == 4:
        return {**batch, "inputs": batch["inputs"].contiguous(memory_format=torch.channels_last)}
    return batch


def _give_contiguous(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.contiguous() if isinstance(arg, Tensor) else arg for arg in args)
