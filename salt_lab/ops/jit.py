"""Loops that numba compiles: how every room of the lab asks for it. Importing this file imports numba."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from numba import njit


def compiled(**options: Any) -> Callable[[Any], Any]:
    """A decorator: compiled when first called, without the interpreter's lock, kept on the disk where numba finds a place that can be written.

    Args:
        options: of :func:`numba.njit`.
    """

    def decorate(function: Any) -> Any:
        settings = dict(nogil=True, error_model="numpy", **options)
        try:
            return _one_saves_at_a_time(njit(cache=True, **settings)(function))
        except RuntimeError:  # no such place
            return njit(**settings)(function)

    return decorate


def _one_saves_at_a_time(dispatcher: Any) -> Any:
    """Two processes that keep code for different types at the same moment would give both the same file: numba looks for a free name unguarded."""
    cache = dispatcher._cache
    save = cache.save_overload

    def guarded(*args: Any) -> None:
        Path(cache.cache_path).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(cache.cache_path) / "salt_lab.lock"):
            save(*args)

    cache.save_overload = guarded
    return dispatcher
