"""mmcv's ops without a compiler: a module ``mmcv._ext`` made of plain torch, registered only where the compiled one is absent.

``pip install onedl-mmcv`` brings no compiled ops, and mmdet then fails at ``import mmcv._ext``. :func:`install` puts a module of that name into
``sys.modules``: the ops that the hosts need are real (nms, deform, focal, roi_align), every other one raises when called, not when imported.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

from salt_lab.errors import MissingOpError

NAME = "mmcv._ext"

#: What the portable module offers, op -> module of this room that holds the function of the same name.
PORTABLE_OPS = {
    "nms": "nms",
    "softnms": "nms",
    "nms_match": "nms",
    "deform_conv_forward": "deform",
    "deform_conv_backward_input": "deform",
    "deform_conv_backward_parameters": "deform",
    "modulated_deform_conv_forward": "deform",
    "modulated_deform_conv_backward": "deform",
    "roi_align_forward": "roi_align",
    "roi_align_backward": "roi_align",
    "sigmoid_focal_loss_forward": "focal",
    "sigmoid_focal_loss_backward": "focal",
    "softmax_focal_loss_forward": "focal",
    "softmax_focal_loss_backward": "focal",
}


def install() -> bool:
    """Register the portable ``mmcv._ext`` if there is no compiled one. Call it before the first import of ``mmcv.ops`` or ``mmdet``.

    Calling it again changes nothing. If an import of ``mmcv.ops`` failed before, the next one works.

    Returns:
        True if mmcv's ops are the portable ones, False if a compiled extension is there: then nothing is touched.

    Raises:
        MissingOpError: mmcv itself is not installed.
    """
    if not is_portable() and has_compiled():
        return False
    if not is_portable():
        sys.modules[NAME] = _build()
    return True


def is_portable() -> bool:
    """Whether the portable module is the one registered now."""
    return getattr(sys.modules.get(NAME), "is_salt_lab_portable", False) is True


def has_compiled() -> bool:
    """Whether mmcv comes with its own compiled extension (it may still fail to load: see :mod:`salt_lab.ops.backends`).

    Raises:
        MissingOpError: mmcv itself is not installed.
    """
    if is_portable():
        return False
    if NAME in sys.modules:
        return True
    if importlib.util.find_spec("mmcv") is None:
        raise MissingOpError("mmcv is not installed: pip install onedl-mmcv (see the constraints file for the tested version)")
    return importlib.util.find_spec(NAME) is not None


def remedy() -> str:
    """One line: how to get the compiled build of the installed mmcv version."""
    try:
        pin = f"onedl-mmcv=={importlib.metadata.version('onedl-mmcv')}"
    except importlib.metadata.PackageNotFoundError:
        pin = "onedl-mmcv"
    return (
        "build mmcv's compiled ops in this environment (C++ compiler, and CUDA's for a GPU; about 20 CPU-minutes): "
        "pip install 'setuptools>=80,<82' wheel packaging ninja psutil numpy && "
        f"pip install --force-reinstall --no-cache-dir --no-build-isolation --no-deps {pin}"
    )


def missing(op: str) -> Callable[..., NoReturn]:
    """A stand-in for an op that the portable build does not have; calling it raises :class:`MissingOpError`."""

    def raises(*args: object, **kwargs: object) -> NoReturn:
        raise MissingOpError(f"mmcv op '{op}' is not among the portable ops ({', '.join(sorted(PORTABLE_OPS))}). To use it, {remedy()}")

    raises.__name__ = raises.__qualname__ = op
    return raises


def _build() -> ModuleType:
    """The module itself. It has a spec because mmengine looks it up with ``find_spec``."""
    module = ModuleType(NAME, "Portable mmcv ops of SALT lab, in plain torch.")
    module.__spec__ = importlib.machinery.ModuleSpec(NAME, loader=None, origin=__name__)
    module.__dict__["is_salt_lab_portable"] = True
    for op, home in PORTABLE_OPS.items():
        module.__dict__[op] = getattr(importlib.import_module(f"salt_lab.ops.{home}"), op)
    module.__dict__["get_compiler_version"] = lambda: "none (portable ops of SALT lab)"
    module.__dict__["get_compiling_cuda_version"] = lambda: "not available"
    module.__dict__["__getattr__"] = _missing_attribute
    return module


def _missing_attribute(name: str) -> Callable[..., NoReturn]:
    """PEP 562: mmcv asks for every op name on import, so each must exist; no op's name begins with an underscore."""
    if name.startswith("_"):
        raise AttributeError(f"module '{NAME}' has no attribute '{name}'")
    return missing(name)
