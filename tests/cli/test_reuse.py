"""Trials of other training code at the command line: shown by plan and status, refused by run unless one says what to do with them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from salt_lab.record.store import Store
from salt_lab.record.training_code import training_code_version
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.launch import run_study
from salt_lab.spec.study import load_study
from salt_lab.testing.executor_contract import FAKE

pytestmark = pytest.mark.usefixtures("fake_training")
TRAIN = ("--executor", "serial", "--no-mlflow")
OTHER = "0ddc0de00001"


@pytest.fixture(autouse=True)
def code_that_nobody_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sources may be edited while these tests run. Nor is git asked, which takes its time."""
    monkeypatch.setattr("salt_lab.record.training_code._sources", lambda root: iter(()))
    monkeypatch.setattr("salt_lab.record.provenance._git", lambda *words: None)


@pytest.fixture
def done(study: Path, store: Path) -> Path:
    """The study of four trials, done; two of them by other code."""
    assert run_study(load_study(study), Store(store), SerialExecutor(trial_fn=FAKE), console=Console(file=io.StringIO())).done == 4
    for path in sorted(store.glob("trials/*/record.jsonl"))[:2]:
        path.write_text(path.read_text().replace(training_code_version(), OTHER))
    return study


def test_plan_and_status_mark_the_trials_and_name_the_versions(run: Callable, done: Path, store: Path) -> None:
    for command in ("plan", "status"):
        output = run(command, done, "--store", store).output
        assert len(re.findall(r"done \(other code\)", output)) == 2, output
        assert f"2 of 4 finished trials were made by other training code ({OTHER}; now {training_code_version()})." in output
    trials = json.loads(run("plan", done, "--store", store, "--json").output)["trials"]
    assert sorted(trial["other_code"] for trial in trials) == [[], [], [OTHER], [OTHER]]
    assert {trial["state"] for trial in trials} == {"done"}


def test_run_refuses_to_grow_the_study_with_2_until_told_what_to_do(run: Callable, done: Path, store: Path) -> None:
    words = ("run", done, "seeds=[0,1]", "--store", store, *TRAIN)
    refused = run(*words)
    assert refused.exit_code == 2 and "--reuse" in refused.stderr and "--force" in refused.stderr
    assert f"({OTHER}; now" in refused.stderr and "Traceback" not in refused.stderr
    assert len(Store(store).trial_ids()) == 4
    kept = run(*words, "--reuse")
    assert kept.exit_code == 0 and "reused 4" in kept.output
    assert f"2 of 8 finished trials were made by other training code ({OTHER}; now" in kept.output  # in the table's caption


def test_run_on_a_finished_study_prints_its_table_and_which_code_made_it(run: Callable, done: Path, store: Path) -> None:
    result = run("run", done, "--store", store, *TRAIN)
    assert result.exit_code == 0 and "| host |" in result.output and f"({OTHER}; now" in result.output


def test_forced_the_table_has_the_new_records_and_export_takes_the_old_along(
    run: Callable, done: Path, store: Path, tmp_path: Path
) -> None:
    assert run("export", done, tmp_path / "out", "--store", store).exit_code == 0
    result = run("run", done, "--store", store, *TRAIN, "--force")
    assert result.exit_code == 0 and "to run 4 (4 of them again)" in result.output
    assert "other training code" not in result.output and "WARNING" not in result.output
    assert "other code" not in run("plan", done, "--store", store).output
    assert run("export", done, tmp_path / "out", "--store", store).exit_code == 0
    assert len(list((tmp_path / "out").glob("trials/*/earlier/1/record.jsonl"))) == 4
    tables = [run("table", done, "--store", folder).output for folder in (store, tmp_path / "out")]
    assert tables[0] == tables[1]


def test_reuse_and_force_together_are_refused(run: Callable, study: Path, store: Path) -> None:
    result = run("run", study, "--store", store, *TRAIN, "--reuse", "--force")
    assert result.exit_code == 2 and "not both" in result.stderr and not store.exists()
