"""What it takes to train just any of mmdet's configs on boxes: what cannot be, which hooks stay, where the number of classes stands."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from salt_lab.errors import SpecError

_MASKS = "it learns from masks, and the lab trains on boxes"
_VIDEO = "it follows objects through videos, and the lab trains on single images"
#: sections of a model that stand for something else than boxes on images -> why the lab cannot train it
OTHER_TASKS = {
    "mask_head": _MASKS, "semantic_head": _MASKS, "panoptic_head": _MASKS, "panoptic_fusion_head": _MASKS, "segm_head": _MASKS,
    "track_head": _VIDEO, "tracker": _VIDEO, "language_model": "it reads captions, which a data set of boxes has not",
    "detector": "it wraps another detector: name that one's config", "teacher_config": "it needs a trained teacher",
}  # fmt: skip
#: likewise by the type of the model or of its head
OTHER_TYPES = {
    "RPN": "it proposes boxes without classes", "FastRCNN": "it needs a file of proposals", "CLRNet": "it finds lanes, not boxes",
    "BaseReID": _VIDEO, "Detectron2Wrapper": "it needs detectron2", "LAD": "it needs a trained teacher", "RTMDetInsHead": _MASKS,
    "RTMDetInsSepBNHead": _MASKS, "CrowdDet": "its data carry visible boxes beside the full ones",
}  # fmt: skip
#: hooks that change the pipeline or average the weights: data and schedule are the trial's, the same for every host
DROPPED_HOOKS = ("EMAHook", "MeanTeacherHook", "PipelineSwitchHook", "YOLOXModeSwitchHook")
#: sections that tell no classes apart, or whose number is another one
_NO_CLASSES = ("backbone", "neck", "rpn_head", "data_preprocessor", "train_cfg", "test_cfg")
#: heads that need a package beside mmdet's own -> (what to import, what to install)
EXTRA_PACKAGES = {"PAAHead": ("sklearn", "scikit-learn"), "LADHead": ("sklearn", "scikit-learn")}


def check_trainable(config: Config, name: str) -> None:
    """Can the lab train this config on a data set of boxes with the packages that are here?

    Raises:
        SpecError: it learns from something else than boxes, or needs a package that is not installed.
    """
    where = f"host = '{name}'"
    sections = list(sections_of(config.model))
    keys = {key for section in sections for key in section}
    types = {short_type(section) for section in sections}
    reason = next((why for key, why in OTHER_TASKS.items() if key in keys), None)
    reason = reason or next((why for kind, why in OTHER_TYPES.items() if kind in types), None)
    if reason:
        raise SpecError(f"{where}: {reason}. Choose a config that trains on boxes, e.g. mmdet::tood/tood_r50_fpn_1x_coco.py")
    needed = [EXTRA_PACKAGES[kind] for kind in sorted(types & EXTRA_PACKAGES.keys())]
    needed += [(package, package) for package in sorted({each.partition(".")[0] for each in host_imports(config)})]
    for package, install in needed:
        if importlib.util.find_spec(package) is None:
            raise SpecError(f"{where} needs {package}, which is not installed: pip install {install}")


def host_imports(config: Config) -> list[str]:
    """Modules that the host's config asks to import."""
    return list((config.get("custom_imports") or {}).get("imports") or [])


def kept_hooks(config: Config) -> list[Any]:
    """The host's own hooks, without :data:`DROPPED_HOOKS`."""
    return [hook for hook in config.get("custom_hooks") or [] if short_type(hook) not in DROPPED_HOOKS]


def set_classes(section: Any, count: int) -> int:
    """Set ``num_classes`` wherever a head (or a loss of one) has it, however deep. Returns the number of places."""
    places = 0
    for key, value in section.items() if isinstance(section, dict) else enumerate(section):
        if key == "num_classes":
            section[key] = count
            places += 1
        elif key not in _NO_CLASSES and isinstance(value, (dict, list, tuple)):
            places += set_classes(value, count)
    return places


def sections_of(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a config section, outer ones first."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from sections_of(inner)


def short_type(section: Any) -> str:
    """The registered name that a section asks for, without its registry's scope: ``mmdet.ResNet`` is ``ResNet``."""
    kind = section.get("type", "") if isinstance(section, dict) else ""
    return kind.rpartition(".")[2] if isinstance(kind, str) else str(getattr(kind, "__name__", kind))
