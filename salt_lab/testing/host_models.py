"""Small models and batches for the host contract and for other tests: a few cells, three classes, 64 channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salt_lab.spec.trial import Trial

CLASSES = 3
CHANNELS = 64
STRIDES = (8, 16, 32, 64, 128)
TWO_OBJECTS = [[[4.0, 4.0, 40.0, 36.0], [50.0, 10.0, 90.0, 60.0]], [[20.0, 20.0, 44.0, 52.0]]]


def small(host: str, **salt: Any) -> Trial:
    """A trial whose model is small: ResNet-18 with 8 base channels, one convolution a tower, 64 channels.

    With 32 channels GroupNorm would have one value a group on a 1x1 level. With SALT SDR is on, so that each of its losses is there.
    """
    backbone = {"name": "resnet18", "base_channels": 8}
    toggles = {"sdr_weight": 1.0, **salt} if salt else False
    return Trial.model_validate({"host": host, "salt": toggles, "backbone": backbone, "channels": CHANNELS, "head_convs": 1})


def model_section(trial: Trial) -> Any:
    """The model section of the trial's config, for three classes."""
    from salt_lab.compose import compose
    from salt_lab.train.libraries import load_libraries

    load_libraries()
    section = compose(trial).model
    section.bbox_head.num_classes = CLASSES
    return section


def build(trial: Trial) -> Any:
    """The trial's model with seeded weights, in training mode."""
    from mmdet.registry import MODELS

    section = model_section(trial)
    torch.manual_seed(0)
    return MODELS.build(section).train()


def build_head(trial: Trial, noise: float = 0.0) -> Any:
    """The trial's head alone, in training mode; ``noise`` is the spread of what is added to its weights, so that its boxes differ."""
    from mmdet.registry import MODELS

    section = model_section(trial)
    torch.manual_seed(0)
    head = MODELS.build(section.bbox_head, default_args=dict(train_cfg=section.get("train_cfg"), test_cfg=section.test_cfg)).train()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return head


def features(images: int = 2, height: int = 64, width: int = 96) -> tuple[Tensor, ...]:
    """A pyramid of noise, P3 to P7, ``(images, 64, ceil(height / stride), ceil(width / stride))``."""
    generator = torch.Generator().manual_seed(7)
    return tuple(torch.randn(images, CHANNELS, -(-height // s), -(-width // s), generator=generator) for s in STRIDES)


def batch(boxes_per_image: list[list[list[float]]], height: int = 64, width: int = 96, ignored: bool = False) -> tuple[Tensor, list[Any]]:
    """Images of noise and their ground truth; with ``ignored`` the boxes are ignore regions and nothing else is there."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for boxes in boxes_per_image:
        truth = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        none = torch.zeros(0, 4)
        meta = dict(img_shape=(height, width), pad_shape=(height, width), batch_input_shape=(height, width), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=meta | dict(ori_shape=(height, width)))
        labels = torch.arange(0 if ignored else len(truth)) % CLASSES
        sample.gt_instances = InstanceData(bboxes=none if ignored else truth, labels=labels)
        sample.ignored_instances = InstanceData(bboxes=truth if ignored else none)
        samples.append(sample)
    generator = torch.Generator().manual_seed(5)
    return torch.randn(len(samples), 3, height, width, generator=generator), samples


def shrink(images: Tensor, sample: Any, at: int, height: int, width: int, divisor: int = 32) -> None:
    """Make image ``at`` smaller than its batch, as mmdet's preprocessor pads it: zeros to the right of and below ``height`` x ``width``."""
    images[at, :, height:], images[at, :, :, width:] = 0, 0
    padded = (-(-height // divisor) * divisor, -(-width // divisor) * divisor)
    sample.set_metainfo(dict(img_shape=(height, width), ori_shape=(height, width), pad_shape=padded))


def total(losses: dict[str, Any]) -> Tensor:
    """Sum of all losses."""
    terms = [t for name, value in losses.items() if "loss" in name for t in (value if isinstance(value, list) else [value])]
    return torch.stack([t.float() for t in terms]).sum()


def one(value: Any) -> float:
    """A loss as a number, summed over levels where it is a list."""
    return float(torch.as_tensor(sum(value) if isinstance(value, list) else value).detach())
