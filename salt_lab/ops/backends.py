"""Which implementation each op uses here, for ``salt-lab doctor``. Importing this file imports neither torch nor mmcv."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import NamedTuple

from salt_lab.errors import MissingOpError
from salt_lab.ops.portable import NAME, PORTABLE_OPS, has_compiled, remedy

COMPILED, PORTABLE, TORCHVISION, TRITON, NUMBA, MISSING = "compiled mmcv", "portable (torch)", "torchvision", "Triton", "numba", "missing"
OTHERS = "other mmcv ops"

#: Who may compute point convolution, and the environment variable that decides where a caller does not.
POINT_CONV_BACKENDS, POINT_CONV_VARIABLE = ("auto", "numba", "triton", "portable"), "SALT_LAB_POINT_CONV"


def default_backend(device: str) -> str:
    """Where neither decides. On a GPU not "auto" before the Triton kernels have run on one: only Triton's interpreter has run them."""
    return "auto" if device == "cpu" else "portable"


#: What importing a package of compiled code that does not fit its surroundings can raise.
_LOADING_ERRORS = (ImportError, OSError, RuntimeError, AttributeError)


class OpBackend(NamedTuple):
    """One op, who computes it, and what to know about that (may be empty)."""

    op: str
    backend: str
    note: str


def backends() -> list[OpBackend]:
    """Who computes each op in this environment. Never raises: what cannot work is listed as missing, with the reason.

    Ops are named after mmcv's extension; forward and backward count as one. ``point_conv`` is the lab's own, in torch or in Triton.
    """
    if importlib.util.find_spec("torch") is None:
        return [OpBackend(op, MISSING, "torch is not installed: pip install torch") for op in ("point_conv", *_ops(), OTHERS)]
    own = _point_conv()
    try:
        compiled = has_compiled()
    except (MissingOpError, *_LOADING_ERRORS) as error:
        reason = str(error) if isinstance(error, MissingOpError) else f"mmcv does not import: {error}"
        return [own, *(OpBackend(op, MISSING, reason) for op in (*_ops(), OTHERS))]
    return [own, *(_compiled() if compiled else _portable())]


def _point_conv() -> OpBackend:
    """What float32 goes through on this machine's device, unless a caller says otherwise."""
    import torch

    from salt_lab.ops.fused_point_conv import why_not_numba, why_not_on

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = os.environ.get(POINT_CONV_VARIABLE) or default_backend(kind)
    if wanted not in POINT_CONV_BACKENDS:
        return OpBackend("point_conv", MISSING, f"{POINT_CONV_VARIABLE}={wanted}: choose {', '.join(POINT_CONV_BACKENDS)}")
    kernels = wanted if wanted in ("numba", "triton") else ("triton" if kind == "cuda" else "numba")
    if kernels == "numba":
        reason = why_not_numba(torch.device(kind))
    else:
        reason = why_not_on(torch.cuda.current_device()) if kind == "cuda" else "no CUDA device"
    if wanted == "portable" or (reason and wanted == "auto"):
        why = f"no {kernels} kernels: {reason}"
        if wanted == "portable":
            untried = ", tried in its interpreter alone" if kernels == "triton" else ""
            why = f"{kernels} kernels{untried}: {POINT_CONV_VARIABLE}=auto"
        return OpBackend("point_conv", PORTABLE, f"bilinear reading and one matrix product; {why}")
    if reason:
        return OpBackend("point_conv", MISSING, f"{POINT_CONV_VARIABLE}={wanted}, but {reason}")
    backend = NUMBA if kernels == "numba" else TRITON
    return OpBackend(
        "point_conv", backend, f"columns of a whole map never in memory; {POINT_CONV_VARIABLE}=portable for torch's own operators"
    )


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
