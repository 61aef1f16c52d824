"""``salt-lab report``: one file, clear words where it cannot be, and a page also where nothing is finished."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.record.rows import REPORT


def test_a_study_that_was_not_run_gets_a_page_that_says_so(run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
    store.mkdir()
    result = run("report", study, "--store", store, "-o", tmp_path / "page.html", "--resamples", 0)
    assert result.exit_code == 0, result.output
    assert "report written to" in result.output and "MB)" in result.output
    text = (tmp_path / "page.html").read_text()
    assert "Nothing can be said yet" in text and "Does the test pass?" in text


def test_where_there_is_no_results_folder_the_way_to_one_is_named(run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
    result = run("report", study, "--store", store, "-o", tmp_path / "page.html")
    assert result.exit_code == 2 and f"--store {store}: there is no results folder" in result.output
    assert f"salt-lab run {study}" in result.output
    assert not store.exists() and not (tmp_path / "page.html").exists(), "asking makes nothing"


@pytest.mark.parametrize(("output", "said"), [(".", "is a folder"), ("no/folder/page.html", "there is no folder no/folder")])
def test_an_output_that_cannot_be_written_is_said_first(run: Callable, study: Path, store: Path, output: str, said: str) -> None:
    store.mkdir()
    result = run("report", study, "--store", store, "-o", output)
    assert result.exit_code == 2 and f"--output {output}: {said}" in result.output
    assert "reading the records" not in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_bad_input(run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
    store.mkdir()
    (tmp_path / "locked").mkdir(mode=0o500)
    result = run("report", study, "--store", store, "-o", tmp_path / "locked" / "page.html")
    assert result.exit_code == 2 and "cannot be written" in result.output


def test_a_study_that_is_not_there_is_bad_input(run: Callable) -> None:
    assert run("report", "nowhere.yaml").exit_code == 2


def test_overrides_choose_the_part_to_report(run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
    store.mkdir()
    assert run("report", study, "host=atss", "--store", store, "-o", tmp_path / "page.html", "--resamples", 0).exit_code == 0
    text = (tmp_path / "page.html").read_text()
    assert "fcos" not in text and "2 trials" in text
    assert "salt-lab report tiny.yaml host=atss -o report.html" in text, "how to make it again"


def test_what_takes_time_is_told_on_stderr(run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
    store.mkdir()
    result = run("report", study, "--store", store, "-o", tmp_path / "page.html", "--resamples", 0)
    assert result.stdout == "" and "reading the records ..." in result.stderr


@pytest.mark.usefixtures("fake_training")
class TestIntoMlflow:
    def test_the_page_is_delivered_beside_the_studys_tables(
        self, run: Callable, study: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run("run", study, "--store", store, "--executor", "serial", "--no-mlflow")
        asked = []
        monkeypatch.setattr("salt_lab.record.mlflow_store.deliver_report", lambda store, uri, name: asked.append((uri, name)) or True)
        result = run("report", study, "--store", store, "-o", tmp_path / "page.html", "--resamples", 0, "--to-mlflow")
        assert result.exit_code == 0, result.output
        assert asked == [(f"sqlite:///{store}/mlflow.db", "tiny")]
        assert (store / "studies" / "tiny" / "report.html").read_bytes() == (tmp_path / "page.html").read_bytes()
        assert any(Path("report.html").match(pattern) for pattern in REPORT), "and a sync sends what is there"

    def test_a_study_that_was_never_launched_has_no_run_for_it(self, run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
        store.mkdir()
        result = run("report", study, "--store", store, "-o", tmp_path / "page.html", "--resamples", 0, "--to-mlflow")
        assert result.exit_code == 2 and "has no launch" in result.output and f"salt-lab run {study}" in result.output

    def test_a_server_that_is_not_there_is_said_before_the_work(self, run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
        store.mkdir()
        result = run("report", study, "--store", store, "-o", tmp_path / "page.html", "--mlflow-uri", "http://127.0.0.1:9")
        assert result.exit_code == 2 and "http://127.0.0.1:9" in result.output
        assert "reading the records" not in result.output and not (tmp_path / "page.html").exists()
