"""Real trainings that end at a rung, and go on from there as if they never had."""

from __future__ import annotations

import pytest

from salt_lab.data import fingerprint
from salt_lab.record.journal import write_json
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial, canonical, trial_id
from salt_lab.train.trial import run_trial

pytestmark = pytest.mark.integration

TRIAL = Trial.model_validate(
    {
        "host": "atss",
        "backbone": {"name": "resnet18", "base_channels": 8},
        "channels": 64,
        "head_convs": 1,
        "data": {"train_images": 16, "val_images": 4, "image_size": 64, "classes": 2},
        "schedule": {"epochs": 3, "batch": 8, "image_size": [64, 64], "optimizer": "adamw", "lr": 1e-3, "warmup_iters": 2},
    }
)
NAME = trial_id(TRIAL, fingerprint(TRIAL.data))
RULES = {"rungs": [2], "keep": 0.34, "min_peers": 3}


def make_store(folder):
    """A results folder with three better trials at the rung, a launch that stops early, and one that does not."""
    store, peers = Store(folder), [f"{i:012x}" for i in range(3)]
    for peer in peers:
        recorder = FolderRecorder(store, peer)
        words = {"study": "s", "launch_id": "before", "data_fingerprint": fingerprint(TRIAL.data), "provenance": {}}
        recorder.start(trial=canonical(TRIAL), **words)
        recorder.eval(2, {"AP": 99.0})
    nothing_kept = {"early_stop": RULES, "retention": {"checkpoints": "none"}}
    for name, rules in (("stops", {"early_stop": RULES}), ("stops, keeps nothing", nothing_kept), ("goes-on", {})):
        launch = {"launch_id": name, "time": 0.0, "study": "s", "trials": [{"trial_id": i} for i in (*peers, NAME)], **rules}
        write_json(store.study_dir("s") / "launches" / f"{name}.json", launch)
    return store


def losses(record):
    return {epoch: content["losses"] for epoch, content in record.epochs.items()}


@pytest.mark.slow
def test_a_stopped_training_keeps_its_checkpoint_and_goes_on_to_the_numbers_of_one_that_never_stopped(tmp_path):
    store = make_store(tmp_path / "stopped")
    record = run_trial(TRIAL, store, study="s", launch_id="stops", threads=1)
    assert (record.state, sorted(record.epochs), record.metrics) == ("stopped", [1, 2], None)
    assert record.stopped["threshold"] == 99.0 and len(record.stopped["peers"]) == 3
    assert (store.trial_dir(NAME) / "checkpoints" / "epoch_2.pth").is_file()
    journal = store.journal(NAME).read()
    assert run_trial(TRIAL, store, study="s", launch_id="stops", threads=1).state == "stopped"
    assert store.journal(NAME).read() == journal, "a stopped trial was run again by a launch that stops early"
    done = run_trial(TRIAL, store, study="s", launch_id="goes-on", threads=1)
    never = run_trial(TRIAL, make_store(tmp_path / "never"), study="s", launch_id="goes-on", threads=1)
    assert (done.state, done.attempt) == ("done", 2)
    assert losses(done) == losses(never) and done.metrics == never.metrics


def test_a_training_killed_while_it_was_evaluated_at_a_rung_evaluates_and_decides_when_it_resumes(tmp_path, monkeypatch):
    from salt_lab.train.hooks import RecordHook

    store, evaluate = make_store(tmp_path), RecordHook.before_val_epoch

    def dies_at_the_rung(self, runner):
        if runner.epoch == 2:
            raise KeyboardInterrupt
        evaluate(self, runner)

    monkeypatch.setattr(RecordHook, "before_val_epoch", dies_at_the_rung)
    with pytest.raises(KeyboardInterrupt):
        run_trial(TRIAL, store, study="s", launch_id="stops, keeps nothing", threads=1)
    monkeypatch.undo()
    assert sorted(store.record(NAME).evals) == [1]
    record = run_trial(TRIAL, store, study="s", launch_id="stops, keeps nothing", threads=1)
    assert (record.state, record.stopped["epoch"]) == ("stopped", 2)
    assert [line["event"] for line in store.journal(NAME).read()][-2:] == ["eval", "stopped"], "it trained on past its rung"
    assert not list((store.trial_dir(NAME) / "checkpoints").rglob("*.pth")), "retention holds for a trial that was stopped early, too"


@pytest.mark.slow
def test_all_workers_of_a_trial_stop_together(tmp_path):
    store = make_store(tmp_path)
    record = run_trial(TRIAL, store, study="s", launch_id="stops", threads=1, device="cpu", workers=2)
    assert (record.state, sorted(record.epochs)) == ("stopped", [1, 2])
    assert [line["event"] for line in store.journal(NAME).read()].count("stopped") == 1


SEARCH = """
base:
  data: {kind: marks, train_images: 2, val_images: 2, image_size: 32}
  schedule: {epochs: 4, image_size: [32, 32]}
axes: {schedule.lr: [0.0010, 0.0008, 0.0006, 0.0004, 0.0002, 0.0001]}
early_stop: {rungs: [2], keep: 1/3}
"""


@pytest.mark.slow
def test_trials_in_ray_workers_stop_by_each_others_journals_and_go_on_when_asked(tmp_path):
    pytest.importorskip("ray")
    from salt_lab.schedule.launch import run_study
    from salt_lab.schedule.ray_executor import RayExecutor
    from salt_lab.spec.study import load_study
    from salt_lab.testing.executor_contract import FAKE

    (tmp_path / "search.yaml").write_text(SEARCH)
    study, store = load_study(tmp_path / "search.yaml"), Store(tmp_path / "runs")
    first = run_study(study, store, RayExecutor("local", max_concurrent=2, trial_fn=FAKE))
    assert first.complete and first.stopped >= 1 and first.done + first.stopped == 6
    stopped = [record for record in map(store.record, store.trial_ids()) if record.state == "stopped"]
    assert all(record.attempt == 1 and max(record.epochs) == 2 and len(record.stopped["peers"]) >= 3 for record in stopped)
    free = load_study(tmp_path / "search.yaml", ["early_stop=null"])
    second = run_study(free, store, RayExecutor("local", max_concurrent=2, trial_fn=FAKE))
    assert (second.done, second.reused, second.stopped, second.complete) == (first.stopped, first.done, 0, True)
