"""Which implementation each op uses here, for ``salt-lab doctor``. Importing this file imports neither torch nor mmcv."""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple

from salt_lab.errors import MissingOpError
from salt_lab.ops.portable import NAME, PORTABLE_OPS, has_compiled, remedy

COMPILED, PORTABLE, TORCHVISION, MISSING = "compiled mmcv", "portable (torch)", "torchvision", "missing"
OTHERS = "other mmcv ops"

#: What importing a package of compiled code that does not fit its surroundings can raise.
_LOADING_ERRORS = (ImportError, OSError, RuntimeError, AttributeError)


class OpBackend(NamedTuple):
    """One op, who computes it, and what to know about that (may be empty)."""

    op: str
    backend: str
    note: str


def backends() -> list[OpBackend]:
    """Who computes each op in this environment. Never raises: what cannot work is listed as missing, with the reason.

    Ops are named after mmcv's extension; forward and backward count as one. ``point_conv`` is the lab's own, always in torch.
    """
    if importlib.util.find_spec("torch") is None:
        return [OpBackend(op, MISSING, "torch is not installed: pip install torch") for op in ("point_conv", *_ops(), OTHERS)]
    own = OpBackend("point_conv", PORTABLE, "bilinear reading and one matrix product; the same on CPU and GPU")
    try:
        compiled = has_compiled()
    except (MissingOpError, *_LOADING_ERRORS) as error:
        reason = str(error) if isinstance(error, MissingOpError) else f"mmcv does not import: {error}"
        return [own, *(OpBackend(op, MISSING, reason) for op in (*_ops(), OTHERS))]
    return [own, *(_compiled() if compiled else _portable())]


def _ops() -> list[str]:
    """The portable ops' names without their direction, in order, each once."""
    return list(dict.fromkeys(op.split("_forward")[0].split("_backward")[0] for op in PORTABLE_OPS))


def _compiled() -> list[OpBackend]:
    """A compiled extension is there; loading it shows whether it fits this torch."""
    try:
        module = importlib.import_module(NAME)
        backend, note = COMPILED, f"compiler {module.get_compiler_version()}, CUDA {module.get_compiling_cuda_version()}"
    except _LOADING_ERRORS as error:
        backend, note = MISSING, f"the compiled extension does not load ({_first_line(error)}): {remedy()}"
    return [OpBackend(op, backend, note) for op in (*_ops(), OTHERS)]


def _portable() -> list[OpBackend]:
    """No compiled extension: the lab's own, and torchvision's NMS where it imports."""
    from salt_lab.ops.nms import torchvision_nms

    rows = [OpBackend(op, PORTABLE, "") for op in _ops()]
    if torchvision_nms() is not None:
        rows[0] = OpBackend("nms", TORCHVISION, f"offset=1 (old integer boxes): {PORTABLE}")
    return [*rows, OpBackend(OTHERS, MISSING, f"each raises when called; to have them, {remedy()}")]


def _first_line(error: Exception) -> str:
    """The error's own words, one line of them."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
