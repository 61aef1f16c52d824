"""What a data set is, in twelve hex digits: equal fingerprints mean equal training data, wherever the folder lies.

The embedded set's comes from its parameters and the generator's version, without drawing anything. A COCO set's comes from both
annotation files' bytes and the names and byte sizes of the images that they list (not the pixels: hashing 20 GB takes minutes).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from salt_lab.data.paths import coco_files
from salt_lab.errors import DataError
from salt_lab.spec.trial import CocoData, EmbeddedData

#: Raise it with every change that moves a pixel or an annotation of the embedded set, and say so in the changelog.
GENERATOR_VERSION = 3
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def fingerprint(data: EmbeddedData | CocoData) -> str:
    """``marks-<12 hex>`` or ``coco-<12 hex>``.

    Raises:
        DataError: an annotation file of a COCO set cannot be read. Missing images are no error here; :func:`check_coco` names them.
    """
    if isinstance(data, EmbeddedData):
        return f"marks-{_digest(parameters(data))}"
    files = coco_files(data)
    train = _split_content("train", files.train_json, files.train_images)
    val = _split_content("val", files.val_json, files.val_images)
    return f"coco-{_digest([train, val])}"


def parameters(data: EmbeddedData) -> dict[str, Any]:
    """All that decides the embedded set's bytes: the generator's version and every field of ``data``."""
    return {"generator": GENERATOR_VERSION, **data.model_dump(mode="json")}


def image_names(annotations: Path) -> tuple[str, ...]:
    """File names of the images that an annotation file lists, sorted, each once; the file is read once a process.

    Raises:
        OSError: it cannot be read.
    """
    stat = annotations.stat()
    return _read_annotations(str(annotations.absolute()), stat.st_size, stat.st_mtime_ns).file_names


class _Annotations(NamedTuple):
    sha256: str
    file_names: tuple[str, ...]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def _split_content(field: str, path: Path, images: Path) -> list[Any]:
    try:
        stat = path.stat()
        annotations = _read_annotations(str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{path}: data.{field}: annotation file cannot be read ({reason}). Check the path, or override with data.{field}=PATH"
        ) from None
    folder = str(images)
    return [annotations.sha256, [[name, _bytes_of(os.path.join(folder, name))] for name in annotations.file_names]]


@lru_cache(maxsize=16)
def _read_annotations(path: str, size: int, mtime_ns: int) -> _Annotations:
    """One pass over the bytes: a full JSON parse of COCO's train2017 (450 MB) would take ``plan`` a quarter of a minute."""
    content = Path(path).read_bytes()
    names = {_unquote(match.group(1)) for match in _FILE_NAME.finditer(content)}
    return _Annotations(hashlib.sha256(content).hexdigest(), tuple(sorted(names)))


def _unquote(quoted: bytes) -> str:
    text = quoted.decode("utf-8", "replace")
    try:
        return str(json.loads(text))
    except ValueError:
        return text  # not JSON: the sha256 already tells the file apart, and check_coco will refuse it


def _bytes_of(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None
