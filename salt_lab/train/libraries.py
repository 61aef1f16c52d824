"""Importing mmdet once, quietly, with the portable ops in place: the first thing that anything here does that builds a model."""

from __future__ import annotations

import contextlib
import io
import warnings


def load_libraries() -> None:
    """Import and register everything that a config can name: mmdet, the lab's heads and its evaluator.

    ``salt_lab.models`` comes first, since it installs the portable ops where mmcv has no compiled ones. What the packages print while
    being imported (and pycocotools while indexing a data set) is kept off the terminal.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import salt_lab.models  # isort: skip
        import mmdet.datasets
        import mmdet.models  # noqa: F401
        import pycocotools.coco
        from mmengine.registry import init_default_scope

        import salt_lab.evaluate.metric  # noqa: F401
    pycocotools.coco.print = _say_nothing
    init_default_scope("mmdet")


def _say_nothing(*args: object, **kwargs: object) -> None:
    """In place of ``print`` in pycocotools.coco, which reports every index it makes."""
