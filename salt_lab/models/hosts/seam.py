"""The host-agnostic half of a SALT head: holds the operator, keeps the targets that the host computed, adds the losses.

A host's own file plugs the operator in at one place, between towers and predictors, and says what its positives are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn

from salt_lab.models.losses import Positives, added_losses
from salt_lab.models.operator import SALT


def run_tower(convs: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Apply a host's tower of convolutions in order."""
    for conv in convs:
        x = conv(x)
    return x


def flat_N4(maps: list[Tensor]) -> Tensor:
    """Per-level maps ``(N, D, H, W)`` to rows ``(sum of N*H*W, D)``: level by level, then image, row, column."""
    return torch.cat([m.permute(0, 2, 3, 1).flatten(0, 2) for m in maps])


def _running_epoch() -> float:
    """The epoch that mmengine's runner is in, from 1; infinity where there is none."""
    return MessageHub.get_current_instance().get_info("epoch", math.inf) + 1


class SALTHeadMixin:
    """Put before an mmdet dense head in the bases. In training ``forward`` returns the coarse distances as one more output."""

    #: smallest normaliser of the host's box loss
    normaliser_floor = 1.0
    salt: SALT

    def __init__(self, *args: Any, salt: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.build_salt(**salt)

    def build_salt(
        self, coarse_weight: float = 1.0, sdr_weight: float = 0.0, sdr_kind: str = "giou", sdr_gate: bool = False,
        sdr_from_epoch: int = 1, long_skip: str | bool = "cls", **operator: Any,
    ) -> None:  # fmt: skip
        """Create the operator for a head whose layers exist already.

        Args:
            coarse_weight: lambda_c.
            sdr_weight: lambda_sdr; 0 = no SDR, as in the released code.
            sdr_kind, sdr_gate: see :func:`~salt_lab.models.losses.sdr_loss_sum`.
            sdr_from_epoch: the epoch, from 1, with which SDR begins **(ours)**; before it ``loss_sdr`` is 0. Epochs are mmengine's runner's; without
                one SDR counts from the start.
            long_skip: "none", "cls", "reg" or "both"; True is "cls", False "none".
            operator: other arguments of :class:`~salt_lab.models.operator.SALT`: ``num_points``, ``reg_at``, ``cls_at``, ...

        Raises:
            ValueError: a long skip between different widths, or an argument that the operator refuses.
        """
        head: Any = self
        skip = ("cls" if long_skip else "none") if isinstance(long_skip, bool) else long_skip
        if skip != "none" and head.in_channels != head.feat_channels:
            raise ValueError(
                f"long_skip adds the neck's {head.in_channels} channels to the tower's {head.feat_channels}: they must be equal"
            )
        self.salt = SALT(head.feat_channels, num_levels=len(head.prior_generator.strides), long_skip=skip, **operator)
        self.coarse_weight, self.sdr_weight, self.sdr_kind, self.sdr_gate = coarse_weight, sdr_weight, sdr_kind, sdr_gate
        self.sdr_from_epoch = sdr_from_epoch

    def forward(self, x: tuple[Tensor, ...]) -> tuple[list[Tensor], ...]:
        """Host outputs per level, then in training the coarse distances ``(N, 4, H, W)``, left top right bottom, in cells."""
        head: Any = self
        levels = [head.forward_level(feat, level) for level, feat in enumerate(x)]
        outputs = tuple(map(list, zip(*levels, strict=True)))
        return outputs if head.training else outputs[:-1]

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        """The host's own targets, kept for the added losses so that nothing is assigned twice."""
        self._kept_targets = super().get_targets(*args, **kwargs)  # type: ignore[misc]
        return self._kept_targets

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The host's losses, then ``loss_coarse`` and ``loss_sdr``; ``args`` are forward's outputs followed by the batch."""
        head: Any = self
        outputs, batch = self._split(args)
        losses = super().loss_by_feat(*outputs[:-1], *batch, **kwargs)  # type: ignore[misc]
        positives = head.positives(self._kept_targets, *outputs)
        del self._kept_targets
        added = added_losses(positives, self.coarse_weight, self.sdr_weight, self.normaliser_floor, self.sdr_kind, self.sdr_gate)
        if "loss_sdr" in added and self.sdr_from_epoch > 1 and _running_epoch() < self.sdr_from_epoch:
            added["loss_sdr"] = added["loss_sdr"] * 0
        return losses | added

    def acting_rows(self, coarse: list[Tensor]) -> Tensor:
        """Which rows of :func:`flat_N4` lie on a level where the operator acts: only there is a coarse box that can be taught."""
        return torch.cat([m.new_full((m[:, 0].numel(),), level in self.salt.levels, dtype=torch.bool) for level, m in enumerate(coarse)])

    def cell_rows(self, coarse: list[Tensor]) -> Tensor:
        """The stride of each row of :func:`flat_N4`, ``(rows, 1)``, pixels."""
        head: Any = self
        strides = (float(s[0]) for s in head.prior_generator.strides)
        return torch.cat([m.new_full((m[:, 0].numel(), 1), s) for m, s in zip(coarse, strides, strict=True)])

    def positives(self, targets: Any, *outputs: list[Tensor]) -> Positives:
        """Each host says what its positives are: the host's targets and forward's outputs in, boxes and weights out."""
        raise TypeError(f"{type(self).__name__} must define positives()")

    def _split(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Forward's outputs are lists of tensors, one a level; what follows belongs to the batch."""
        count = next((i for i, a in enumerate(args) if not (a and isinstance(a[0], Tensor))), len(args))
        return args[:count], args[count:]
