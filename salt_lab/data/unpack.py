"""A zip file into a folder, safely: nothing lands outside, every CRC is checked, and the folder appears in one step or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from salt_lab.errors import DataError

#: Bytes that stay free when a disk is filled.
RESERVE = 1 << 30
_BLOCK = 1 << 20
SCRATCH = "unpack-"


def unpack(file: Path, folder: str, root: Path, scratch: Path, advance: Callable[[int], None] = lambda number: None) -> Path:
    """Unpack ``file``, which must hold the one folder ``folder`` and nothing else, as ``root/folder``.

    Args:
        file: the zip file.
        folder: name of the folder that it holds.
        root: where the folder shall lie.
        scratch: a folder of the same file system, in which it is unpacked before it is renamed.
        advance: told of each block, bytes.

    Returns:
        ``root/folder``.

    Raises:
        DataError: the file is damaged, holds a path that leads elsewhere or a link, the disk is too small, or ``root/folder`` exists.
    """
    target = root / folder
    try:
        with zipfile.ZipFile(file) as archive:
            members = [_safe(file, entry, folder) for entry in archive.infolist()]
            check_space(scratch, sum(entry.file_size for entry in members), f"unpacking {file.name}")
            with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=scratch) as place:
                for entry in members:
                    _extract(archive, entry, Path(place), advance)
                _put(Path(place) / folder, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{file}: damaged zip file ({error}). Remove it and run again: it is fetched anew") from None
    except OSError as error:
        raise no_room(file, error) from None
    return target


def check_space(place: Path, needed: int, what: str) -> None:
    """Raise DataError where the disk of ``place`` has not ``needed`` bytes and a reserve of 1 GiB free."""
    free = shutil.disk_usage(place).free
    if free < needed + RESERVE:
        raise DataError(
            f"{place}: {what} takes {gib(needed)} and leaves {gib(RESERVE)} free, but the disk has {gib(free)} free. "
            "Make room, or choose another disk with --root"
        )


def gib(number: float) -> str:
    """Bytes as people read them."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 / 10 else f"{number / 2**20:.1f} MiB"


def no_room(file: Path, error: OSError) -> DataError:
    """An OSError while writing, in the lab's words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(f"{file}: the disk is full. What was fetched is kept: make room and run the same command again")
    return DataError(f"{error.filename or file}: {error.strerror or error}. Choose a folder that can be written with --root")


def _safe(file: Path, entry: zipfile.ZipInfo, folder: str) -> zipfile.ZipInfo:
    """The member, if it is a plain file or folder inside ``folder``."""
    path = PurePosixPath(entry.filename)
    plain = not path.is_absolute() and ".." not in path.parts and path.parts[:1] == (folder,) and not {"\\", ":"} & set(entry.filename)
    if not plain or stat.S_ISLNK(entry.external_attr >> 16):
        raise DataError(
            f"{file}: holds '{entry.filename}', which is not a plain file in {folder}/. Nothing was unpacked; do not trust this file"
        )
    return entry


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, place: Path, advance: Callable[[int], None]) -> None:
    path = place / entry.filename
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, path.open("xb") as out:
        while block := source.read(_BLOCK):
            out.write(block)
            advance(len(block))


def _put(folder: Path, target: Path) -> None:
    """Rename, never over something: a folder that appeared meanwhile stays, even an empty one."""
    if os.path.lexists(target):
        raise DataError(f"{target}: is there already and is left as it is. Move it away, or choose another folder with --root")
    if not folder.is_dir():
        raise DataError(f"{folder.name}: the zip file is empty. Remove it and run again: it is fetched anew")
    os.rename(folder, target)
