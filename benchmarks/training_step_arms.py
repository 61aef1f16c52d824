"""Who competes in ``training_step.py``: the host, the host with SALT by each way that we have, and the same model on deformable convolutions."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from compiled_mmcv import load_compiled
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from salt_lab.compose import compose
from salt_lab.errors import SaltLabError
from salt_lab.ops.backends import POINT_CONV_VARIABLE
from salt_lab.ops.point_conv import point_conv
from salt_lab.spec.trial import Trial
from salt_lab.train.flops import gflops
from salt_lab.train.libraries import load_libraries
from salt_lab.train.memory import GIB, forget_peak, peak_rss_gb
from salt_lab.train.memory_format import arrange

CLASSES, BOXES = 80, 7
#: Cells; coarse distances and vectors spread about these, so that points lie as in a model that has learnt something.
REACH = 2.3

Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]


class Arm(NamedTuple):
    """One competitor. ``backend``: who computes our point convolution; ``rival``: what stands in its place. ``missing`` says why it cannot run."""

    name: str
    salt: bool = True
    channels_last: bool = True
    backend: str = "portable"
    rival: Convolution | None = None
    missing: str = ""

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, the operator's layers compute as this arm does."""
        with (
            mock.patch.dict(os.environ, {POINT_CONV_VARIABLE: self.backend}),
            mock.patch("salt_lab.models.operator.point_conv", self.rival or point_conv),
        ):
            yield


def arms(device: str, compiled: Path | None) -> list[Arm]:
    """Everybody, the absent with the reason."""
    kernels = "numba" if device == "cpu" else "triton"
    ours = [Arm(f"host + SALT, {name}", backend=name, missing=_why_not(name, device)) for name in (kernels, "portable")]
    contiguous = [Arm("host, contiguous", salt=False, channels_last=False)] if device == "cpu" else []
    return [Arm("host", salt=False), *contiguous, *ours, _mmcv(device, compiled), _torchvision()]


def _why_not(backend: str, device: str) -> str:
    try:
        point_conv(*(torch.zeros(*shape, device=device) for shape in ((1, 32, 4, 4), (1, 9, 2, 4, 4), (32, 32, 9))), backend=backend)
    except SaltLabError as error:
        return str(error)
    return ""


def _mmcv(device: str, compiled: Path | None) -> Arm:
    """mmcv's compiled operator: the environment's own, else that of ``compiled`` beside our portable ops."""
    load_libraries()
    from mmcv.ops import deform_conv

    from salt_lab.ops.portable import is_portable

    name = "host + SALT on mmcv"
    if is_portable() and compiled is None:
        return Arm(name, missing="mmcv is not compiled here; --compiled PATH names a build")
    try:
        ext = load_compiled(compiled) if compiled is not None else deform_conv.ext_module
        if device == "cuda" and "not" in ext.get_compiling_cuda_version():
            return Arm(name, missing="mmcv is compiled without CUDA")
    except (ImportError, OSError, AttributeError) as error:
        return Arm(name, missing=f"{compiled or 'mmcv._ext'} does not load: {(str(error).splitlines() or [''])[0][:120]}")

    deform_conv.ext_module = ext  # nothing else in these models calls it

    def conv(x: Tensor, offsets: Tensor, kernel: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < 3:  # smaller than the kernel: widened, as mmcv's own layer does
            x, offsets = (F.pad(each, (0, max(0, 3 - width), 0, max(0, 3 - height))).contiguous() for each in (x, offsets))
        return deform_conv.deform_conv2d(x, offsets, kernel, 1, 1, 1, 1, 1, False, len(x))[..., :height, :width]

    return Arm(name, rival=_deformable(conv))


def _torchvision() -> Arm:
    name = "host + SALT on torchvision"
    try:
        from torchvision.ops import deform_conv2d
    except Exception as error:  # a torchvision that does not fit this torch fails in several ways
        return Arm(name, missing=f"torchvision does not import: {error}")

    return Arm(name, rival=_deformable(functools.partial(deform_conv2d, padding=1)))


def _as_deformable(x: Tensor, points_NK2HW: Tensor, weight_OCK: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous map, offsets from the 3x3 grid ``(N, 2K, H, W)``, y before x, and kernel ``(O, C, 3, 3)``, all in one type."""
    grid = torch.tensor([(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)], device=x.device)[:, :, None, None]
    offsets = (points_NK2HW - grid).flatten(1, 2).to(dtype).contiguous()
    return x.to(dtype).contiguous(), offsets, weight_OCK.unflatten(2, (3, 3)).to(dtype)


def _deformable(conv: Convolution) -> Convolution:
    """``conv`` in place of point convolution; under autocast in its type, as autocast would have it compute a convolution."""

    def run(x: Tensor, points: Tensor, weight: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            return conv(*_as_deformable(x, points, weight, dtype))

    return run


class Step:
    """A model with its optimiser on a device; ``gmac``: multiply-adds of one image's forward pass, 10^9."""

    def __init__(self, model: Any, amp: bool, size: tuple[int, int]) -> None:
        height, width = (-(-side // 32) * 32 for side in size)
        self.model, self.device, self.amp = model, next(model.parameters()).device, amp
        self.gmac = gflops(model, height, width)
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(learning, lr=1e-5, momentum=0.9, weight_decay=1e-4)
        self.optim = AmpOptimWrapper(optimizer=optimizer, loss_scale={"init_scale": 256.0}) if amp else OptimWrapper(optimizer)

    def run(self, arm: Arm, data: dict[str, Any]) -> None:
        """One step as mmengine's loop makes it."""
        with arm.computing():
            self.model.train_step(data, self.optim)

    def wait(self) -> None:
        """Until the device is through."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_mib(self, arm: Arm, data: dict[str, Any]) -> float:
        """Most memory of a step beyond what the process had before it, plus this model's and its optimiser's own."""
        state = [value for each in self.optim.optimizer.state.values() for value in each.values() if isinstance(value, Tensor)]
        own = sum(tensor.numel() * tensor.element_size() for tensor in (*self.model.state_dict().values(), *state)) / 2**20
        self.wait()
        before = self._now_mib()
        forget_peak()
        self.run(arm, data)
        self.wait()
        most = torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else (peak_rss_gb() or 0.0) * GIB / 2**20
        return most - before + own

    def _now_mib(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated() / 2**20
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free but kept would hide a part of the peak
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def build_step(host: str, arm: Arm, device: str, amp: bool, size: tuple[int, int]) -> Step:
    """The arm's model as a trial has it, ResNet-50, 80 classes, with drawn weights, none read."""
    load_libraries()
    from mmdet.registry import MODELS

    logging.disable(logging.INFO)  # mmengine tells of every weight that it draws
    section = compose(Trial.model_validate({"host": host, "salt": arm.salt})).model
    section.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(section)
    model.init_weights()
    if arm.salt:
        _spread(model.bbox_head.salt)
    model = model.to(device).train()
    if arm.channels_last:
        arrange(model)
    return Step(model, amp, size)


def _spread(salt: nn.Module) -> None:
    nn.init.constant_(salt.coarse_out.bias, REACH)
    for layer in (salt.coarse_out, salt.factors_out, salt.vectors_out):
        nn.init.normal_(layer.weight, std=0.05)


def made_batch(images: int, size: tuple[int, int]) -> dict[str, Any]:
    """A batch from the loader: pictures of noise, 0 to 255, with boxes of all sizes."""
    from mmdet.structures import DetDataSample

    draw = torch.Generator().manual_seed(0)
    height, width = size
    samples = []
    for _ in range(images):
        centre = torch.rand(BOXES, 2, generator=draw) * torch.tensor([width, height])
        half = torch.logspace(1, 2.4, BOXES)[:, None] * (0.5 + torch.rand(BOXES, 2, generator=draw)) / 2
        boxes = torch.cat([centre - half, centre + half], dim=1)
        boxes[:, 0::2].clamp_(0, width), boxes[:, 1::2].clamp_(0, height)
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(CLASSES, (BOXES,), generator=draw))
        samples.append(sample)
    return {"inputs": [torch.randint(256, (3, *size), generator=draw, dtype=torch.uint8) for _ in range(images)], "data_samples": samples}


def disagreement(arm: Arm, step: Step, data: dict[str, Any]) -> float:
    """Largest relative difference between an arm and our portable path in float32: of a loss, or of all gradients together."""
    (losses, grads), (wanted, wanted_grads) = (_graded(each, step, data) for each in (arm, Arm("ours")))
    worst = max(abs(losses[name] - value) / max(abs(value), 1e-6) for name, value in wanted.items())
    apart, size = (
        sum(float(each.square().sum()) for each in these) ** 0.5
        for these in ((a - b for a, b in zip(grads, wanted_grads, strict=True)), wanted_grads)
    )
    return max(worst, apart / size)


def _graded(arm: Arm, step: Step, data: dict[str, Any]) -> tuple[dict[str, float], list[Tensor]]:
    batch = step.model.data_preprocessor(
        {"inputs": list(data["inputs"]), "data_samples": [each.clone() for each in data["data_samples"]]}, True
    )
    with arm.computing():
        total, logged = step.model.parse_losses(step.model(**batch, mode="loss"))
        learning = [parameter for parameter in step.model.parameters() if parameter.requires_grad]
        grads = torch.autograd.grad(total, learning, allow_unused=True)
    return {name: float(value) for name, value in logged.items()}, [grad for grad in grads if grad is not None]
