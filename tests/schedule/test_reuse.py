"""Which finished trials a launch keeps, which it refuses to mix with, and which it trains again."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from salt_lab.errors import UserError
from salt_lab.record import rows
from salt_lab.record.store import Store
from salt_lab.record.training_code import training_code_version
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.launch import run_study
from salt_lab.schedule.preflight import jobs_of
from salt_lab.spec.study import load_study
from salt_lab.testing.executor_contract import FAKE

STUDY = """
question: does the operator help?
base:
  data: {kind: marks, train_images: 2, val_images: 2, image_size: 32}
  schedule: {epochs: 2, image_size: [32, 32]}
axes:
  salt: [off, on]
"""
OTHER = "0ddc0de00001"


@pytest.fixture(autouse=True)
def code_that_nobody_edits(monkeypatch):
    """The sources may be edited while these tests run. Nor is git asked, which takes its time."""
    monkeypatch.setattr("salt_lab.record.training_code._sources", lambda root: iter(()))
    monkeypatch.setattr("salt_lab.record.provenance._git", lambda *words: None)


class Lab:
    """A results folder, a study of two trials and a serial executor."""

    def __init__(self, root):
        self.store, self.path, self.text = Store(root / "runs"), root / "tiny.yaml", io.StringIO()
        self.path.write_text(STUDY)

    def study(self, *overrides):
        return load_study(self.path, overrides)

    def run(self, *overrides, trial_fn=FAKE, **options):
        console = Console(file=self.text, width=200)
        return run_study(self.study(*overrides), self.store, SerialExecutor(trial_fn=trial_fn, patience=0), console=console, **options)

    def ids(self):
        return [job.trial_id for job in jobs_of(self.study().trials())]

    def pretend_made_by(self, version, trial_id):
        """The trial's journal as if code of this version had written it; None = code from before versions were recorded."""
        path = self.store.journal(trial_id).path
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if line["event"] == "start":
                line["provenance"]["training_code"] = version
                line["provenance"] = {key: value for key, value in line["provenance"].items() if value is not None}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def starts(self):
        return [sum(line["event"] == "start" for line in self.store.journal(trial_id).read()) for trial_id in self.ids()]


@pytest.fixture
def lab(tmp_path):
    """Both trials are done; the first by other code."""
    lab = Lab(tmp_path)
    lab.run()
    lab.pretend_made_by(OTHER, lab.ids()[0])
    return lab


def everything(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_study_that_grows_is_refused_where_other_code_made_what_is_done_and_nothing_is_touched(lab):
    before = everything(lab.store.root)
    words = rf"tiny.yaml: 1 of 2 finished trials was made by other training code \({OTHER}; now {training_code_version()}\); 2 are to be trained"
    with pytest.raises(UserError, match=rf"{words}.*--reuse.*--force.*earlier") as caught:
        lab.run("seeds=[0,1]")
    assert caught.value.exit_code == 2
    assert everything(lab.store.root) == before


def test_a_record_from_before_versions_were_recorded_counts_as_other_code(lab):
    lab.pretend_made_by(None, lab.ids()[0])
    with pytest.raises(UserError, match=r"other training code \(not recorded; now"):
        lab.run("seeds=[0,1]")


def test_with_reuse_the_finished_trials_stay_and_the_launch_says_so(lab):
    result = lab.run("seeds=[0,1]", reuse=True)
    assert (result.done, result.reused) == (2, 2)
    assert f"1 of 2 finished trials was made by other training code ({OTHER}; now" in lab.text.getvalue()
    launch = lab.store.launches("tiny")[-1]
    assert launch["training_code"] == training_code_version()
    assert launch["reused_other_code"] == {lab.ids()[0]: [OTHER]}


def test_where_nothing_is_left_to_train_running_again_is_no_error_and_says_which_code_it_was(lab):
    assert lab.run().reused == 2
    assert f"made by other training code ({OTHER}; now" in lab.text.getvalue()


def test_with_force_all_finished_trials_are_trained_again_and_the_old_records_stay_whole(lab):
    old = {trial_id: lab.store.journal(trial_id).read() for trial_id in lab.ids()}
    result = lab.run(force=True)
    assert (result.done, result.reused, result.complete) == (2, 0, True)
    assert lab.starts() == [1, 1]
    for trial_id in lab.ids():
        assert lab.store.earlier(trial_id)[1].journal(trial_id).read() == old[trial_id]
        record = lab.store.record(trial_id)
        assert (record.state, record.number, record.launch_id) == ("done", 2, result.launch_id)
        assert record.training_codes == (training_code_version(),)
    assert lab.store.launches("tiny")[-1]["set_aside"] == dict.fromkeys(lab.ids(), 1)
    assert "to run 2 (2 of them again)" in lab.text.getvalue()
    assert lab.run().reused == 2  # and that is that


def stops_in_its_second_epoch(trial, store, **where):
    from salt_lab.testing import fake_trial

    def stop(recorder, attempts):
        raise KeyboardInterrupt

    fake_trial.TROUBLE[trial.seed] = stop
    try:
        fake_trial.fake_trial(trial, store, **where)
    finally:
        del fake_trial.TROUBLE[trial.seed]


def test_an_unfinished_trial_that_other_code_began_goes_on_with_a_word_and_shows_both_codes(tmp_path):
    lab = Lab(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        lab.run(trial_fn=stops_in_its_second_epoch)
    lab.pretend_made_by(OTHER, lab.ids()[0])
    assert lab.run().done == 2
    assert f"1 unfinished trial was begun by other training code ({OTHER}; now" in lab.text.getvalue()
    assert lab.store.record(lab.ids()[0]).training_codes == (OTHER, training_code_version())
    assert lab.starts() == [2, 1]


def test_with_force_an_unfinished_trial_of_other_code_starts_from_scratch(tmp_path):
    lab = Lab(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        lab.run(trial_fn=stops_in_its_second_epoch)
    lab.pretend_made_by(OTHER, lab.ids()[0])
    lab.run(force=True)
    first = lab.store.record(lab.ids()[0])
    assert (first.state, first.number, first.training_codes, lab.starts()[0]) == ("done", 2, (training_code_version(),), 1)


def test_a_trial_of_this_code_that_was_interrupted_goes_on_under_force(tmp_path):
    lab = Lab(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        lab.run(trial_fn=stops_in_its_second_epoch)
    lab.run(force=True)
    assert (lab.store.record(lab.ids()[0]).number, lab.starts()[0]) == (1, 2)


def test_an_attempt_from_scratch_owes_nothing_to_the_code_of_those_before(tmp_path):
    lab = Lab(tmp_path)
    lab.run()
    journal = lab.store.journal(lab.ids()[0])
    start, *rest = journal.read()
    failed = {**start, "provenance": {"training_code": OTHER}}
    end = {"event": "failed", "time": start["time"], "reason": "no such image"}
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in (failed, end, start, *rest)))
    assert lab.store.record(lab.ids()[0]).training_codes == (training_code_version(),)
    assert lab.run("seeds=[0,1]").done == 2


def test_a_trial_that_another_process_has_is_not_set_aside(lab):
    busy = lab.ids()[0]
    with lab.store.lock(busy):
        result = lab.run(force=True, wait=False)
    assert lab.store.record(busy).number == 1 and lab.store.record(lab.ids()[1]).number == 2
    assert result.done == 1


def test_a_crash_between_setting_aside_and_training_is_made_good_by_the_next_run(lab):
    trial_id = lab.ids()[0]
    moving = lab.store.trial_dir(trial_id) / "earlier" / "1.moving"
    moving.mkdir(parents=True)
    (lab.store.trial_dir(trial_id) / "record.jsonl").rename(moving / "record.jsonl")
    result = lab.run()
    assert (result.done, result.reused) == (1, 1)
    assert lab.store.earlier(trial_id)[1].record(trial_id).training_codes == (OTHER,)


def test_what_a_launch_left_is_read_from_the_record_that_it_wrote_or_found(lab):
    (first,) = lab.store.launches("tiny")
    lab.run(force=True)
    forced = lab.store.launches("tiny")[-1]
    trial_id = lab.ids()[0]
    journals = [store.journal(trial_id).read() for store in (*lab.store.earlier(trial_id).values(), lab.store)]
    assert rows.record_in_launch(journals, first, trial_id) == 0
    assert rows.record_in_launch(journals, forced, trial_id) == 1
    reused = {"launch_id": "between", "time": journals[1][0]["time"] - 0.001}
    assert rows.record_in_launch(journals, reused, trial_id) == 0
    assert rows.record_in_launch([journals[0], []], {**reused, "set_aside": {trial_id: 1}}, trial_id) == 1
