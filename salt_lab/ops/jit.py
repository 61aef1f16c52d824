"""Loops that numba compiles: how every room of the lab asks for it. Importing this file imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Any], Any]:
    """A decorator: compiled when first called, without the interpreter's lock, kept on the disk where numba finds a place that can be written.

    Args:
        options: of :func:`numba.njit`.
    """

    def decorate(function: Any) -> Any:
        settings = dict(nogil=True, error_model="numpy", **options)
        try:
            return njit(cache=True, **settings)(function)
        except RuntimeError:  # no such place
            return njit(**settings)(function)

    return decorate
