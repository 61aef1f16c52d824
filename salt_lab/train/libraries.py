"""Importing mmdet once, quietly, with the portable ops in place: the first thing that anything here does that builds a model."""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import warnings
from collections.abc import Iterator


def load_libraries() -> None:
    """Import and register everything that a config can name: mmdet, the lab's heads and its evaluator.

    ``salt_lab.models`` comes first, since it installs the portable ops where mmcv has no compiled ones. What the packages print while
    being imported (and pycocotools while indexing a data set) is kept off the terminal.
    """
    with importing(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import salt_lab.models  # isort: skip
        import mmdet.datasets
        import mmdet.models  # noqa: F401
        import pycocotools.coco
        from mmengine.registry import init_default_scope

        import salt_lab.evaluate.metric  # noqa: F401
    pycocotools.coco.print = _say_nothing
    init_default_scope("mmdet")


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For imports of a million objects: the garbage collector waits, and leaves alone for good what is there after mmdet's first import.

    It would look through all of them many times while they come, which takes a sixth of the imports' time, and again in each collection that
    mmengine asks for: 0.4 s for each data set.
    """
    enabled, first = gc.isenabled(), "mmdet.models" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if first and "mmdet.models" in sys.modules:
            gc.freeze()
        if enabled:
            gc.enable()


def _say_nothing(*args: object, **kwargs: object) -> None:
    """In place of ``print`` in pycocotools.coco, which reports every index it makes."""
