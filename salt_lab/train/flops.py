"""How much arithmetic a model does on one image, deformable and point convolutions counted like any other.

**What is counted (ours):** the multiply-adds of convolutions and matrix products, each multiply-add once, which is what mmdet prints as
"FLOPs". A deformable convolution (v1, v2) counts as the convolution of the same kernel, plus the convolution that predicts its offsets; point
convolution with K points as a convolution with K taps, ``N * H * W * K * C * O``. Left out, for every layer alike: bilinear reading, masks,
biases, normalisation, activation, pooling, interpolation and all post-processing. So replacing a convolution by a deformable one never makes
the count fall, as it does in mmengine's counter, which sees no custom op.

**How:** torch's own :class:`~torch.utils.flop_counter.FlopCounterMode` on tensors that have a shape and no content, so nothing is computed and
no memory is taken. mmcv's deformable ops are counted where its autograd functions call them, whoever calls those (module or function) and
whether the ops are compiled or the lab's portable ones.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from salt_lab.train.config_text import text_of

#: mmcv's deformable ops: module that calls it, name, position of the weight and of the output among its arguments.
_DEFORMABLE = (
    ("mmcv.ops.deform_conv", "deform_conv_forward", 1, 3),
    ("mmcv.ops.modulated_deform_conv", "modulated_deform_conv_forward", 1, 6),
)


def gflops(model: nn.Module, height: int, width: int) -> float | None:
    """GFLOPs (10^9 multiply-adds, see above) of one image through backbone, neck and head.

    Args:
        model: an mmdet detector, on any device, bare or wrapped for several workers; left as it is, and so are torch's random generators:
            whether a trial counts or knows the count from an earlier one, it starts from the same weights.
        height, width: of the image as the backbone gets it, pixels.

    Returns:
        None, with a warning that says why, where the model cannot be run on an image alone; such a host still trains.
    """
    detector: Any = model.module if hasattr(model, "module") else model
    device = next(detector.parameters()).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return multiply_adds(detector, lambda m: m(torch.zeros(1, 3, height, width, device=device), _samples(height, width))) / 1e9
    except Exception as error:  # any model of mmdet can be a host
        warnings.warn(f"GFLOPs not counted: {type(error).__name__}: {error}", stacklevel=2)
        return None


#: What was counted in this process, by config and size.
_COUNTED: dict[tuple[str, int, int], float] = {}


def gflops_once(config: Mapping[str, Any], model: nn.Module, height: int, width: int) -> float | None:
    """:func:`gflops`, counted once per process for a model's config and an image size: trials of other seeds have the same.

    Args:
        config: what ``model`` was built from.
        model, height, width: for :func:`gflops`.
    """
    key = (text_of(config), height, width)
    if key not in _COUNTED:
        found = gflops(model, height, width)
        if found is None:
            return None  # the next trial's log says why, too
        _COUNTED[key] = found
    return _COUNTED[key]


def multiply_adds(module: nn.Module, call: Callable[[Any], Any]) -> int:
    """Multiply-adds that ``call`` makes with ``module`` in evaluation mode.

    Args:
        module: left as it is.
        call: runs its argument, a stand-in for ``module``, on tensors that it makes itself.

    A model that reads values (whose work depends on the image) cannot be run on empty tensors; it is really run then.
    """
    try:
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        stand_in = _stand_in(module, fake)
        with fake:
            return _counted(lambda: call(stand_in))
    except Exception:  # torch raises many kinds here; a real fault comes again below
        training = module.training
        try:
            return _counted(lambda: call(module.eval()))
        finally:
            module.train(training)


def _samples(height: int, width: int) -> list[Any]:
    """What detectors that look at more than the pixels want to know of the image."""
    from mmdet.structures import DetDataSample

    size = (height, width)
    return [DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0)))]


def _stand_in(module: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """A copy whose tensors have no content, so that what a forward pass keeps for later stays out of the real model."""
    empty = {id(tensor): fake.from_tensor(tensor) for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, empty).eval()


def _counted(run: Callable[[], Any]) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _deformable_counted(counter) as tally, counter:
        run()
    return counter.get_total_flops() // 2 + sum(tally)


@contextlib.contextmanager
def _deformable_counted(counter: FlopCounterMode) -> Iterator[list[int]]:
    """While inside, mmcv's deformable ops note their multiply-adds, and on tensors without content do nothing else."""
    tally: list[int] = []
    with contextlib.ExitStack() as undo:
        for home, name, weight, output in _DEFORMABLE:
            ops = importlib.import_module(home).ext_module
            op = getattr(ops, name)
            undo.callback(setattr, ops, name, op)
            setattr(ops, name, _noting(op, weight, output, counter, tally))
        yield tally


def _noting(op: Callable[..., Any], weight: int, output: int, counter: FlopCounterMode, tally: list[int]) -> Callable[..., Any]:
    def noted(*args: Any, **options: Any) -> Any:
        before = counter.get_total_flops()
        result = None if isinstance(args[output], FakeTensor) else op(*args, **options)
        if counter.get_total_flops() == before:  # the portable op's matrix product is seen by torch where it is really run
            tally.append(args[output].numel() * _taps(args[weight]))
        return result

    return noted


def _taps(weight: Tensor) -> int:
    """Multiply-adds behind one output number: ``C / groups * kernel height * kernel width``."""
    return weight[0].numel()
