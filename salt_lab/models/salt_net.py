"""SALT-Net's head: GFLv2 with the operator, the long skip and three convolutions a tower (salt.md section 4)."""

from __future__ import annotations

from typing import Any

from mmdet.registry import MODELS

from salt_lab.models.hosts.gflv2 import SALTGFLv2Head


@MODELS.register_module()
class SALTNetHead(SALTGFLv2Head):
    """The head of SALT-Net. Its plain counterpart is :class:`~salt_lab.models.gflv2.GFLv2Head` with three convolutions a tower.

    Args:
        stacked_convs: convolutions a tower, 3 in the released models.
        others: those of :class:`~salt_lab.models.hosts.gflv2.SALTGFLv2Head`.
    """

    def __init__(self, *args: Any, stacked_convs: int = 3, **kwargs: Any) -> None:
        super().__init__(*args, stacked_convs=stacked_convs, **kwargs)
