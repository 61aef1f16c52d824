"""Where each host comes from: mmdet's own config, and the head that carries the operator.

The configs ship inside the mmdet wheel, so nothing is copied: with the operator off a trial's model section *is* mmdet's.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from salt_lab.errors import SpecError, did_you_mean


class Host(NamedTuple):
    """One host detector."""

    config: str  #: config of mmdet, below its ``configs`` folder
    salt_head: str  #: registered head with the operator
    plain: bool = True  #: does it exist without the operator?


HOSTS = {
    "atss": Host("atss/atss_r50_fpn_1x_coco.py", "SALTATSSHead"),
    # the usual tricks (centre sampling, GIoU, centerness on the regression branch): 38.7 AP published, where plain FCOS has 36.6
    "fcos": Host("fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py", "SALTFCOSHead"),
    "gfl": Host("gfl/gfl_r50_fpn_1x_coco.py", "SALTGFLHead"),
    "salt_net": Host("gfl/gfl_r50_fpn_1x_coco.py", "SALTNetHead", plain=False),
}


def mmdet_config(name: str) -> Config:
    """mmdet's own config ``name``, for example ``atss/atss_r50_fpn_1x_coco.py``.

    Raises:
        SpecError: mmdet is not installed or has no such config.
    """
    spec = importlib.util.find_spec("mmdet")
    if spec is None or spec.origin is None:
        raise SpecError("mmdet is not installed: pip install -e . brings onedl-mmdetection")
    path = Path(spec.origin).parent / ".mim" / "configs" / name
    if not path.is_file():
        raise SpecError(f"mmdet has no config '{name}' (looked in mmdet/.mim/configs)")
    return Config.fromfile(str(path))


def host(name: str) -> Host:
    """The host called ``name``.

    Raises:
        SpecError: there is none; names the nearest.
    """
    if name not in HOSTS:
        raise SpecError(did_you_mean("host", name, HOSTS))
    return HOSTS[name]
