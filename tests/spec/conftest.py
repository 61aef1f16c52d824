"""Studies written into a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.errors import SpecError
from salt_lab.spec import Study, load_study

Load = Callable[..., Study]
Refuse = Callable[..., str]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """``load(text, *overrides)``: the study of this text, in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str, *overrides: str) -> Study:
        Path("s.yaml").write_text(text, encoding="utf-8")
        return load_study("s.yaml", overrides)

    return load_text


@pytest.fixture
def refuse(load: Load) -> Refuse:
    """``refuse(text, *overrides)``: the error's words; they must be one line and end with exit code 2."""

    def refuse_text(text: str, *overrides: str) -> str:
        with pytest.raises(SpecError) as caught:
            load(text, *overrides)
        words = str(caught.value)
        assert caught.value.exit_code == 2
        assert words.startswith("s.yaml: ")
        assert "\n" not in words
        return words.removeprefix("s.yaml: ")

    return refuse_text
