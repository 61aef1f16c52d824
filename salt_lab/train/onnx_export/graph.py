"""The graph that is exported: a raw picture in, the boxes and scores of all locations out.

Legend: N images, C classes, H x W pixels of the picture, D channels of a map, L rows (locations x priors of all levels, level by level).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.operators import shape_as_tensor

from salt_lab.errors import UserError
from salt_lab.train.onnx_export.heads import OpenHead


class Found(NamedTuple):
    """What the model says of every location of N pictures of one size."""

    boxes_NL4: Tensor  #: x1 y1 x2 y2 in pixels of the picture that was given, clipped to it where the host clips
    class_scores_NLC: Tensor  #: 0..1, before the quality
    quality_NL: Tensor | None  #: 0..1, None for a host without such a branch
    rows: list[Any]  #: rows of each level; their sum is L


class RawDetector(nn.Module):
    """Picture to ``boxes (N, L, 4)``, ``scores (N, L, C)`` and, for a host with a quality branch, ``quality (N, L)``.

    What the config's data preprocessor does (channel order, mean, std, padding to a multiple of the divisor) is part of it, and padding is
    taken off the boxes again: a picture that was only resized is enough, of any height and width.

    Args:
        model: a detector in eval mode that :func:`~salt_lab.train.onnx_export.heads.check_head` accepts.

    Raises:
        UserError: the data preprocessor is of a kind that does more than this.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        from mmdet.models.data_preprocessors import DetDataPreprocessor

        self.model = model
        before = model.data_preprocessor
        if type(before) is not DetDataPreprocessor:
            raise UserError(f"model.data_preprocessor.type = {type(before).__name__}: only DetDataPreprocessor can be exported")
        self.divisor = int(before.pad_size_divisor)
        self.pad_value = float(before.pad_value)
        self.flips = not before._channel_conversion  # pictures are read BGR; a network that does not convert them sees BGR
        ready = before._enable_normalize
        self.register_buffer("mean", before.mean.float().reshape(1, -1, 1, 1) if ready else torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", before.std.float().reshape(1, -1, 1, 1) if ready else torch.ones(1, 3, 1, 1))
        self.open_head = OpenHead(model.bbox_head)

    def forward(self, image_N3HW: Tensor) -> tuple[Tensor, ...]:
        """Scores come multiplied by the quality, as the host multiplies them.

        Args:
            image_N3HW: RGB, 0 to 255, float32.
        """
        return self.outputs(self.look(image_N3HW))

    def outputs(self, found: Found) -> tuple[Tensor, ...]:
        """What the graph gives: boxes, scores and, if there is one, the quality."""
        if found.quality_NL is None:
            return found.boxes_NL4, found.class_scores_NLC
        return found.boxes_NL4, found.class_scores_NLC * found.quality_NL[..., None], found.quality_NL

    def look(self, image_N3HW: Tensor) -> Found:
        """Boxes, class scores and quality apart."""
        head = self.model.bbox_head
        class_maps, box_maps, *others = head(self.model.extract_feat(self.prepare(image_N3HW)))
        sizes = [m.shape[-2:] for m in class_maps]
        priors = head.prior_generator.grid_priors(sizes, dtype=class_maps[0].dtype, device=class_maps[0].device)
        N, rows = image_N3HW.shape[0], [level.shape[0] for level in priors]
        factor_maps = _one_picture(others[0]) if others else None
        maps = _one_picture(class_maps), _one_picture(box_maps), factor_maps
        found = self.open_head(*maps, [level.repeat(N, 1) for level in priors], image_N3HW.shape[-2:])
        boxes = _pictures(found.boxes_R4, N, rows)
        if self.open_head.clips:
            boxes = boxes.clamp(min=0).minimum(shape_as_tensor(image_N3HW)[[3, 2, 3, 2]].to(boxes))
        quality = None if found.quality_R is None else _pictures(found.quality_R, N, rows)
        return Found(boxes, _pictures(found.scores_RC, N, rows), quality, rows)

    def prepare(self, image_N3HW: Tensor) -> Tensor:
        """What the network sees: its channel order, normalised, then padded right and below."""
        height, width = image_N3HW.shape[-2:]
        image = image_N3HW.flip(1) if self.flips else image_N3HW
        return F.pad((image - self.mean) / self.std, (0, -width % self.divisor, 0, -height % self.divisor), value=self.pad_value)


def _one_picture(maps: list[Tensor]) -> list[Tensor]:
    """``(N, D, H, W)`` to ``(D, N * H, W)``: pictures below each other, since heads post-process one picture at a time, row by row."""
    return [m.transpose(0, 1).flatten(1, 2) for m in maps]


def _pictures(values_R: Tensor, N: Any, rows: list[Any]) -> Tensor:
    """``(R, ...)``, level by level and in each picture by picture, to ``(N, L, ...)``."""
    levels = torch.split(values_R, [N * count for count in rows])
    return torch.cat([level.reshape(N, count, *values_R.shape[1:]) for level, count in zip(levels, rows, strict=True)], dim=1)
