"""The heavy imports do not wait for the garbage collector, and the collector does not wait for them afterwards."""

from __future__ import annotations

import gc
import sys
from types import ModuleType

import pytest

from salt_lab.train.libraries import importing


@pytest.fixture
def freezes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows with each time that what is there is set aside for good."""
    asked: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: asked.append(True))
    return asked


def test_the_collector_rests_during_imports_and_is_afterwards_as_it_was() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_import_that_fails_leaves_the_collector_on(freezes: list[bool]) -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError("no such thing")
    assert gc.isenabled()


def test_only_the_first_import_of_mmdet_is_set_aside(freezes: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Later ones would set aside the models of earlier trials, which then never left the memory."""
    monkeypatch.delitem(sys.modules, "mmdet.models", raising=False)
    with importing():
        pass
    assert not freezes
    with importing():
        monkeypatch.setitem(sys.modules, "mmdet.models", ModuleType("mmdet.models"))
    assert freezes == [True]
    with importing():
        pass
    assert freezes == [True]
