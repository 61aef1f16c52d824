"""What a trial's probe keeps: how its detector sees the locations that learn each object of the val images.

Written once, at the end of a trial (:mod:`salt_lab.train.probe`), as ``trials/<id>/probe.npz``, so that misalignment can be studied when
the checkpoints are gone. Shape legend: P positive locations, K points.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from salt_lab.errors import StoreError

#: The file in a trial's folder.
PROBE = "probe.npz"
FORMAT = 1
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_IDS, _WHOLE = ("image_P", "object_P", "category_P"), ("level_P",)


@dataclass(frozen=True, eq=False)
class Probe:
    """Positive locations of the host's own assigner on the val images, ordered by image, object, level and place.

    Lengths are pixels of the original picture; boxes are x1 y1 x2 y2. A field is NaN where there is nothing to measure.
    """

    image_P: np.ndarray  #: image id, int64
    object_P: np.ndarray  #: annotation id of the object that the location learns, int64
    category_P: np.ndarray  #: its category id, int64
    object_box_P4: np.ndarray  #: its box
    area_P: np.ndarray  #: its annotated area, pixels squared, which decides its size class
    score_P: np.ndarray  #: score of the object's class as inference uses it, 0..1: times the quality where the host multiplies them
    class_score_P: np.ndarray  #: the same without quality; equal to ``score_P`` for a host that multiplies nothing
    iou_P: np.ndarray  #: IoU of the location's final box, clipped to the picture, with the object
    coarse_iou_P: np.ndarray  #: likewise of the operator's coarse box; NaN without SALT and on levels where it does not act
    level_P: np.ndarray  #: pyramid level, 0 is the finest, int32
    stride_P: np.ndarray  #: side of the location's cell
    cell_P2: np.ndarray  #: x, y from which the operator's points are measured (the centre of the host's prior)
    reg_points_PK2: np.ndarray  #: R-points, x, y; K = 0 without SALT and where the operator has none
    cls_points_PK2: np.ndarray  #: C-points, likewise
    mark_P2: np.ndarray  #: x, y of the object's class mark; NaN but in the embedded data set
    total: int = 0  #: positives that there were; more than P where only the positives of some objects, drawn evenly, were kept
    note: str = ""  #: why there is nothing; empty where there is

    def __len__(self) -> int:
        return len(self.image_P)

    @property
    def has_salt(self) -> bool:
        """Did the model have the operator? Says nothing where there is no positive."""
        return bool(np.isfinite(self.coarse_iou_P).any())


def arrays() -> dict[str, tuple[int, ...]]:
    """The arrays of a :class:`Probe` and the shape of one row of each; -1 stands for K."""
    names = [field.name for field in fields(Probe) if field.name not in ("total", "note")]
    return {name: (-1, 2) if name.endswith("K2") else (int(name[-1]),) if name[-1].isdigit() else () for name in names}


def dtype_of(name: str) -> type[Any]:
    """In which type an array of a :class:`Probe` is kept."""
    return np.int64 if name in _IDS else np.int32 if name in _WHOLE else np.float32


def empty_probe(note: str = "") -> Probe:
    """A probe without positives; ``note`` says why."""
    rows: dict[str, Any] = {name: np.zeros((0, *(max(0, size) for size in row)), dtype_of(name)) for name, row in arrays().items()}
    return Probe(**rows, note=note)


def save_probe(path: Path, probe: Probe) -> None:
    """Write a probe, whole or not at all; the same probe gives the same bytes."""
    partial = path.with_name(f".{path.name}.partial")
    content: dict[str, Any] = {name: np.asarray(getattr(probe, name), dtype_of(name)) for name in arrays()}
    content |= {"format": np.int32(FORMAT), "total": np.int64(probe.total), "note": np.str_(probe.note)}
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_probe(path: Path) -> Probe:
    """Read a probe.

    Raises:
        StoreError: there is no such file, it is damaged, or a later version of the lab wrote it; says what to do.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no such probe. salt-lab probe STUDY makes it where the trial's last checkpoint is still there")
    try:
        with np.load(path, allow_pickle=False) as file:
            version = int(file["format"])
            content = {name: file[name] for name in (*arrays(), "total", "note")} if version <= FORMAT else {}
    except _UNREADABLE as error:
        raise _damaged(path, str(error) or type(error).__name__) from error
    if not content:
        raise StoreError(f"{path}: format = {version}, and this version of the lab reads up to {FORMAT}: update the lab")
    _check(path, content)
    return Probe(**{name: content[name] for name in arrays()}, total=int(content["total"]), note=str(content["note"]))


def _check(path: Path, content: dict[str, np.ndarray]) -> None:
    """Every array has its type, as many rows as the first, and rows of its shape."""
    for name, row in arrays().items():
        found = content[name]
        shape = (content["image_P"].size, *(has if want < 0 else want for want, has in zip(row, found.shape[1:], strict=False)))
        if found.shape != shape or found.ndim != 1 + len(row) or found.dtype != dtype_of(name):
            raise _damaged(path, f"{name} has shape {found.shape} and type {found.dtype}")


def _damaged(path: Path, reason: str) -> StoreError:
    first = (reason.splitlines() or [""])[0]
    return StoreError(
        f"{path}: damaged ({first}). salt-lab probe STUDY makes it anew where the trial's last checkpoint is still there; else delete it"
    )
