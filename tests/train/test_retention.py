"""What stays on the disk: a study's rules for its finished trials, and its disk budget."""

import pytest

from salt_lab.data import fingerprint
from salt_lab.errors import SpecError, StoreError
from salt_lab.record.journal import write_json
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.schedule.executor import RUN_TRIAL, Job, run_job
from salt_lab.spec.retention import Retention
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import Trial, trial_id
from salt_lab.train.retention import GIB, best_epoch, make_room, prune, room_for_pictures, rules_of, taken

MB = 2**20


def budget(megabytes):
    return Retention(disk_gb=megabytes * MB / GIB)


def trained(store, name, *, study="s", state="done", megabytes=10):
    """A trial with a checkpoint of this size, detections, and a journal that ends in this state."""
    recorder = FolderRecorder(store, name)
    with store.lock(name):
        recorder.start(trial={}, study=study, launch_id="l", data_fingerprint="d", provenance={})
        recorder.eval(1, {"AP": 1.0})
        if state == "done":
            recorder.done(metrics={"AP": 1.0}, train_seconds=1, eval_seconds=1, peak_memory_mb=1, epochs=1)
        elif state == "stopped":
            recorder.stopped(1, reason="because", ap=1.0, threshold=2.0, places=1, peers={})
        elif state != "vanished":
            getattr(recorder, state)("because")
    folder = store.trial_dir(name)
    (folder / "checkpoints").mkdir()
    for kept in ("epoch_1.pth", "last_checkpoint"):
        (folder / "checkpoints" / kept).write_bytes(bytes(megabytes * MB if kept.endswith("pth") else 10))
    (folder / "detections.json.gz").write_bytes(bytes(1000))


def have_checkpoints(store):
    return {path.parent.parent.name for path in store.root.glob("trials/*/checkpoints/*.pth")}


def test_the_oldest_finished_trials_checkpoints_go_first_and_nothing_else(tmp_path):
    store = Store(tmp_path)
    for name in ("c", "a", "b"):
        trained(store, name)
    make_room(store, "s", budget(25))
    assert have_checkpoints(store) == {"a", "b"}
    assert all((store.trial_dir(name) / kept).is_file() for name in "abc" for kept in ("record.jsonl", "detections.json.gz"))
    assert store.record("c").state == "done" and store.record("c").metrics["AP"] == 1.0


def test_a_trial_that_can_go_on_and_another_studys_keep_theirs(tmp_path):
    store = Store(tmp_path)
    trained(store, "failed", state="failed")
    trained(store, "stopped", state="interrupted")
    trained(store, "vanished", state="vanished")
    trained(store, "theirs", study="other")
    trained(store, "mine")
    with pytest.raises(StoreError, match=r"retention.disk_gb = .* of study 's' is not enough"):
        make_room(store, "s", budget(1))
    assert have_checkpoints(store) == {"failed", "stopped", "vanished", "theirs"}


def test_a_trial_that_was_stopped_early_gives_its_checkpoints_up_like_a_finished_one(tmp_path):
    store = Store(tmp_path)
    trained(store, "early", state="stopped")
    trained(store, "done")
    make_room(store, "s", budget(15))
    assert have_checkpoints(store) == {"done"}
    assert store.record("early").state == "stopped"


def test_the_decoded_pictures_of_a_studys_data_count_in_its_budget_and_other_datas_do_not(tmp_path):
    store = Store(tmp_path)
    for key in ("d-0123456789", "other-0123456789"):
        (store.data_dir / "decoded" / key).mkdir(parents=True)
        (store.data_dir / "decoded" / key / "pixels.bin").write_bytes(bytes(10 * MB))
    for name in ("a", "b"):
        trained(store, name)
    assert taken(store, "s").decoded == 10 * MB
    make_room(store, "s", budget(31))
    assert have_checkpoints(store) == {"a", "b"}
    make_room(store, "s", budget(29))
    assert have_checkpoints(store) == {"b"}
    with pytest.raises(StoreError, match=r"decoded pictures 0.00977 GiB.*or delete .*decoded and set SALT_LAB_DECODED_GB=0"):
        make_room(store, "s", budget(9))


def test_new_decoded_pictures_may_take_what_a_trial_with_two_checkpoints_leaves_of_the_budget(tmp_path):
    store = Store(tmp_path)
    trained(store, "done")
    trained(store, "can go on", state="interrupted")
    assert room_for_pictures(store, "s", Retention()) is None
    assert 68 * MB < room_for_pictures(store, "s", budget(100)) < 70 * MB, "100 less 10 to go on from, and 20"
    assert room_for_pictures(store, "s", budget(1)) == 0


def test_a_running_trials_checkpoints_stay(tmp_path):
    store = Store(tmp_path)
    trained(store, "running", state="vanished")
    trained(store, "mine")
    with store.lock("running"):
        make_room(store, "s", budget(25))
    assert have_checkpoints(store) == {"running"}, "room for its second checkpoint is what the finished one has made"


def test_before_a_trial_starts_there_must_be_room_for_two_checkpoints(tmp_path):
    store = Store(tmp_path)
    for name in ("a", "b"):
        trained(store, name)
    make_room(store, "s", budget(41))
    make_room(store, "s", budget(41), starting="new")
    assert have_checkpoints(store) == {"a", "b"}
    make_room(store, "s", budget(39), starting="new")
    assert have_checkpoints(store) == {"b"}


def test_what_cannot_be_met_names_the_folder_the_field_and_what_takes_the_space(tmp_path):
    store = Store(tmp_path)
    trained(store, "stopped", state="interrupted", megabytes=1024)
    with pytest.raises(StoreError) as refused:
        make_room(store, "s", Retention(disk_gb=0.5), starting="new")
    text = str(refused.value)
    assert text.startswith(f"{tmp_path}: retention.disk_gb = 0.5 of study 's'") and "\n" not in text
    assert "checkpoints of 1 trials that run or can go on 1 GiB" in text and "room for checkpoints of running trials 2 GiB" in text


def test_without_a_budget_nothing_is_touched(tmp_path):
    store = Store(tmp_path)
    trained(store, "a")
    make_room(store, "s", Retention())
    assert have_checkpoints(store) == {"a"}


def test_a_trial_without_room_is_refused_before_it_starts_and_its_record_says_why(tmp_path):
    store = Store(tmp_path)
    trained(store, "stopped", state="interrupted")
    rules = {"checkpoints": "last", "disk_gb": 5 * MB / GIB}
    write_json(store.study_dir("s") / "launches" / "l.json", {"retention": rules, "time": 0, "launch_id": "l", "trials": []})
    trial = Trial.model_validate({"host": "atss", "data": {"train_images": 4, "val_images": 2}})
    job = Job(trial, trial_id(trial, fingerprint(trial.data)))
    assert run_job(RUN_TRIAL, job, store, study="s", launch_id="l") == "failed"
    record = store.record(job.trial_id)
    assert "retention.disk_gb" in record.reason and "Raise retention.disk_gb" in record.reason and not record.built
    assert have_checkpoints(store) == {"stopped"}


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("last", {"epoch_3.pth", "last_checkpoint"}),
        ("best_and_last", {"best_epoch_2.pth", "epoch_3.pth", "last_checkpoint"}),
        ("none", set()),
    ],
)
def test_of_a_finished_trial_the_rules_say_what_is_left(tmp_path, rule, left):
    for name in ("epoch_2.pth", "epoch_2_step_9.pth", "epoch_3.pth", "best_epoch_2.pth", "epoch_1.pth.damaged", "last_checkpoint"):
        (tmp_path / name).touch()
    prune(tmp_path, Retention(checkpoints=rule))
    assert {path.name for path in tmp_path.iterdir()} == left


def test_the_best_epoch_has_the_highest_ap_and_the_first_of_equals():
    def evals(*aps):
        return {epoch: {"metrics": {"AP": ap}} for epoch, ap in enumerate(aps, 1)}

    assert best_epoch(evals(1.0, 3.0, 3.0, 2.0)) == 2
    assert best_epoch(evals(None, 0.0)) == 2 and best_epoch(evals(None)) is None and best_epoch({}) is None


def test_a_trial_reads_the_rules_of_the_launch_that_runs_it(tmp_path):
    store = Store(tmp_path)
    write_json(
        store.study_dir("s") / "launches" / "l.json", {"retention": {"checkpoints": "none", "disk_gb": 3}, "time": 0, "launch_id": "l"}
    )
    write_json(store.study_dir("s") / "launches" / "old.json", {"time": 0, "launch_id": "old"})
    assert rules_of(store, "s", "l") == Retention(checkpoints="none", disk_gb=3)
    assert rules_of(store, "s", "old") == rules_of(store, "s", "absent") == rules_of(store, None, None) == Retention()


def study(tmp_path, retention):
    file = tmp_path / "study.yaml"
    file.write_text(f"base: {{host: atss}}\nretention: {retention}\n")
    return file


def test_a_launch_writes_the_studys_rules_down_and_they_change_no_trial(tmp_path):
    file = study(tmp_path, "{checkpoints: best_and_last, disk_gb: 200}")
    read, store = load_study(file, ["retention.disk_gb=1.5"]), Store(tmp_path)
    launch_id = store.new_launch(read, ["0" * 12])
    assert rules_of(store, "study", launch_id) == read.retention == Retention(checkpoints="best_and_last", disk_gb=1.5)
    assert read.trials() == load_study(study(tmp_path, "null")).trials()


@pytest.mark.parametrize(
    ("retention", "said"),
    [
        ("{checkpoints: all}", r"retention.checkpoints = all: no checkpoints named 'all'. Choices: best_and_last, last, none"),
        ("{disk_gb: 0}", r"retention.disk_gb = 0: must be greater than 0"),
        ("{disk: 3}", r"retention.disk = 3: no key of retention named 'disk'. Did you mean 'disk_gb'\?"),
        ("none", r"retention = none: must be a mapping of its fields, e.g. {checkpoints: last, disk_gb: 200}"),
    ],
)
def test_a_wrong_rule_is_named_with_its_field_and_value(tmp_path, retention, said):
    with pytest.raises(SpecError, match=said):
        load_study(study(tmp_path, retention))
