"""A study whose disk budget cannot hold what it must keep is refused before anything starts, with the numbers."""

from __future__ import annotations

import re

import pytest

from salt_lab.errors import UserError
from salt_lab.record.calibration import Calibration, cost_parts, keep_calibration
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.schedule import room
from salt_lab.schedule.launch import run_study
from salt_lab.schedule.preflight import jobs_of
from salt_lab.schedule.room import check_room
from salt_lab.spec.study import load_study
from salt_lab.testing.executor_contract import FAKE
from salt_lab.train.weigh import Weight

MIB = 2**20
GIB = 2**30


@pytest.fixture(autouse=True)
def models_of_100_mib(monkeypatch):
    """The checkpoint of each is 200 MiB."""
    monkeypatch.setattr(room, "weigh", lambda trials: [Weight(100 * MIB, 200 * MIB) for _ in trials])


@pytest.fixture
def study(tmp_path):
    def make(retention, seeds=(0, 1)):
        file = tmp_path / "study.yaml"
        file.write_text(f"base: {{host: atss, data: marks}}\naxes: {{salt: [false, true]}}\nseeds: {list(seeds)}\nretention: {retention}\n")
        return load_study(file)

    return make


def asked(study, store, at_once=1):
    return check_room(study, jobs_of(study.trials()), store, at_once)


def test_a_running_trial_needs_room_for_two_checkpoints_and_several_at_a_time_for_as_many_more(study, tmp_path):
    store = Store(tmp_path / "runs")
    asked(study("{disk_gb: 0.4}"), store)
    with pytest.raises(UserError, match=r"study.yaml: retention.disk_gb = 0.38: this study needs at least 0.4: 1 of 4 trials \(2 cells\)"):
        asked(study("{disk_gb: 0.38}"), store)
    with pytest.raises(
        UserError, match=r"needs at least 1.18: 3 of 4 trials .* each with two checkpoints of up to 0.2 GiB \(from the model"
    ):
        asked(study("{disk_gb: 0.4}"), store, at_once=3)
    asked(study("{disk_gb: 1.18}"), store, at_once=3)


def test_the_weights_of_the_best_epoch_need_room_where_they_are_kept(study, tmp_path):
    with pytest.raises(UserError, match=r"needs at least 0.49: .* and the weights of the best epoch"):
        asked(study("{disk_gb: 0.4, checkpoints: best_and_last}"), Store(tmp_path / "runs"))


def test_what_it_says_would_be_enough_is_enough(study, tmp_path):
    store = Store(tmp_path / "runs")
    with pytest.raises(UserError) as refused:
        asked(study("{disk_gb: 0.01}"), store, at_once=4)
    enough = re.search(r"needs at least ([\d.]+)", str(refused.value))[1]
    asked(study(f"{{disk_gb: {enough}}}"), store, at_once=4)


def test_finished_trials_checkpoints_make_way_so_a_small_budget_is_no_error_but_how_many_stay_is_said(study, tmp_path):
    (said,) = asked(study("{disk_gb: 0.6}"), Store(tmp_path / "runs"))
    assert "all 4 trials (2 cells) would take 0.78 GiB, 0.2 GiB each; the latest 3 or so stay" in said
    assert asked(study("{disk_gb: 0.79}"), Store(tmp_path / "runs")) == ()
    assert asked(study("{disk_gb: 0.6, checkpoints: none}"), Store(tmp_path / "runs")) == ()


def test_without_a_budget_or_with_nothing_to_run_nothing_is_asked(study, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "weigh", None)
    assert asked(study("{checkpoints: last}"), Store(tmp_path / "runs")) == ()
    assert check_room(study("{disk_gb: 0.001}"), [], Store(tmp_path / "runs"), 1) == ()


def test_decoded_pictures_of_its_data_and_trials_that_it_does_not_run_now_count(study, tmp_path):
    store, plan = Store(tmp_path / "runs"), study("{disk_gb: 0.45}")
    asked(plan, store)
    other = FolderRecorder(store, "0" * 12)
    other.start(trial={}, study=plan.name, launch_id="l", data_fingerprint="marks-1", provenance={})
    other.interrupted("because")
    (store.data_dir / "decoded" / "marks-1-abc").mkdir(parents=True)
    with (store.data_dir / "decoded" / "marks-1-abc" / "pixels.bin").open("wb") as pixels:
        pixels.truncate(100 * MIB)
    with pytest.raises(UserError, match=r"needs at least 0.49: .*decoded pictures 0.098 GiB \(.*decoded may be deleted\)"):
        asked(plan, store)
    (store.trial_dir("0" * 12) / "checkpoints").mkdir()
    with (store.trial_dir("0" * 12) / "checkpoints" / "epoch_1.pth").open("wb") as checkpoint:
        checkpoint.truncate(50 * MIB)
    with pytest.raises(UserError, match=r"needs at least 0.54: .*checkpoints of trials that can go on 0.049 GiB"):
        asked(plan, store)


def test_what_was_measured_before_is_believed_and_no_model_built(study, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "weigh", None)
    store, plan = Store(tmp_path / "runs"), study("{disk_gb: 0.5}")
    for cell in plan.cells:
        measured = {"step_seconds": 1.0, "steps_per_epoch": 1, "checkpoint_mb": 512.0, "eval_image_seconds": 0.1, "setup_seconds": 0.1}
        keep_calibration(store, Calibration(cost_parts(cell.trial, "elsewhere"), "another machine", "ok", **measured))
    with pytest.raises(UserError, match=r"needs at least 1: .* up to 0.5 GiB \(by this results folder's records\)"):
        asked(plan, store)


def test_a_model_that_cannot_be_built_leaves_it_to_the_trials_and_says_so(study, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "weigh", lambda trials: None)
    (said,) = asked(study("{disk_gb: 0.001}"), Store(tmp_path / "runs"))
    assert "not known" in said


def test_run_refuses_such_a_study_and_starts_nothing(study, tmp_path):
    from salt_lab.schedule.executor import SerialExecutor

    store = Store(tmp_path / "runs")
    with pytest.raises(UserError, match=r"retention.disk_gb = 0.1: this study needs at least 0.4"):
        run_study(study("{disk_gb: 0.1}"), store, SerialExecutor(trial_fn=FAKE))
    assert store.trial_ids() == [] and store.launches("study") == []
    assert run_study(study("{disk_gb: 0.5}"), store, SerialExecutor(trial_fn=FAKE)).done == 4
