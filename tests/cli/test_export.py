"""``salt-lab export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from salt_lab.data import fingerprint
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import canonical, trial_id

STUDY = "question: q?\nbase: {data: marks}\naxes: {salt.enabled: [false, true]}\ncompare: {baseline: {salt.enabled: false}}\n"
METRICS = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"), 41.5)


def test_the_table_of_the_export_is_the_table_of_the_results_folder(tmp_path: Path, run: Callable) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    study, store = load_study(tmp_path / "s.yaml"), Store(tmp_path / "runs")
    for trial in study.trials():
        recorder = FolderRecorder(store, trial_id(trial, fingerprint(trial.data)))
        recorder.start(trial=canonical(trial), study="s", launch_id="l", data_fingerprint=fingerprint(trial.data), provenance={})
        recorder.done(metrics=METRICS, train_seconds=60, eval_seconds=1, peak_memory_mb=100, epochs=1)
    exported = run("export", str(tmp_path / "s.yaml"), str(tmp_path / "out"), "--store", str(tmp_path / "runs"))
    assert exported.exit_code == 0 and "2 trials" in exported.output
    tables = [run("table", str(tmp_path / "s.yaml"), "--store", str(tmp_path / name)).output for name in ("runs", "out")]
    assert tables[0] == tables[1] and "41.5" in tables[0]


def test_a_study_that_never_ran_has_nothing_to_export(tmp_path: Path, run: Callable) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    result = run("export", str(tmp_path / "s.yaml"), str(tmp_path / "out"), "--store", str(tmp_path / "runs"))
    assert result.exit_code == 2 and "run it first" in result.output
    assert not (tmp_path / "out").exists()
