"""Reading and writing weights files: torch.save's and safetensors'. Never a pickle of unknown origin without the user's word."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salt_lab.errors import WeightsError
from salt_lab.spec.weights_file import TRUST_VARIABLE, is_safetensors, trusted, whats_wrong

#: Where a checkpoint keeps its weights, best first: timm keeps the mean over steps beside the last step's and means the mean to be used.
#: mmengine's ``ema_state_dict`` is not in the list: its EMAHook writes the mean into ``state_dict``, and there what the mean is taken of.
#: mmdet 2.x likewise; its ``ema_backbone_...`` twins in ``state_dict`` fit no model and are left out.
STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_checkpoint(path: Path | str, trust: bool = False, map_location: Any = "cpu") -> Any:
    """All that a weights file holds: of torch.save's whatever was saved, of safetensors' a dict of tensors.

    Args:
        path: the file; its content says what it is, not its name. An address (``https://...``, ``torchvision://resnet50``) is downloaded
            once, by mmengine's way, into torch's cache.
        trust: the user's word that it may be unpickled whole, whatever classes it holds; ``SALT_LAB_TRUST_CHECKPOINTS=1`` is the same.
        map_location: where the tensors go, as in ``torch.load``.

    Raises:
        WeightsError: it is missing or damaged, or (without ``trust``) holds more than tensors, plain values and the harmless classes of
            :data:`salt_lab.spec.weights_file.HARMLESS`.
    """
    if "://" in str(path):
        return _download(str(path), map_location)
    path = Path(path)
    if (problem := whats_wrong(path, trust)) is not None:
        raise WeightsError(f"{path}: {problem}")
    try:
        with path.open("rb") as file:
            if is_safetensors(file.read(9)):
                return _read_safetensors(path, map_location)
        if trust or trusted():
            return torch.load(path, map_location=map_location, weights_only=False)
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a bad file
        raise WeightsError(f"{path}: cannot be read as a weights file: {_reason(error)}") from error


def _download(address: str, map_location: Any) -> Any:
    """Through :mod:`salt_lab.models.mmengine_doors`, and so back to :func:`read_checkpoint` with the file."""
    from mmengine.runner import CheckpointLoader

    try:
        return CheckpointLoader.load_checkpoint(address, map_location=map_location)
    except WeightsError:
        raise
    except Exception as error:  # whatever networks and addresses can do
        raise WeightsError(f"{address}: cannot be downloaded ({_reason(error)}); fetch it yourself and give the file") from error


def _reason(error: Exception) -> str:
    """One line. Where torch's check refused, torch's own words (its context) without its advice to switch the check off, then ours."""
    text = str(error)
    if "Weights only load failed" not in text:
        return text.splitlines()[0] if text else type(error).__name__
    what = str(error.__context__ or "").partition("Please use")[0].strip() or "it holds more than tensors and plain values."
    return f"{what} If you trust where the file comes from, pass --trust-checkpoint or set {TRUST_VARIABLE}=1"


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path, device=str(map_location if isinstance(map_location, str | torch.device) else "cpu"))


def _harmless() -> list[Any]:
    """The classes behind :data:`~salt_lab.spec.weights_file.HARMLESS`, and NumPy's types of numbers, which torch asks for by themselves."""
    from mmengine.logging import HistoryBuffer

    multiarray = importlib.import_module(np.ndarray(0).__reduce__()[0].__module__)  # its folder has another name in NumPy 1 and 2
    named = {
        "argparse.Namespace": argparse.Namespace,
        "builtins.getattr": _statistic,
        "builtins.slice": slice,
        "mmengine.logging.history_buffer.HistoryBuffer": HistoryBuffer,
        "numpy.dtype": np.dtype,
        "numpy.ndarray": np.ndarray,
    }
    for folder in ("core", "_core"):
        named[f"numpy.{folder}.multiarray._reconstruct"] = multiarray._reconstruct
        named[f"numpy.{folder}.multiarray.scalar"] = multiarray.scalar
    numbers = {type(np.dtype(code)) for code in np.typecodes["All"] if code != "O"}  # an array of objects is no array of numbers
    return [*((value, name) for name, value in named.items()), *((kind, f"numpy.dtypes.{kind.__name__}") for kind in numbers)]


def _statistic(owner: Any, name: str) -> Any:
    """In place of ``getattr``, which a HistoryBuffer needs for the four statistics it is saved with; anything else is refused."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise ValueError(f"the file asks for getattr({owner!r}, {name!r}), which no checkpoint needs")
    return getattr(HistoryBuffer, name)


def tensors_of(content: Any, path: Path | str) -> dict[str, Tensor]:
    """The state dict in what a file holds: bare, or under one of :data:`STATE_KEYS`.

    Raises:
        WeightsError: there are no tensors by name in it.
    """
    while isinstance(content, Mapping) and (key := next((k for k in STATE_KEYS if isinstance(content.get(k), Mapping)), None)):
        content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors by name; expected a state dict, bare or under {', '.join(STATE_KEYS)}")
    return tensors


def write_weights(tensors: Mapping[str, Tensor], path: Path, meta: Mapping[str, str]) -> None:
    """Write a checkpoint with ``state_dict`` and ``meta``; where the name ends in ``.safetensors``, in that form.

    Raises:
        WeightsError: ``path`` exists already, or cannot be written.
    """
    if path.exists():
        raise WeightsError(f"{path}: exists already: choose another name, nothing is overwritten")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file({k: v.contiguous().clone() for k, v in tensors.items()}, path, metadata=dict(meta))
        else:
            torch.save({"state_dict": dict(tensors), "meta": dict(meta)}, path)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{path}: cannot be written ({_reason(error)}); give a file in a writable folder") from error
