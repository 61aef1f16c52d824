"""Digests of source files, kept beside Python's own compiled ones, so that asking for the training code's version parses nothing twice.

``__pycache__/training_code.<Python>.json`` in the package's folder (or under ``PYTHONPYCACHEPREFIX``). A digest holds as long as the file's
size, times and the rules of digesting stay. One that cannot be kept (a folder that is not ours to write, ``PYTHONDONTWRITEBYTECODE``) is made
again: 0.1 s. Python trusts the compiled files beside it on less, seconds and size.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

#: A file that changed less than this ago could change again within one tick of the file system's clock: its digest is not kept.
SETTLED_SECONDS = 2.0


class Stamp(NamedTuple):
    """What tells that a file is as it was: a copy with its old time and size has another time of change."""

    size: int
    mtime_ns: int
    ctime_ns: int


def stamp(path: Path) -> Stamp:
    """The file's stamp now. Raises OSError."""
    stat = path.stat()
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def kept_digests(root: Path, rules: Path) -> dict[Path, tuple[Stamp, str]]:
    """File -> (stamp, digest) as they were last kept; empty where nothing usable is there.

    Args:
        root: the package's folder.
        rules: the source that says what a digest is; kept digests are of no use once it has changed.
    """
    try:
        content = json.loads(_place(root).read_bytes())
        if content["rules"] != _rules(rules):
            return {}
        return {root / name: (Stamp(*(int(part) for part in parts)), str(digest)) for name, (parts, digest) in content["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError):
        return {}


def keep_digests(root: Path, rules: Path, digests: Mapping[Path, tuple[Stamp, str]]) -> None:
    """Keep what has settled, for the next process. Quietly does nothing where Python writes no compiled files either."""
    if sys.dont_write_bytecode:
        return
    before = int((time.time() - SETTLED_SECONDS) * 1e9)
    settled = {
        path.relative_to(root).as_posix(): [one, digest]
        for path, (one, digest) in digests.items()
        if max(one.mtime_ns, one.ctime_ns) < before
    }
    with contextlib.suppress(OSError, NotImplementedError):
        place = _place(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        half = place.with_name(f"{place.name}.{os.getpid()}")
        half.write_text(json.dumps({"rules": _rules(rules), "files": settled}), encoding="utf-8")
        half.replace(place)


def _place(root: Path) -> Path:
    compiled = Path(importlib.util.cache_from_source(str(root / "__init__.py")))
    return compiled.with_name(f"training_code.{sys.implementation.cache_tag}.json")


@lru_cache(maxsize=1)
def _rules(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()
