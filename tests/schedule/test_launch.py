"""Running a study: nothing twice, nothing lost, and everything that can be refused is refused before anything starts."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from salt_lab.errors import DataError, StoreError, TrialFailed, UserError, WeightsError
from salt_lab.record.store import Store
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.launch import run_study
from salt_lab.schedule.preflight import jobs_of
from salt_lab.spec.study import load_study
from salt_lab.testing.executor_contract import FAKE
from salt_lab.testing.fake_trial import FAILS, HANGS

STUDY = """
question: does the operator help?
base:
  backbone: resnet18
  data: {kind: marks, train_images: 2, val_images: 2, image_size: 32}
  schedule: {epochs: 2, image_size: [32, 32]}
axes:
  host: [atss, gfl]
  salt: [off, on]
compare: {baseline: {salt.enabled: false}}
"""


class Lab:
    """A results folder, a study and a serial executor, as a user has them."""

    def __init__(self, root, text=STUDY):
        self.store, self.path, self.text = Store(root / "runs"), root / "tiny.yaml", io.StringIO()
        self.path.write_text(text)

    def study(self, *overrides):
        return load_study(self.path, overrides)

    def run(self, *overrides, trial_fn=FAKE, **options):
        console = Console(file=self.text, width=200)
        return run_study(self.study(*overrides), self.store, SerialExecutor(trial_fn=trial_fn, patience=0), console=console, **options)

    def starts(self):
        journals = (self.store.journal(trial_id).read() for trial_id in self.store.trial_ids())
        return sum(line["event"] == "start" for lines in journals for line in lines)


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def test_every_trial_of_the_study_is_run_and_counted(lab):
    result = lab.run()
    assert (result.done, result.failed, result.interrupted, result.reused) == (4, 0, 0, 0)
    assert result.complete and result.seconds > 0 and result.delivered is None
    assert {lab.store.record(job.trial_id).launch_id for job in jobs_of(lab.study().trials())} == {result.launch_id}


def test_run_again_finished_trials_are_not_run_again(lab):
    first, second = lab.run(), lab.run()
    assert (second.done, second.reused, second.launch_id) == (0, 4, first.launch_id)
    assert lab.starts() == 4
    assert "reused 4, to run 0" in lab.text.getvalue()


def test_more_seeds_run_only_the_new_trials(lab):
    lab.run()
    result = lab.run("seeds=[0,1]")
    assert (result.done, result.reused) == (4, 4)


def test_a_failed_trial_fails_alone_and_is_tried_again_by_the_next_launch(lab):
    result = lab.run(f"seeds=[0,{FAILS}]")
    assert (result.done, result.failed, result.complete) == (4, 4, False)
    again = lab.run(f"seeds=[0,{FAILS}]")
    assert (again.done, again.failed, again.reused) == (0, 4, 4)
    assert lab.starts() == 12
    assert "the loss is NaN" in lab.text.getvalue()


def test_ctrl_c_says_what_is_done_and_the_next_launch_does_the_rest(lab):
    def interrupted_at_the_third(trial, store, **where):
        if len(store.trial_ids()) == 2:
            raise KeyboardInterrupt
        from salt_lab.testing.fake_trial import fake_trial

        fake_trial(trial, store, **where)

    with pytest.raises(KeyboardInterrupt):
        lab.run(trial_fn=interrupted_at_the_third)
    assert "2 done, 1 interrupted, 1 not started" in lab.text.getvalue()
    result = lab.run()
    assert (result.done, result.reused) == (2, 2)


def test_a_trial_that_somebody_else_is_running_is_left_to_them(lab):
    busy = jobs_of(lab.study().trials())[0]
    with lab.store.lock(busy.trial_id):
        lab.store.journal(busy.trial_id).append(
            "start", trial_id=busy.trial_id, trial={}, study="s", launch_id="theirs", attempt=1, resumed_epoch=0
        )
        result = lab.run(wait=False)
    assert (result.done, result.busy, result.complete) == (3, 1, False)


def test_the_data_is_drawn_once_before_the_first_trial(lab):
    seen = []

    def look(trial, store, **where):
        seen.append(sorted(path.name for path in store.data_dir.iterdir() if path.is_dir()))
        raise TrialFailed("enough seen")

    lab.run(trial_fn=look)
    assert len(seen) == 4 and all(folders == seen[0] and len(folders) == 1 for folders in seen)


class FakeMlflow:
    """Stands where MlflowStore does; keeps what it was told."""

    last_error = "connection refused"
    told: Counter

    def __init__(self, store, uri):
        FakeMlflow.told = Counter()

    def open_launch(self, study, launch_id):
        self.told["open"] += 1

    def deliver(self, trial_id):
        self.told[trial_id] += 1
        return True

    def close_launch(self):
        self.told["close"] += 1
        return False


@pytest.fixture
def mlflow(monkeypatch):
    monkeypatch.setattr("salt_lab.record.mlflow_store.MlflowStore", FakeMlflow)
    return FakeMlflow


def test_mlflow_is_told_of_every_trial_and_a_lost_server_costs_no_trial(lab, mlflow, tmp_path):
    result = lab.run(mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert result.done == 4 and result.delivered is False
    assert all(mlflow.told[trial_id] >= 1 for trial_id in lab.store.trial_ids())
    assert (mlflow.told["open"], mlflow.told["close"]) == (1, 1)
    assert f"connection refused). The records are safe: salt-lab sync {lab.store.root}" in lab.text.getvalue()


def test_mlflow_is_closed_after_an_interruption(lab, mlflow, tmp_path):
    def stop(trial, store, **where):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.run(trial_fn=stop, mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert mlflow.told["close"] == 1


def refused(lab, error, match, *overrides, **options):
    with pytest.raises(error, match=match) as caught:
        lab.run(*overrides, **options)
    assert isinstance(caught.value, UserError)
    assert not lab.store.trial_ids() and not lab.store.study_names() and not lab.store.data_dir.exists()


def test_an_unwritable_results_folder_is_refused_before_anything_starts(lab):
    lab.store.root.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="runs"):
        lab.run()


def test_an_unreachable_mlflow_server_is_refused_before_anything_starts(lab):
    refused(lab, StoreError, r"http://127\.0\.0\.1:9", mlflow_uri="http://127.0.0.1:9")


def test_mlflow_that_is_asked_for_but_not_installed_is_refused_before_anything_starts(lab, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(lab, StoreError, "mlflow is not installed. pip install mlflow", mlflow_uri="sqlite:///mlflow.db")


def test_a_missing_weights_file_is_refused_before_anything_starts(lab):
    refused(lab, WeightsError, r"backbone.init = .*no.pth.: the weights file cannot be read \(No such file", "backbone.init=no.pth")


def test_missing_coco_data_is_refused_before_anything_starts(lab, tmp_path):
    data = f"data={{train: {tmp_path}/no.json, val: {tmp_path}/no.json, images: {tmp_path}}}"
    refused(lab, DataError, "no.json", data)


def test_an_executor_that_cannot_hold_a_trial_is_refused_before_anything_starts(lab):
    closed = []

    class Full(SerialExecutor):
        def check(self):
            raise UserError("too large")

        def close(self):
            closed.append(True)

    with pytest.raises(UserError, match="too large"):
        run_study(lab.study(f"seeds=[{HANGS}]"), lab.store, Full(trial_fn=FAKE), console=Console(file=lab.text))
    assert closed and not lab.store.trial_ids() and not lab.store.study_names()
