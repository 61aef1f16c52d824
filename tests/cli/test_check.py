"""``salt-lab check``: the exit code says whether ours and published agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import canonical, trial_id

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
ON_COCO = """\
question: q?
base:
  host: atss
  backbone: {name: resnet50, init: host}
  schedule: 1x
  data: {train: /nowhere/instances_train2017.json, val: /nowhere/instances_val2017.json, images: /nowhere/images}
axes: {salt.enabled: [false, true]}
compare: {baseline: {salt.enabled: false}}
"""


def record(study: Path, store: Path, ap: float) -> None:
    """The study's trials as another machine has trained them: their data are not here."""
    for trial in load_study(study).trials():
        recorder = FolderRecorder(Store(store), trial_id(trial, "coco-0123456789ab"))
        recorder.start(trial=canonical(trial), study=study.stem, launch_id="l", data_fingerprint="coco-0123456789ab", provenance={})
        recorder.done(metrics=dict.fromkeys(NAMES, ap), train_seconds=60, eval_seconds=1, peak_memory_mb=100, epochs=12)


@pytest.mark.parametrize(("ap", "code", "said"), [(39.2, 0, "all agree within 0.3 AP"), (38.0, 1, "1 disagrees within 0.3 AP")])
def test_the_exit_code_says_whether_anything_disagrees(tmp_path: Path, run: Callable, ap: float, code: int, said: str) -> None:
    study, store = tmp_path / "s.yaml", tmp_path / "runs"
    study.write_text(ON_COCO)
    record(study, store, ap)
    result = run("check", study, "--store", store)
    assert result.exit_code == code, result.output
    assert f"1 of 2 cells compared, {said}" in result.output
    assert "nothing published of SALT on atss" in result.output and "~2 AP is stated" in result.output
    assert ("lower by 1.4" in result.output) == (code == 1)


def test_a_study_on_other_data_has_nothing_to_compare_and_passes(run: Callable, study: Path, store: Path) -> None:
    store.mkdir()
    result = run("check", study, "--store", store)
    assert result.exit_code == 0 and "not run on COCO" in result.output and "Nothing to compare" in result.output
    assert not list(store.iterdir()), "checking makes no folders"


def test_a_study_that_is_not_there_is_bad_input(run: Callable) -> None:
    assert run("check", "nowhere.yaml").exit_code == 2


def test_overrides_choose_the_part_to_check(run: Callable, study: Path, store: Path) -> None:
    store.mkdir()
    output = run("check", study, "host=atss", "--store", store).output
    assert "salt=on" in output and "fcos" not in output


@pytest.mark.parametrize("command", ["table", "check", "why", "probe", "power"])
def test_a_results_folder_that_was_named_and_is_not_there_is_a_mistake(run: Callable, study: Path, store: Path, command: str) -> None:
    result = run(command, study, "--store", store)
    assert result.exit_code == 2 and f"--store {store}: there is no results folder" in result.output and not store.exists()


def test_a_noise_that_is_no_number_is_refused(run: Callable, study: Path) -> None:
    result = run("check", study, "--noise", "nan")
    assert result.exit_code == 2 and "--noise" in result.output
