"""mmcv's compiled operators beside the lab's portable ones, in one process: a rival of several benchmarks, never a dependency."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import tempfile
import zipfile
from pathlib import Path
from typing import Any

WHERE = "mmcv's compiled extension: a file _ext*.so, a folder with one somewhere below it, or a built wheel, for this torch and Python"


def load_compiled(path: Path | None) -> Any:
    """mmcv's compiled ``_ext`` as a module of its own; the process's ``mmcv._ext`` stays what it is.

    Args:
        path: see :data:`WHERE`; None = the installed mmcv's, where that is a compiled one.

    Returns:
        The module, or None where nothing was named and nothing compiled is installed.

    Raises:
        SystemExit: there is none at ``path``, or it does not fit this torch; in words.
    """
    from salt_lab.ops.portable import install

    if path is None:
        return None if install() else importlib.import_module("mmcv._ext")
    try:
        return _load(_file(path))
    except (OSError, ImportError, zipfile.BadZipFile) as error:
        raise SystemExit(f"--compiled {path}: {error}. Wanted: {WHERE}") from None


def _file(path: Path) -> Path:
    """The shared object or wheel that is meant."""
    found = [path] if path.is_file() else sorted([*path.rglob("_ext*.so"), *path.rglob("*mmcv*.whl")], key=lambda each: each.suffix)
    if not found:
        raise ImportError("no _ext*.so and no wheel of mmcv there")
    return found[0]


def _load(path: Path) -> Any:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel, tempfile.TemporaryDirectory(prefix="mmcv-ext-") as folder:
            inside = [name for name in wheel.namelist() if Path(name).match("_ext*.so")]
            if not inside:
                raise ImportError("a wheel without compiled operators")
            return _load(Path(wheel.extract(inside[0], folder)))
    loader = importlib.machinery.ExtensionFileLoader("_ext", str(path))
    spec = importlib.util.spec_from_file_location("_ext", path, loader=loader)
    assert spec is not None
    loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module
