"""What the doctor is told about the ops of this environment, of one with a compiled mmcv, and of broken ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from salt_lab.errors import MissingOpError
from salt_lab.ops import backends as room
from salt_lab.ops.backends import COMPILED, MISSING, NUMBA, OTHERS, PORTABLE, TORCHVISION, backends
from salt_lab.ops.portable import install

OPS = {
    "point_conv", "nms", "softnms", "nms_match", "deform_conv", "modulated_deform_conv", "sigmoid_focal_loss", "softmax_focal_loss", "roi_align",
    OTHERS,
}  # fmt: skip


def table() -> dict[str, tuple[str, str]]:
    return {row.op: (row.backend, row.note) for row in backends()}


@pytest.mark.skipif(not install(), reason="compiled mmcv ops are installed")
def test_a_pure_mmcv_has_portable_ops_and_says_how_to_get_the_others() -> None:
    rows = table()
    assert set(rows) == OPS
    assert rows["deform_conv"][0] == PORTABLE and rows["point_conv"][0] == NUMBA and rows["nms"][0] in (PORTABLE, TORCHVISION)
    assert rows[OTHERS][0] == MISSING and "pip install" in rows[OTHERS][1]


def test_torchvision_where_it_imports_does_the_nms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "has_compiled", lambda: False)
    monkeypatch.setattr("salt_lab.ops.nms.torchvision_nms", lambda: lambda *args: None)
    assert table()["nms"][0] == TORCHVISION and table()["softnms"][0] == PORTABLE


def test_a_compiled_mmcv_is_named_with_its_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Extension:
        get_compiler_version = staticmethod(lambda: "GCC 12.3")
        get_compiling_cuda_version = staticmethod(lambda: "12.8")

    monkeypatch.setattr(room, "has_compiled", lambda: True)
    monkeypatch.setitem(sys.modules, room.NAME, Extension)
    rows = table()
    assert set(rows) == OPS and rows["nms"] == (COMPILED, "compiler GCC 12.3, CUDA 12.8") and rows["point_conv"][0] == NUMBA


def test_a_compiled_mmcv_that_does_not_load_is_missing_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("undefined symbol: _ZN3c10\nmore")

    monkeypatch.setattr(room, "has_compiled", lambda: True)
    monkeypatch.setattr(room.importlib, "import_module", broken)
    backend, note = table()["nms"]
    assert backend == MISSING and "undefined symbol: _ZN3c10)" in note and "pip install" in note


@pytest.mark.parametrize("error", [MissingOpError("mmcv is not installed: pip install onedl-mmcv"), ImportError("libGL.so.1")])
def test_an_absent_or_broken_mmcv_is_reported_not_raised(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> bool:
        raise error

    monkeypatch.setattr(room, "has_compiled", fails)
    rows = table()
    assert set(rows) == OPS and rows["nms"][0] == MISSING and str(error) in rows["nms"][1] and rows["point_conv"][0] == NUMBA


def test_without_torch_everything_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: None)
    assert set(table()) == OPS and {backend for backend, _ in table().values()} == {MISSING}


def test_importing_the_room_imports_neither_torch_nor_mmcv() -> None:
    code = "import sys, salt_lab.ops, salt_lab.ops.portable, salt_lab.ops.backends; print({'torch', 'mmcv', 'numpy'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == "set()"
