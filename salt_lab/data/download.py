"""COCO 2017 from its official site, or a mirror of it: fetched with resume, checked, unpacked. Nothing that exists is overwritten.

``root/.download/`` holds what is on its way: ``NAME.zip.part`` while it is fetched, ``NAME.zip`` when its size and SHA-256 are right. One archive
at a time is fetched, unpacked and removed, so the disk holds the largest one twice at most.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from salt_lab.data.official import ADDRESS, COCO_2017, Archive, Release, absent
from salt_lab.data.unpack import SCRATCH, check_space, no_room, unpack
from salt_lab.errors import DataError

#: Seconds for the first word of a server: a machine without network shall say so at once.
CONNECT_SECONDS = 5.0
#: Seconds without a byte after which a connection counts as broken.
STALLED_SECONDS = 30.0
#: Broken connections in a row, none of which brought a byte, after which it is given up.
ATTEMPTS = 5
TOO_MANY = 429
#: Answers of servers that have a file but do not speak of it beforehand.
NO_HEAD = (403, 405, 501)
_BLOCK = 1 << 20


class Progress(Protocol):
    """Who shows how far it is."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A new task of ``total`` bytes, ``done`` of them already there."""
        ...

    def advance(self, number: int) -> None:
        """So many bytes more."""
        ...

    def say(self, text: str) -> None:
        """A line of news."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def advance(self, number: int) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


def download(
    root: Path,
    address: str = ADDRESS,
    *,
    release: Release = COCO_2017,
    progress: Progress | None = None,
    keep_zips: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Bring what ``root`` lacks of the release.

    Args:
        root: folder of the copy; made if it is not there.
        address: of the server, without the archives' paths; a mirror must have the same files.
        release: what to bring.
        progress: who shows it; None = nobody.
        keep_zips: leave the zip files in ``root/.download``.
        wait: how to pass the seconds between two attempts.

    Returns:
        The folders that were brought; empty when all were there.

    Raises:
        DataError: a folder is there but not whole; the server cannot be reached or has other files; too little space; a checksum is wrong.
            What was fetched stays and is gone on from by the next call, except for a file whose checksum is wrong.
    """
    progress = progress or Silent()
    lacking = absent(root, release)
    if not lacking:
        return []
    scratch = root / ".download"
    for archive in lacking:  # before anything is written: is the server there, and has it these files?
        if not (scratch / archive.name).exists():
            _check_offer(address, archive)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_room(root, error) from None
    with _alone(scratch):
        for left in scratch.glob(f"{SCRATCH}*"):  # of a process that was killed while it unpacked
            shutil.rmtree(left)
        check_space(scratch, most_bytes(scratch, lacking, keep_zips), "COCO with its zip files")
        for archive in lacking:
            file = fetch(archive, address, scratch, progress, wait)
            progress.start(f"unpacking {archive.name}", archive.unpacked)
            unpack(file, archive.folder, root, scratch, progress.advance)
            if not keep_zips:
                file.unlink()
    if not keep_zips:
        shutil.rmtree(scratch, ignore_errors=True)
    return [archive.folder for archive in lacking]


def most_bytes(scratch: Path, archives: Sequence[Archive], keep_zips: bool) -> int:
    """The most bytes that will be taken in addition to what is there: what is unpacked so far, and one zip file beside its content."""
    most = taken = 0
    for archive in archives:
        zipped = archive.size - bytes_here(scratch, archive)
        most = max(most, taken + zipped + archive.unpacked)
        taken += archive.unpacked + (zipped if keep_zips else zipped - archive.size)
    return most


def bytes_here(scratch: Path, archive: Archive) -> int:
    """Bytes of an archive that an earlier call fetched."""
    return max((path.stat().st_size for path in (scratch / archive.name, _part(scratch, archive)) if path.exists()), default=0)


def fetch(archive: Archive, address: str, scratch: Path, progress: Progress, wait: Callable[[float], None] = time.sleep) -> Path:
    """The archive as a checked file in ``scratch``; goes on from what an earlier call left. Raises DataError (see :func:`download`)."""
    done, part = scratch / archive.name, _part(scratch, archive)
    if done.exists():
        return done
    url, failures = _url(address, archive), 0
    progress.start(f"fetching {archive.name}", archive.size, bytes_here(scratch, archive))
    while (before := bytes_here(scratch, archive)) < archive.size:
        try:
            _go_on(url, part, before, archive, progress)
            reason = "the connection was closed early"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != TOO_MANY:
                raise _refused(url, error) from None
            reason = f"the server answered {error.code} ({error.reason})"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except OSError as error:
            raise no_room(part, error) from None
        failures = 0 if bytes_here(scratch, archive) > before else failures + 1
        if failures >= ATTEMPTS:
            raise DataError(f"{url}: broke off {failures} times in a row ({reason}). What was fetched is kept: run the same command again")
        if bytes_here(scratch, archive) < archive.size:
            progress.say(f"{archive.name}: {reason}; going on from {bytes_here(scratch, archive)} of {archive.size} bytes")
            wait(2.0**failures)
    _check_sum(part, archive, progress)
    part.rename(done)
    return done


def _part(scratch: Path, archive: Archive) -> Path:
    return scratch / f"{archive.name}.part"


def _url(address: str, archive: Archive) -> str:
    return f"{address.rstrip('/')}/{archive.path}"


def _check_offer(address: str, archive: Archive) -> None:
    """Ask the server for the archive's size. Raises DataError where there is no server, no such file, or one of another size."""
    url = _url(address, archive)
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_SECONDS) as answer:
            size = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        if error.code in NO_HEAD:
            return
        raise _refused(url, error) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(url, error) from None
    if size is not None and size != str(archive.size):
        raise DataError(
            f"{url}: has {size} bytes; the official file has {archive.size}. Name another mirror with --from, or leave --from out"
        )


def _refused(url: str, error: urllib.error.HTTPError) -> DataError:
    return DataError(f"{url}: the server answered {error.code} ({error.reason}). Try again later, or name a mirror with --from URL")


def _unreachable(url: str, error: Exception) -> DataError:
    reason = getattr(error, "reason", None) or error
    return DataError(
        f"{url}: cannot be reached ({reason}). No network here? Run the same command where there is one and copy the folder (rsync -a), name a "
        "mirror with --from URL, or check a copy that is here: salt-lab data coco --root FOLDER --check"
    )


def _go_on(url: str, part: Path, start: int, archive: Archive, progress: Progress) -> None:
    """Fetch the archive from byte ``start`` on until the connection ends, however it ends."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=STALLED_SECONDS) as answer:
        resumed = answer.status == 206
        if resumed and not re.match(rf"bytes {start}-\d+/(\*|{archive.size})$", answer.headers.get("Content-Range", "")):
            raise DataError(f"{url}: the server sent another part of the file than was asked for. Name another mirror with --from URL")
        if start and not resumed:
            progress.say(f"{archive.name}: this server cannot resume; starting again from its beginning")
            progress.start(f"fetching {archive.name}", archive.size)
        with part.open("ab" if resumed else "wb") as out:
            left = archive.size - (start if resumed else 0)
            while left and (block := answer.read1(min(_BLOCK, left))):
                out.write(block)
                left -= len(block)
                progress.advance(len(block))


def _check_sum(part: Path, archive: Archive, progress: Progress) -> None:
    """Raises DataError where size or SHA-256 is not the official file's; the file is removed then, for no part of it can be told from another."""
    digest, size = hashlib.sha256(), part.stat().st_size
    progress.start(f"checking {archive.name}", archive.size)
    with part.open("rb") as source:
        while block := source.read(_BLOCK):
            digest.update(block)
            progress.advance(len(block))
    if size != archive.size or digest.hexdigest() != archive.sha256:
        part.unlink()
        raise DataError(
            f"{archive.name}: damaged on its way: {size} bytes with SHA-256 {digest.hexdigest()[:12]}..., expected {archive.size} with "
            f"{archive.sha256[:12]}.... It was removed: run the same command again, or name another mirror with --from URL"
        )


@contextlib.contextmanager
def _alone(scratch: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    with (scratch / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"{scratch}: another process is fetching COCO into this folder. Wait for it, or choose another --root"
            ) from None
        yield
