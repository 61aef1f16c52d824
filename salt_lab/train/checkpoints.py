"""A training's checkpoints on the disk: written whole or not at all, looked at before they are trusted, and only the last two kept.

``epoch_3.pth`` is the state after three epochs, ``epoch_3_step_50.pth`` after three epochs and 50 steps of the fourth; ``best_epoch_2.pth``
holds the weights alone. ``last_checkpoint`` names the last one, as mmengine's tools expect; nothing here depends on it.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from salt_lab.errors import TrialFailed
from salt_lab.record.journal import sync_folders, write_whole

#: A corrupt last checkpoint costs the way from the one before it, no more.
KEPT = 2
_NAME = re.compile(r"epoch_(\d+)(?:_step_(\d+))?\.pth")
_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Resumable:
    """From where a training can go on.

    ``path`` is None where it starts from scratch; ``epoch`` counts whole epochs and ``step`` the steps of the next one. ``note`` says, in one
    line, what was wrong with later checkpoints; None where nothing was.
    """

    path: Path | None = None
    epoch: int = 0
    step: int = 0
    note: str | None = None
    damaged: tuple[Path, ...] = ()


def resumable(folder: Path) -> Resumable:
    """The latest checkpoint of a work folder that can be read to its last byte. Reads the files, changes nothing."""
    problems: dict[Path, str] = {}
    found = sorted(checkpoints(folder), key=position, reverse=True)
    pointed = _pointed(folder)
    if pointed is not None and not pointed.is_file():
        problems[pointed] = "is not there, though last_checkpoint names it"
    elif pointed is not None and pointed not in found:
        found.insert(0, pointed)  # of a config with a checkpoint hook of its own
    for path in found:
        problem = whats_wrong(path)
        if problem is None:
            epoch, step = position(path)
            return Resumable(path, epoch, step, _note(problems, path), tuple(p for p in problems if p.is_file()))
        problems[path] = problem
    return Resumable(note=_note(problems, None), damaged=tuple(p for p in problems if p.is_file()))


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a work folder that can be read, or None where there is none."""
    return resumable(folder).path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a work folder from which one could go on, in no order."""
    return [path for path in folder.glob("epoch_*.pth") if _NAME.fullmatch(path.name)]


def position(checkpoint: Path) -> tuple[int, int]:
    """Epochs and steps of the next one in a checkpoint's name; (0, 0) where it is no checkpoint's."""
    found = _NAME.fullmatch(checkpoint.name)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def whats_wrong(path: Path) -> str | None:
    """Why a checkpoint cannot be used; None where every byte of it is as it was written: torch's files are zips with checksums."""
    try:
        state = path.stat()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return _whats_wrong(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _whats_wrong(path: Path, changed: int, size: int) -> str | None:
    if size == 0:
        return "is empty"
    try:
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
            if bad is None and not any(name.endswith("/data.pkl") for name in file.namelist()):
                return "is no checkpoint"
    except _UNREADABLE as error:
        return f"is damaged or cut short ({str(error) or type(error).__name__})"
    return f"is damaged (checksum of {bad})" if bad else None


def write_checkpoint(folder: Path, name: str, write: Callable[[str], None]) -> Path:
    """Write ``folder/name`` whole or not at all, name it in ``last_checkpoint``, and let those before the last two go.

    Args:
        folder: where checkpoints lie.
        name: as :func:`position` reads it, or another (``best_epoch_2.pth``), which changes neither ``last_checkpoint`` nor what is kept.
        write: writes the file; is given its name in ``folder`` while it is not whole.

    Raises:
        TrialFailed: it could not be written (disk full, folder not writable); what was there before is there still.
    """
    partial, path = folder / f".{name}.part", folder / name
    try:
        write(partial.name)
        _sync(partial)
        partial.replace(path)
        sync_folders(path)
        if _NAME.fullmatch(name):
            write_whole(folder / "last_checkpoint", str(path))
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrialFailed(
            f"{folder}: cannot write the checkpoint {name}: {reason}. Free space or make the folder writable, then run again: the trial "
            "goes on from the checkpoint before it"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    if _NAME.fullmatch(name):
        keep_last(folder, KEPT)
    return path


def keep_last(folder: Path, number: int) -> None:
    """Remove the checkpoints before the last ``number``."""
    for path in sorted(checkpoints(folder), key=position, reverse=True)[number:]:
        path.unlink(missing_ok=True)


def clear_the_way(folder: Path, found: Resumable) -> None:
    """Before a training goes on: damaged checkpoints get another name (``*.damaged``), halves of killed processes go."""
    for path in found.damaged:
        with suppress(FileNotFoundError):
            path.replace(path.with_name(f"{path.name}.damaged"))
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def _pointed(folder: Path) -> Path | None:
    """What ``last_checkpoint`` names, here: the folder may have been moved since. None where it names nothing."""
    try:
        name = Path((folder / "last_checkpoint").read_text().strip()).name
    except (OSError, UnicodeDecodeError):
        return None
    return folder / name if name else None


def _note(problems: dict[Path, str], chosen: Path | None) -> str | None:
    if not problems:
        return None
    said = "; ".join(f"{path.name} {problem}" for path, problem in problems.items())
    return f"{said}: " + (f"goes on from {chosen.name}" if chosen else "no checkpoint can be read, starts from scratch")


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
