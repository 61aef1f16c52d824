"""``doctor`` says what is there, what is missing and what it would take, also on a machine without Ray, MLflow or torch."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from salt_lab.cli import checks


@pytest.fixture
def report(run: Callable, store: Path) -> Callable[..., tuple[int, dict[str, dict[str, Any]]]]:
    """Exit code, and the findings by name."""

    def ask(*words: str) -> tuple[int, dict[str, dict[str, Any]]]:
        result = run("doctor", "--json", "--store", store, *words)
        return result.exit_code, {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}

    return ask


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name in names else find_spec(name, *rest))


def test_a_complete_machine_is_well_and_nothing_is_written(report: Callable, store: Path) -> None:
    code, found = report()
    assert code == 0
    assert found["torch"]["ok"] and found["point_conv"]["ok"] and found["nms"]["ok"]
    assert "would be created" in found["folder"]["value"] and not store.exists()
    assert found["MLflow"]["value"] == f"sqlite:///{store}/mlflow.db"


def test_a_machine_without_ray_and_mlflow_is_well_and_told_what_they_would_give(report: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "ray", "mlflow")
    code, found = report()
    assert code == 0
    assert not found["ray"]["ok"] and "--executor serial" in found["ray"]["remedy"]
    assert not found["MLflow"]["ok"] and "salt-lab sync" in found["MLflow"]["remedy"]


def test_a_machine_without_torch_is_not_well(report: Callable, monkeypatch: pytest.MonkeyPatch, run: Callable) -> None:
    hide(monkeypatch, "torch")
    code, found = report()
    assert code == 1 and "make install" in found["torch"]["remedy"] and "without torch" in found["GPUs"]["value"]
    assert "required but missing: torch" in run("doctor").output


def test_a_server_that_does_not_answer_is_a_finding_not_a_failure(report: Callable) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
    code, found = report("--mlflow-uri", uri)
    assert code == 0 and not found["MLflow"]["ok"] and uri in found["MLflow"]["value"]


def test_a_file_in_the_way_of_the_results_folder_is_said(report: Callable, store: Path) -> None:
    store.write_text("in the way")
    code, found = report()
    assert code == 1 and not found["folder"]["ok"] and "--store" in found["folder"]["remedy"]


def test_the_report_for_people_has_each_finding_and_its_remedy(run: Callable, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "ray")
    output = run("doctor", "--store", store).output
    assert f"({sys.executable})" in output and "-> pip install 'ray" in output and "everything required is there" in output


def test_usable_cores_are_those_of_this_process_not_of_the_machine() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert 0 < checks.usable_cores() <= 1
    finally:
        os.sched_setaffinity(0, before)
