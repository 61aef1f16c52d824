"""Pictures of a data set decoded and resized once, in one memory-mapped file that all processes of a machine share **(ours)**.

A folder that is made whole or not at all, and that may be deleted at any time::

    decoded/<key>/pixels.bin   uint8 BGR, one picture after the other, rows of each without gaps
    decoded/<key>/index.json   line 1: sha256 of line 2; line 2: layout, key, size of pixels.bin, and a row for each picture

The kernel keeps one copy of the pixels in memory however many processes map the file. What is read is checked, each picture once a process:
its pixels' checksum, and whether its file is still the one that was decoded (size and time; where the time differs, its checksum). A
picture that does not pass is not served, and its reader decodes the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from salt_lab.data.shapes import Pixels
from salt_lab.errors import DataError

#: Raise it with every change of the files' format.
LAYOUT = 1
#: Gives the pixels of one file as training wants them, (h, w, 3) uint8, and the height and width of the picture before resizing.
Decode = Callable[[Path], tuple[Pixels, tuple[int, int]]]


class Picture(NamedTuple):
    """A picture to put into a cache; found again by ``split`` and ``name``."""

    split: str
    name: str
    path: Path


class _Row(NamedTuple):
    offset: int
    height: int
    width: int
    original: tuple[int, int]  # height, width
    crc: int
    file_bytes: int
    file_mtime_ns: int
    file_crc: int


def cache_key(fingerprint: str, made_by: Mapping[str, Any]) -> str:
    """Names a cache: the data set's fingerprint and 10 hex digits over all that decides the pixels (resizing, versions), plain data."""
    text = json.dumps({"layout": LAYOUT, **made_by}, sort_keys=True, separators=(",", ":"))
    return f"{fingerprint}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def most_bytes(pictures: int, longest: int, shortest: int) -> int:
    """Bytes that ``pictures`` take at most, resized to fit into ``longest`` x ``shortest`` pixels (either way round). Opens nothing."""
    return pictures * longest * shortest * 3


class DecodedImages:
    """An open cache. Threads may share it; a forked process may go on using it.

    Args:
        folder: the cache's folder.
        key: what the cache must have been made for.

    Raises:
        DataError: it is not there, damaged, cut short, or made for something else; says what.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        content = _read_index(folder / "index.json", key)
        self.bytes: int = content["bytes"]
        self._rows = {split: {name: _row(row) for name, row in rows.items()} for split, rows in content["pictures"].items()}
        self._pixels = _map(folder / "pixels.bin", self.bytes)
        self._good: dict[tuple[str, str], bool] = {}

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def read(self, split: str, name: str, path: Path) -> tuple[Pixels, tuple[int, int]] | None:
        """A picture's pixels (h, w, 3), a copy, and its height and width before resizing; None where its file has to be decoded.

        Args:
            split, name: under which it was put in.
            path: its file, as it is now.
        """
        row = self._rows.get(split, {}).get(name)
        if row is None:
            return None
        pixels = self._pixels[row.offset : row.offset + row.height * row.width * 3]
        if (split, name) not in self._good:
            self._good[split, name] = self._check(row, pixels, path)
        return (np.array(pixels.reshape(row.height, row.width, 3)), row.original) if self._good[split, name] else None

    def _check(self, row: _Row, pixels: Pixels, path: Path) -> bool:
        if zlib.crc32(pixels.data) != row.crc:
            self._discard()
            return False
        try:
            stat = path.stat()
            if stat.st_size != row.file_bytes:
                return False
            return stat.st_mtime_ns == row.file_mtime_ns or zlib.crc32(path.read_bytes()) == row.file_crc
        except OSError:
            return False

    def _discard(self) -> None:
        """Damaged on disk: without an index the next one to open it makes it anew. Who has it mapped goes on with the good pictures."""
        with contextlib.suppress(OSError):
            os.unlink(self.folder / "index.json")


def write_decoded(folder: Path, key: str, pictures: Iterable[Picture], decode: Decode) -> None:
    """Decode ``pictures`` into the cache ``folder``, which appears in one step; what lies there makes way. The caller holds its lock.

    A picture that cannot be decoded is left out: whoever reads it gets the error then, as without a cache.

    Raises:
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}-*"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        whole = scratch / "whole"
        whole.mkdir()
        _fill(whole, key, pictures, decode)
        if folder.exists():
            os.rename(folder, scratch / "replaced")
        os.rename(whole, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fill(folder: Path, key: str, pictures: Iterable[Picture], decode: Decode) -> None:
    rows: dict[str, dict[str, _Row]] = {}
    with (folder / "pixels.bin").open("wb") as file:
        for picture in pictures:
            if (row := _append(file, picture.path, decode)) is not None:
                rows.setdefault(picture.split, {})[picture.name] = row
        size = file.tell()
        _to_disk(file)
    body = json.dumps({"layout": LAYOUT, "key": key, "bytes": size, "pictures": rows}, separators=(",", ":")).encode()
    with (folder / "index.json").open("wb") as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        _to_disk(file)


def _append(file: IO[bytes], path: Path, decode: Decode) -> _Row | None:
    try:
        stat, content = path.stat(), path.read_bytes()
        pixels, original = decode(path)
    except Exception:  # whatever is wrong with this file is said to whoever trains on it
        return None
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return None
    offset, raw = file.tell(), np.ascontiguousarray(pixels).data
    file.write(raw)
    height, width = pixels.shape[:2]
    return _Row(offset, height, width, original, zlib.crc32(raw), stat.st_size, stat.st_mtime_ns, zlib.crc32(content))


def _to_disk(file: IO[bytes]) -> None:
    """Before the rename: a cache that is there after a power cut must be whole."""
    file.flush()
    os.fsync(file.fileno())


def _row(values: list[Any]) -> _Row:
    row = _Row(*values)
    return row._replace(original=(row.original[0], row.original[1]))


def _read_index(path: Path, key: str) -> dict[str, Any]:
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise DataError(f"{path}: no decoded pictures ({error.strerror})") from error
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise DataError(f"{path}: the index of the decoded pictures is damaged (its checksum differs)")
    content: dict[str, Any] = json.loads(body)
    if (content["layout"], content["key"]) != (LAYOUT, key):
        raise DataError(f"{path}: decoded for '{content['key']}', not for '{key}'")
    return content


def _map(path: Path, size: int) -> Pixels:
    try:
        found = path.stat().st_size
        if found != size:
            raise DataError(f"{path}: has {found} bytes, its index says {size}")
        return np.memmap(path, dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: decoded pictures cannot be mapped ({error.strerror})") from error
