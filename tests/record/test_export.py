"""Records to take along."""

import json

import pytest

from salt_lab.errors import StoreError
from salt_lab.record.export import export_records
from salt_lab.record.store import Store

TRIAL = {"host": "atss", "data": {"kind": "coco", "train": "/home/me/cells/train.json"}, "backbone": {"init": "/weights/net.pth"}}


def recorded(store, trial_id="a" * 12, epochs=1):
    journal = store.journal(trial_id)
    if not journal.read():
        journal.append("start", trial_id=trial_id, trial=TRIAL, study="s", launch_id="l", attempt=1, resumed_epoch=0, provenance={})
    for epoch in range(1, epochs + 1):
        journal.append("epoch", epoch=epoch, losses={"loss": 1.0 / epoch})


def test_no_folder_of_the_machine_is_in_the_export(tmp_path):
    store = Store(tmp_path / "runs")
    recorded(store)
    assert export_records(store, "s", ["a" * 12], tmp_path / "out") == 1
    text = (tmp_path / "out" / "trials" / ("a" * 12) / "record.jsonl").read_text()
    assert "/home/me" not in text and "/weights" not in text
    assert json.loads(text.splitlines()[0])["trial"]["data"]["train"] == "train.json"


def test_the_export_folds_to_the_same_numbers(tmp_path):
    store = Store(tmp_path / "runs")
    recorded(store, epochs=3)
    export_records(store, "s", ["a" * 12], tmp_path / "out")
    assert Store(tmp_path / "out").record("a" * 12).epochs == store.record("a" * 12).epochs


def test_a_grown_record_is_exported_again_and_another_is_not(tmp_path):
    store, other = Store(tmp_path / "runs"), Store(tmp_path / "other")
    recorded(store)
    export_records(store, "s", ["a" * 12], tmp_path / "out")
    recorded(store, epochs=2)
    export_records(store, "s", ["a" * 12], tmp_path / "out")
    assert len(Store(tmp_path / "out").journal("a" * 12).read()) == 4
    recorded(other)
    with pytest.raises(StoreError, match="nothing is overwritten"):
        export_records(other, "s", ["a" * 12], tmp_path / "out")


def test_a_trial_without_a_record_is_not_counted(tmp_path):
    assert export_records(Store(tmp_path / "runs"), "s", ["b" * 12], tmp_path / "out") == 0


def test_a_failed_trials_reason_keeps_its_words_and_its_traceback_loses_its_folders(tmp_path):
    store = Store(tmp_path / "runs")
    recorded(store)
    reason = "/home/me/cells/val.json: category id 4 is missing (log: /home/me/runs/train.log); see https://arxiv.org/abs/2108.12176"
    store.journal("a" * 12).append(
        "failed", reason=reason, traceback_tail='File "/home/me/lab/trial.py", line 3\n  a / b, and/or 3/4, ${CELLS}/annotations/val.json'
    )
    export_records(store, "s", ["a" * 12], tmp_path / "out")
    failed = Store(tmp_path / "out").journal("a" * 12).read()[-1]
    assert failed["reason"] == "val.json: category id 4 is missing (log: train.log); see https://arxiv.org/abs/2108.12176"
    assert failed["traceback_tail"] == 'File "trial.py", line 3\n  a / b, and/or 3/4, ${CELLS}/annotations/val.json'


def test_a_file_in_a_folder_with_a_blank_in_its_name_loses_the_folder_too(tmp_path):
    store = Store(tmp_path / "runs")
    trial = {**TRIAL, "data": {"kind": "coco", "train": "/home/my photos/train.json"}}
    store.journal("a" * 12).append(
        "start", trial_id="a" * 12, trial=trial, study="s", launch_id="l", attempt=1, resumed_epoch=0, provenance={}
    )
    export_records(store, "s", ["a" * 12], tmp_path / "out")
    assert Store(tmp_path / "out").journal("a" * 12).read()[0]["trial"]["data"]["train"] == "train.json"


def test_a_trial_that_was_trained_again_takes_its_earlier_record_along(tmp_path):
    store, target = Store(tmp_path / "runs"), tmp_path / "out"
    recorded(store)
    export_records(store, "s", ["a" * 12], target)
    first = (target / "trials" / ("a" * 12) / "record.jsonl").read_bytes()
    assert store.set_aside("a" * 12, 1)
    recorded(store, epochs=3)
    for _ in range(2):
        assert export_records(store, "s", ["a" * 12], target) == 1
        there = Store(target)
        assert (target / "trials" / ("a" * 12) / "earlier" / "1" / "record.jsonl").read_bytes() == first
        assert (there.record("a" * 12).number, len(there.record("a" * 12).epochs)) == (2, 3)
        assert sorted(path.name for path in (target / "trials" / ("a" * 12)).iterdir()) == ["earlier", "record.jsonl"]
