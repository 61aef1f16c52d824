"""The results folder: where things are, what they add up to, and what is said when it cannot be used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from salt_lab.errors import StoreError
from salt_lab.record import Store, default_store_root
from salt_lab.record import store as store_module

ID = "a" * 12


def test_reading_an_absent_folder_finds_nothing_and_makes_nothing(tmp_path):
    store = Store(tmp_path / "runs")
    assert (store.trial_ids(), store.study_names(), store.launches("quickstart")) == ([], [], [])
    assert store.record(ID).state == "new"
    assert not store.root.exists()


def test_a_trial_runs_while_its_process_lives_and_is_interrupted_after(lab):
    launch = lab.launch()
    with lab.store.lock(ID):
        lab.begin(0, launch, range(1, 2))
        assert lab.store.record(ID).state == "running"
    record = lab.store.record(ID)
    assert (record.state, list(record.epochs)) == ("interrupted", [1])
    assert "ended without a word" in record.reason


def test_a_finished_trial_stays_done_whoever_holds_its_lock(lab):
    lab.train(0, lab.launch())
    with lab.store.lock(ID):
        assert lab.store.record(ID).state == "done"


def test_the_mlflow_run_of_a_record_is_the_one_of_the_study_asked_about(lab):
    lab.train(0, lab.launch())
    (lab.store.trial_dir(ID) / "mlflow.json").write_text('{"does_salt_help": {"run_id": "r1"}, "other": {"run_id": "r2"}}')
    assert lab.store.record(ID).run_id == "r1"
    assert lab.store.record(ID, study="other").run_id == "r2"
    assert lab.store.record(ID, study="third").run_id is None


def test_a_launch_remembers_question_file_and_the_name_of_every_trial(lab):
    launch_id = lab.launch()
    (launch,) = lab.store.launches("does_salt_help")
    assert launch["launch_id"] == launch_id
    assert launch["question"] == "Does SALT help?"
    assert launch["study_yaml"] == Path(lab.study.source).read_text()
    assert [(trial["trial_id"], trial["name"]) for trial in launch["trials"]] == [(ID, "salt=off seed=0"), ("b" * 12, "salt=on seed=0")]
    assert str(lab.store.root.parent) not in str(launch)  # no paths of this machine


def test_a_launch_of_some_trials_names_those(lab):
    lab.store.new_launch(lab.study, [lab.ids[1]], trials=[lab.study.trials()[1]])
    (launch,) = lab.store.launches("does_salt_help")
    assert [trial["name"] for trial in launch["trials"]] == ["salt=on seed=0"]
    with pytest.raises(ValueError, match="1 ids for 2 trials"):
        lab.store.new_launch(lab.study, [lab.ids[1]])


def test_launches_do_not_overwrite_each_other_and_come_oldest_first(lab):
    ids = [lab.launch() for _ in range(5)]
    assert [launch["launch_id"] for launch in lab.store.launches("does_salt_help")] == ids


@pytest.mark.parametrize("name", ["", ".", "..", "../escape", "a/b"])
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path, name):
    with pytest.raises(StoreError, match="cannot name a folder"):
        Store(tmp_path).trial_dir(name)
    with pytest.raises(StoreError, match="cannot name a folder"):
        Store(tmp_path).study_dir(name)


def test_a_usable_folder_is_made_and_left_clean(tmp_path):
    store = Store(tmp_path / "deep" / "runs")
    store.check_writable()
    assert sorted(path.name for path in store.root.rglob("*")) == ["studies", "trials"]


@pytest.mark.parametrize("inside", ["runs", "runs/trials"])
def test_a_file_in_the_way_is_named_with_the_next_step(tmp_path, inside):
    (tmp_path / inside).parent.mkdir(exist_ok=True)
    (tmp_path / inside).write_text("")
    with pytest.raises(StoreError, match=rf"{inside}: a file is in the way of the results folder.*--store"):
        Store(tmp_path / "runs").check_writable()


def test_a_file_further_up_is_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/runs: a file is in the way"):
        Store(tmp_path / "file" / "runs").check_writable()


@pytest.mark.parametrize(
    ("code", "text"), [(errno.EROFS, "Read-only file system"), (errno.ENOSPC, "No space left"), (errno.EACCES, "Permission denied")]
)
def test_a_folder_that_cannot_be_written_is_named_with_the_reason_and_the_next_step(tmp_path, monkeypatch, code, text):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(store_module.tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(
        StoreError, match=rf"runs: the results folder cannot be written: {text}.*Choose another.*--store FOLDER or \$SALT_LAB_STORE"
    ) as error:
        Store(tmp_path / "runs").check_writable()
    assert error.value.exit_code == 2


def test_a_disk_with_no_room_for_a_checkpoint_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MIN_FREE_MB", 10**9)
    with pytest.raises(StoreError, match="the disk is full"):
        Store(tmp_path).check_writable()


def test_results_go_to_runs_unless_the_environment_names_a_folder(monkeypatch, tmp_path):
    for name in ("SALT_LAB_STORE", "RAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert default_store_root() == Path("runs")
    monkeypatch.setenv("SALT_LAB_STORE", str(tmp_path))
    assert default_store_root() == tmp_path


def test_in_a_ray_job_results_do_not_go_to_the_working_folder_that_ray_throws_away(monkeypatch, tmp_path):
    for name in ("SALT_LAB_STORE", "RAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    working = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    working.mkdir(parents=True)
    monkeypatch.chdir(working)
    assert default_store_root() == Path.home() / "salt_lab_runs"
