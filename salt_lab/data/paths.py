"""Where a data set lies: the paths that every other room gets, and how a study's COCO paths become real ones. No numpy, no cv2."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from salt_lab.errors import DataError
from salt_lab.spec.trial import CocoData


class DatasetPaths(NamedTuple):
    """A checked data set in COCO's format. ``classes`` are the category names in the order of their ids, which is the label order."""

    train_json: Path
    val_json: Path
    train_images: Path
    val_images: Path
    classes: tuple[str, ...]


class CocoFiles(NamedTuple):
    """The four paths of a :class:`CocoData`, variables and ``~`` expanded. Nothing says yet that they exist."""

    train_json: Path
    val_json: Path
    train_images: Path
    val_images: Path


def coco_files(data: CocoData) -> CocoFiles:
    """Expand the paths of ``data``; relative ones stay relative to the working directory.

    Raises:
        DataError: a path names an environment variable that is not set, with the field and the override that avoids it.
    """
    images = _expand("images", data.images)
    val_images = _expand("val_images", data.val_images) if data.val_images is not None else images
    return CocoFiles(_expand("train", data.train), _expand("val", data.val), images, val_images)


def _expand(field: str, text: str) -> Path:
    expanded = os.path.expanduser(os.path.expandvars(text))
    unset = re.search(r"\$\{(\w+)\}|\$(\w+)", expanded)
    if unset:
        name = unset.group(1) or unset.group(2)
        raise DataError(f"data.{field} = '{text}': environment variable {name} is not set. Set it, or override with data.{field}=PATH")
    return Path(expanded)
