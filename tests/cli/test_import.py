"""``salt-lab import``: an exported study is taken in elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.data import fingerprint
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import canonical, trial_id

STUDY = "question: q?\nbase: {data: marks}\naxes: {salt.enabled: [false, true]}\ncompare: {baseline: {salt.enabled: false}}\n"
METRICS = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"), 41.5)


@pytest.fixture
def archive(tmp_path: Path, run: Callable) -> Path:
    """The export of a finished study of two trials."""
    (tmp_path / "s.yaml").write_text(STUDY)
    study, store = load_study(tmp_path / "s.yaml"), Store(tmp_path / "runs")
    names = [trial_id(trial, fingerprint(trial.data)) for trial in study.trials()]
    launch = store.new_launch(study, names)
    for trial, name in zip(study.trials(), names, strict=True):
        recorder = FolderRecorder(store, name)
        recorder.start(trial=canonical(trial), study="s", launch_id=launch, data_fingerprint=fingerprint(trial.data), provenance={})
        recorder.done(metrics=METRICS, train_seconds=60, eval_seconds=1, peak_memory_mb=100, epochs=1)
    assert run("export", tmp_path / "s.yaml", "-o", tmp_path / "out", "--store", tmp_path / "runs").exit_code == 0
    return tmp_path / "out"


def test_the_table_after_the_import_is_the_table_before_the_export(archive: Path, tmp_path: Path, run: Callable) -> None:
    done = run("import", archive, "--store", tmp_path / "there", "--no-mlflow")
    assert done.exit_code == 0 and "s: 2 trials; records: 2 new, 0 grown, 0 there already" in done.output
    line = next(line for line in done.output.splitlines() if line.startswith("table: salt-lab "))
    (tmp_path / "s.yaml").rename(tmp_path / "gone.yaml")
    ours = run(*line.removeprefix("table: salt-lab ").split())
    (tmp_path / "gone.yaml").rename(tmp_path / "s.yaml")
    theirs = run("table", tmp_path / "s.yaml", "--store", tmp_path / "runs")
    assert ours.exit_code == theirs.exit_code == 0 and "41.5" in ours.output and ours.output == theirs.output


@pytest.mark.integration
def test_it_is_delivered_to_the_mlflow_that_is_named_and_the_second_time_nothing_is(archive: Path, tmp_path: Path, run: Callable) -> None:
    words = ("import", archive, "--store", tmp_path / "there", "--mlflow-uri", f"sqlite:///{tmp_path}/other.db")
    first, second = run(*words), run(*words)
    assert first.exit_code == 0 and "2 trials of 1 studies (1 launches): 2 had news" in first.output, first.output
    assert second.exit_code == 0 and "MLflow had everything" in second.output and "0 new, 0 grown, 2 there already" in second.output


def test_an_mlflow_that_is_not_there_is_said_before_anything_is_written(archive: Path, tmp_path: Path, run: Callable) -> None:
    result = run("import", archive, "--store", tmp_path / "there", "--mlflow-uri", "http://127.0.0.1:9")
    assert result.exit_code == 2 and "MLflow at 'http://127.0.0.1:9': unreachable" in result.output
    assert not (tmp_path / "there").exists()


def test_a_folder_that_is_no_archive_is_named_with_the_next_step(tmp_path: Path, run: Callable) -> None:
    for folder, words in ((tmp_path / "nowhere", "Name the folder of an export"), (tmp_path, "is no study archive")):
        result = run("import", folder, "--store", tmp_path / "there")
        assert result.exit_code == 2 and f"{folder / 'manifest.json'}: is not there" in result.output and words in result.output
    assert not (tmp_path / "there").exists()
