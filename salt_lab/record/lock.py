"""Who may write: an advisory lock (flock) that the kernel frees when its holder dies, however it dies.

On network file systems flock works between machines where the server supports it (NFS since Linux 2.6.12).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from salt_lab.errors import SaltLabError, StoreError

#: Readers probe a lock by taking it for microseconds; a writer that meets a probe tries again for this long.
PATIENCE_SECONDS = 0.5
_held: set[int] = set()


class TrialBusy(SaltLabError):
    """Another process is running this trial right now."""


@contextlib.contextmanager
def exclusive(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of a ``with`` block.

    Args:
        path: the lock file; made, with its folder, where absent. It stays: removing it would let two holders in.
        what: the thing that is locked, for the message.
        wait: wait for as long as another process holds it, instead of raising.

    Raises:
        TrialBusy: another process (or another place in this one) holds it; names its process id.
        StoreError: the file cannot be opened.
    """
    fd = _open(path)
    _held.add(fd)
    try:
        if wait:
            fcntl.flock(fd, fcntl.LOCK_EX)
        elif not _taken(fd):
            raise TrialBusy(f"{what} is being run by process {_holder(path)} ({path}). Wait for it, or stop it and run again")
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        _held.discard(fd)
        os.close(fd)


def is_held(path: Path) -> bool:
    """Is ``path`` locked by a living process (this one included)? Never waits; an absent file is not locked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot make the lock file: {error.strerror}. Choose another results folder: --store or $SALT_LAB_STORE"
        ) from error


def _taken(fd: int) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)


def _holder(path: Path) -> str:
    try:
        return path.read_text() or "unknown"
    except OSError:
        return "unknown"


def _let_go_in_child() -> None:
    """A forked child (a data loader's worker) shares our locks and would keep them when we are killed: close its copies."""
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
