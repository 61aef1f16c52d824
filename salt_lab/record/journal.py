"""The journal of one trial: JSON lines, each on the disk before ``append`` returns. Lines are added, never changed or removed.

A process may die at any byte. Half a line is never acknowledged, and reading passes over it; the next ``append`` starts on a fresh line.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from salt_lab.errors import StoreError


class Journal:
    """Events in the order in which they happened. One writer at a time (the trial's lock sees to it), any number of readers."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def append(self, event: str, **fields: Any) -> None:
        """Write one event and return when it is on the disk.

        Args:
            event: "start", "built", "epoch", "eval", "rung", "done", "stopped", "failed" or "interrupted".
            fields: plain data; NumPy scalars, tuples and paths are taken as such. NaN and infinities become null.
                ``time`` (unix seconds) is now unless given.

        Raises:
            StoreError: the line could not be written (disk full, folder gone or not writable); what was there before still is.
            TypeError: a field is no plain data.
        """
        line = json.dumps(plain({"event": event, "time": time.time(), **fields}), allow_nan=False).encode() + b"\n"
        try:
            written, size = self._write(line)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot record '{event}': {error.strerror}. {_REMEDY}") from error
        if written < size:
            raise StoreError(f"{self.path}: only {written} of {size} bytes of '{event}' fitted: the disk is full. {_REMEDY}")

    def extend(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add events that were recorded elsewhere, as they are, in one write. What fits before a crash or a full disk is a beginning of them.

        Raises:
            StoreError: as :meth:`append`.
        """
        text = b"".join(json.dumps(plain(line), allow_nan=False).encode() + b"\n" for line in lines)
        try:
            written, size = self._write(text)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}. Free space or make the folder writable") from error
        if written < size:
            raise StoreError(f"{self.path}: only {written} of {size} bytes fitted: the disk is full. Free space, then do the same again")

    def read(self) -> list[dict[str, Any]]:
        """All complete events, oldest first; an absent journal has none. Half lines of killed processes are passed over."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        lines = text.split(b"\n")
        return _all_parsed(lines) or [event for event in map(_parsed, lines) if event is not None]

    def size(self) -> int:
        """Bytes on disk, 0 where there is no journal. It only grows, so it tells cheaply whether anything happened."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def _write(self, line: bytes) -> tuple[int, int]:
        """Append in a single write, then fsync. Returns the bytes written and the bytes asked for."""
        fd = self._open()
        try:
            end = os.fstat(fd).st_size
            if end and os.pread(fd, 1, end - 1) != b"\n":
                line = b"\n" + line
            written = os.write(fd, line)
            os.fsync(fd)
            return written, len(line)
        finally:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        try:
            return os.open(self.path, flags)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, flags | os.O_CREAT, 0o644)
            sync_folders(self.path)
            return fd


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: tuples become lists, NumPy scalars and paths their Python kin, NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, (bool, int, float, str, type(None))) and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Any) -> None:
    """Write a small JSON file as :func:`write_whole` does; NaN and infinities become null."""
    write_whole(path, json.dumps(plain(content), indent=1, allow_nan=False))


def write_whole(path: Path, text: str) -> None:
    """Write a small file whole or not at all: a temporary file, synced, then renamed over ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folders(path)


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where it is absent or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def sync_folders(path: Path) -> None:
    """Make the file's name survive a power cut: fsync its folder and the one above, which may be new as well."""
    for folder in (path.parent, path.parent.parent):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def last_of(lines: Iterable[Mapping[str, Any]], event: str) -> dict[str, Any]:
    """The latest line of this event, or an empty dict."""
    return next((dict(line) for line in reversed(list(lines)) if line["event"] == event), {})


def _all_parsed(lines: list[bytes]) -> list[dict[str, Any]]:
    """All lines in one go, which is faster; empty where any of them is not an event."""
    whole = [line for line in lines if line.strip()]
    if not all(line.startswith(b'{"event": ') and line.endswith(b"}") for line in whole):
        return []
    try:
        events: list[dict[str, Any]] = json.loads(b"[" + b",".join(whole) + b"]")
    except ValueError:
        return []
    return events if len(events) == len(whole) and all("time" in event for event in events) else []


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event and "time" in event else None


_REMEDY = "Free space or make the folder writable, then run again: the trial goes on from its last checkpoint"
