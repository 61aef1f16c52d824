"""Where each host comes from: mmdet's own config, and the heads that it has without and with the operator.

The configs ship inside the mmdet wheel, so nothing is copied: with the operator off a trial's model section *is* mmdet's. Two hosts say
where they are not: ``retinanet`` has one anchor a location in both arms, and ``gflv2`` has a head that mmdet lacks.
"""

from __future__ import annotations

import copy
import difflib
import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mmengine.config import Config

from salt_lab.errors import SpecError, did_you_mean
from salt_lab.spec.parts import MMDET, QUALITY
from salt_lab.spec.trial import Trial


class Host(NamedTuple):
    """One host detector."""

    config: str  #: config of mmdet, below its ``configs`` folder
    salt_head: str | None = None  #: registered head with the operator; None = a comparison host
    plain_head: str | None = None  #: registered head without it where mmdet has none; None = the one that the config names
    head_patch: Mapping[str, Any] = MappingProxyType({})  #: what differs from mmdet's head in both arms **(ours)**


#: RetinaNet with one square anchor a location, 8 strides wide as ATSS's and GFL's, so that both arms of a comparison have it **(ours)**:
#: the operator has one point set a location, and nine anchors would share it.
ONE_ANCHOR = MappingProxyType({"anchor_generator": dict(octave_base_scale=8, scales_per_octave=1, ratios=[1.0])})

_GFL = "gfl/gfl_r50_fpn_1x_coco.py"
HOSTS = {
    "atss": Host("atss/atss_r50_fpn_1x_coco.py", "SALTATSSHead"),
    # the usual tricks (centre sampling, GIoU, centerness on the regression branch): 38.7 AP published, where plain FCOS has 36.6
    "fcos": Host("fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py", "SALTFCOSHead"),
    "fcos_plain": Host("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", "SALTFCOSHead"),
    "fovea": Host("foveabox/fovea_r50_fpn_4xb4-1x_coco.py", "SALTFoveaHead"),
    "gfl": Host(_GFL, "SALTGFLHead"),
    "gflv2": Host(_GFL, "SALTGFLv2Head", "GFLv2Head"),
    "reppoints": Host("reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py", "SALTRepPointsHead"),
    "retinanet": Host("retinanet/retinanet_r50_fpn_1x_coco.py", "SALTRetinaHead", head_patch=ONE_ANCHOR),
    "salt_net": Host(_GFL, "SALTNetHead", "GFLv2Head"),  # without the operator: GFLv2 with 3 convolutions a tower
    "vfnet": Host("vfnet/vfnet_r50_fpn_1x_coco.py", "SALTVFNetHead"),
    "autoassign": Host("autoassign/autoassign_r50-caffe_fpn_1x_coco.py"),
    "ddod": Host("ddod/ddod_r50_fpn_1x_coco.py"),
    "dyhead": Host("dyhead/atss_r50_fpn_dyhead_1x_coco.py"),
    "paa": Host("paa/paa_r50_fpn_1x_coco.py"),
    "retinanet_9_anchors": Host("retinanet/retinanet_r50_fpn_1x_coco.py"),
    "tood": Host("tood/tood_r50_fpn_1x_coco.py"),
}


def host(name: str) -> Host:
    """The host called ``name``: one of the table, or ``mmdet::CONFIG``.

    Raises:
        SpecError: there is none; names the nearest.
    """
    if name.startswith(MMDET):
        return Host(name.removeprefix(MMDET))
    if name not in HOSTS:
        raise SpecError(did_you_mean("host", name, HOSTS))
    return HOSTS[name]


def host_of(trial: Trial) -> Host:
    """The host of ``trial``, with the heads that its ``quality`` toggle asks for: gfl with quality is gflv2, gflv2 without it is gfl."""
    if trial.host in QUALITY and trial.has_quality != QUALITY[trial.host]:
        return HOSTS["gflv2" if trial.has_quality else "gfl"]
    return host(trial.host)


def configs_folder() -> Path:
    """The folder of mmdet's shipped configs.

    Raises:
        SpecError: mmdet is not installed.
    """
    spec = importlib.util.find_spec("mmdet")
    if spec is None or spec.origin is None:
        raise SpecError("mmdet is not installed: pip install -e . brings onedl-mmdetection")
    return Path(spec.origin).parent / ".mim" / "configs"


def mmdet_config(name: str) -> Config:
    """mmdet's own config ``name``, for example ``atss/atss_r50_fpn_1x_coco.py``. Neither torch nor what the config imports is loaded.

    Raises:
        SpecError: mmdet is not installed, has no such config (names the nearest), or the config cannot be read or is no detector.
    """
    folder = configs_folder()
    path = folder / name
    where = f"host = '{MMDET}{name}'"
    if folder not in path.parents or ".." in path.parts or not path.is_file():
        raise SpecError(f"{where}: mmdet has no such config (looked in mmdet/.mim/configs). {_nearest(name, folder)}")
    try:
        config = copy.deepcopy(_read(path))
    except Exception as error:  # a config is a program: it may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SpecError(f"{where}: mmdet's config cannot be read here ({reason})") from error
    if not isinstance(config.get("model"), dict) or "type" not in config.model or "_base_" in path.parts:
        raise SpecError(f"{where}: this config is a part of others and holds no detector. {_nearest(path.stem, folder)}")
    return config


@lru_cache(maxsize=64)
def _read(path: Path) -> Config:
    """A study composes the same few configs again and again; reading one takes as long as all the patches."""
    return Config.fromfile(str(path), import_custom_modules=False)


def _nearest(name: str, folder: Path) -> str:
    """The shipped configs whose names come closest."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if "_base_" not in path.parts]
    by_stem = {Path(each).name: each for each in sorted(names)}
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    near += [by_stem[stem] for stem in difflib.get_close_matches(Path(name).name, by_stem, n=3, cutoff=0.6)]
    return (
        f"Nearest: {', '.join(list(dict.fromkeys(near))[:3])}"
        if near
        else f"Its {len(names)} configs are named like {HOSTS['tood'].config}"
    )
