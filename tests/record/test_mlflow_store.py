"""From the results folder to MLflow and never twice. MLflow is read through its own client, from a real SQLite file."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from salt_lab.errors import StoreError
from salt_lab.record import COCO_NAMES
from salt_lab.record.mlflow_store import MlflowStore, sync
from salt_lab.record.mlflow_view import state_of
from salt_lab.record.pairs import baselines

A, B = "a" * 12, "b" * 12
FILES = {"config.py", "detections.json.gz", "train.log", "record.jsonl", "uncommitted.patch"}


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One SQLite store for all tests (making one takes seconds); every test has a study, so an experiment, of its own."""
    from salt_lab.record import Store

    folder = tmp_path_factory.mktemp("mlflow")
    MlflowStore(Store(folder), found := f"sqlite:///{folder}/mlflow.db")
    return found


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_of(client, study, kind=None):
    experiment = client.get_experiment_by_name(study)
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [run for run in found if kind in (None, run.data.tags["salt_lab.kind"])]


def run_of(client, study, trial_id):
    (found,) = [run for run in runs_of(client, study, "trial") if run.data.tags["salt_lab.trial_id"] == trial_id]
    return found


def history(client, run, name):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def everything(client, study):
    """All that MLflow has of a study: status, times, tags, params, every metric point, every artifact and when it was written."""
    found = {}
    for run in runs_of(client, study):
        points = {name: [point.to_dictionary() for point in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics}
        folder = Path(run.info.artifact_uri.removeprefix("file://"))
        files = {path.name: path.stat().st_mtime_ns for path in folder.glob("*")}
        found[run.info.run_id] = (dict(run.info), run.data.tags, run.data.params, points, files)
    return found


def test_a_study_is_an_experiment_of_launches_of_trials(named_lab, client, uri):
    launch = named_lab.launch()
    mlflow = MlflowStore(named_lab.store, uri)
    parent_id = mlflow.open_launch(named_lab.study.name, launch)
    assert client.get_run(parent_id).info.status == "RUNNING"
    for i, trial_id in enumerate(named_lab.ids):
        named_lab.train(i, launch)
        assert mlflow.deliver(trial_id)
    assert mlflow.close_launch()

    (parent,) = runs_of(client, named_lab.study.name, "launch")
    assert (parent.info.run_id, parent.info.status) == (parent_id, "FINISHED")
    assert parent.data.tags["mlflow.note.content"] == "Does SALT help?"
    assert [info.path for info in client.list_artifacts(parent_id)] == [f"{named_lab.study.name}.yaml"]

    off, on = run_of(client, named_lab.study.name, A), run_of(client, named_lab.study.name, B)
    assert (off.info.run_name, on.info.run_name) == ("atss, seed 0", "atss + SALT, seed 0")
    assert off.info.status == on.info.status == "FINISHED"
    assert off.data.tags["mlflow.parentRunId"] == on.data.tags["mlflow.parentRunId"] == parent_id
    assert (off.data.params["salt.enabled"], on.data.params["salt.enabled"]) == ("false", "true")
    assert set(COCO_NAMES) - {"APl"} <= set(on.data.metrics)
    assert history(client, on, "AP") == [(1, 10.0), (2, 20.0)]
    assert history(client, on, "loss/loss_cls") == [(1, 1.0), (2, 0.5)]
    assert (on.data.metrics["parameters"], on.data.metrics["peak_memory_mb"]) == (1234, 300.0)
    assert {info.path for info in client.list_artifacts(on.info.run_id)} == FILES
    assert named_lab.store.record(B).run_id == on.info.run_id


@pytest.mark.parametrize("memory", ["kept", "lost"])
def test_sync_twice_changes_nothing(named_lab, client, uri, memory):
    first = named_lab.launch()
    named_lab.begin(0, first, range(1, 2)).interrupted("Ctrl-C")
    named_lab.train(0, named_lab.launch())
    report = sync(named_lab.store, uri)
    assert (report.launches, report.trials, report.changed, report.failures) == (2, 1, 1, {})
    before = everything(client, named_lab.study.name)
    if memory == "lost":
        (named_lab.store.trial_dir(A) / "mlflow.json").unlink()
    again = sync(named_lab.store, uri)
    assert (again.changed, again.points, again.artifacts, again.failures) == (0, 0, 0, {})
    assert everything(client, named_lab.study.name) == before
    assert named_lab.store.record(A).run_id == run_of(client, named_lab.study.name, A).info.run_id


def test_an_interrupted_and_resumed_trial_is_one_run_with_one_point_per_epoch(named_lab, client, uri):
    name, first = named_lab.study.name, named_lab.launch()
    mlflow = MlflowStore(named_lab.store, uri)
    mlflow.open_launch(name, first)
    with named_lab.store.lock(A):
        named_lab.begin(0, first, range(1, 3))
        assert mlflow.deliver(A)
        assert run_of(client, name, A).info.status == "RUNNING"
    mlflow.close_launch()  # the process of the trial is gone
    assert run_of(client, name, A).info.status == "KILLED"

    second = named_lab.launch()
    mlflow = MlflowStore(named_lab.store, uri)  # tomorrow
    mlflow.open_launch(name, second)
    with named_lab.store.lock(A):
        recorder = named_lab.begin(0, second, range(2, 3), resumed_epoch=1)
        assert mlflow.deliver(A)
        assert run_of(client, name, A).info.status == "RUNNING"
        named_lab.finish(recorder)
    mlflow.close_launch()
    run = run_of(client, name, A)
    assert run.info.status == "FINISHED"
    assert history(client, run, "AP") == [(1, 10.0), (2, 20.0)]
    assert history(client, run, "loss/loss_cls") == [(1, 1.0), (2, 0.5)]
    launches = {launch.data.tags["salt_lab.launch_id"]: launch for launch in runs_of(client, name, "launch")}
    assert [launches[launch].info.status for launch in (first, second)] == ["KILLED", "KILLED"]  # trial b was never started
    assert run.data.tags["mlflow.parentRunId"] == launches[second].info.run_id


def test_a_final_number_that_a_resume_changed_is_the_one_that_mlflow_shows(named_lab, client, uri):
    name, launch = named_lab.study.name, named_lab.launch()
    named_lab.begin(0, launch, range(1, 3))
    sync(named_lab.store, uri)
    assert run_of(client, name, A).data.metrics["AP"] == 20.0
    named_lab.finish(named_lab.begin(0, launch, range(2, 3), resumed_epoch=1, ap=10.5), ap=21.0)
    sync(named_lab.store, uri)
    assert run_of(client, name, A).data.metrics["AP"] == named_lab.store.record(A).metrics["AP"] == 21.0


def test_a_failed_trial_fails_its_launch_and_says_why(named_lab, client, uri):
    named_lab.begin(0, named_lab.launch(), range(1, 2)).failed("loss is nan")
    sync(named_lab.store, uri)
    run = run_of(client, named_lab.study.name, A)
    assert (run.info.status, run.data.tags["salt_lab.reason"]) == ("FAILED", "loss is nan")
    assert [parent.info.status for parent in runs_of(client, named_lab.study.name, "launch")] == ["FAILED"]


def test_a_trial_stopped_early_is_no_finished_run_until_it_is_finished_and_does_not_spoil_its_launch(named_lab, client, uri):
    study, launch = named_lab.study.name, named_lab.launch()
    named_lab.train(1, launch)
    recorder = named_lab.begin(0, launch, range(1, 2))
    recorder.stopped(1, reason="AP 10.0, needed 20.0", ap=10.0, threshold=20.0, places=1, peers={B: 20.0})
    assert not sync(named_lab.store, uri).failures
    run = run_of(client, study, A)
    assert run.info.status == "KILLED" and run.data.tags["salt_lab.state"] == "stopped"
    assert run.data.tags["salt_lab.reason"] == "AP 10.0, needed 20.0"
    assert [parent.info.status for parent in runs_of(client, study, "launch")] == ["FINISHED"]
    named_lab.finish(named_lab.begin(0, named_lab.launch(), range(2, 3), resumed_epoch=1))
    assert not sync(named_lab.store, uri).failures
    run = run_of(client, study, A)
    assert (run.info.status, run.data.tags["salt_lab.state"], run.data.tags["salt_lab.reason"]) == ("FINISHED", "done", "")
    assert history(client, run, "AP") == [(1, 10.0), (2, 20.0)]


@pytest.mark.parametrize("arrived", [True, False])
def test_a_server_that_dies_mid_study_raises_nothing_and_misses_nothing_later(named_lab, client, uri, monkeypatch, arrived):
    """Its last answer is lost, whether or not the request had arrived."""
    launch = named_lab.launch()
    mlflow = MlflowStore(named_lab.store, uri)
    mlflow.open_launch(named_lab.study.name, launch)
    log_batch = mlflow.runs._client.log_batch

    def dying(*args, **kwargs):
        if arrived:
            log_batch(*args, **kwargs)
        raise ConnectionError("gone")

    recorder = named_lab.begin(0, launch, range(1, 2))
    monkeypatch.setattr(mlflow.runs._client, "log_batch", dying)
    assert not mlflow.deliver(A)
    assert mlflow.last_error == "gone"
    begin = time.monotonic()
    assert not mlflow.deliver(A)  # and is left alone for a while
    assert time.monotonic() - begin < 0.05
    monkeypatch.setattr(mlflow.runs._client, "log_batch", log_batch)
    named_lab.finish(recorder)
    assert mlflow.close_launch()
    run = run_of(client, named_lab.study.name, A)
    assert (run.info.status, history(client, run, "AP")) == ("FINISHED", [(1, 10.0), (2, 20.0)])


def deltas(client, study):
    return {run.info.run_name: run.data.metrics.get("delta_AP") for run in runs_of(client, study, "trial")}


@pytest.mark.parametrize("first", [0, 1])
def test_what_a_variant_gains_comes_with_whichever_of_the_two_is_done_last(compared_lab, client, uri, first):
    lab, name, launch = compared_lab, compared_lab.study.name, compared_lab.launch()
    lab.finish(lab.begin(first, launch, range(1, 3)), ap=20.0 + first)
    assert not sync(lab.store, uri).failures
    assert set(deltas(client, name).values()) == {None}
    lab.finish(lab.begin(1 - first, launch, range(1, 3)), ap=21.0 - first)
    assert not sync(lab.store, uri).failures
    assert deltas(client, name) == {"atss, seed 0": None, "atss + SALT, seed 0": 1.0}
    before = everything(client, name)
    for trial_id in lab.ids:
        (lab.store.trial_dir(trial_id) / "mlflow.json").unlink()
    assert sync(lab.store, uri).changed == 0
    assert everything(client, name) == before


def test_a_gain_follows_the_baseline_that_was_trained_again(compared_lab, client, uri):
    lab, launch = compared_lab, compared_lab.launch()
    for i, ap in enumerate((20.0, 23.0)):
        lab.finish(lab.begin(i, launch, range(1, 3)), ap=ap)
    sync(lab.store, uri)
    assert lab.store.set_aside(A, 1)
    lab.finish(lab.begin(0, lab.store.new_launch(lab.study, lab.ids, set_aside={A: 1}), range(1, 3)), ap=22.0)
    assert not sync(lab.store, uri).failures
    assert deltas(client, lab.study.name)["atss + SALT, seed 0"] == 1.0
    assert history(client, run_of(client, lab.study.name, B), "delta_AP") == [(2, 3.0), (2, 1.0)]  # what was said before stays readable


def test_a_launch_from_before_baselines_were_written_down_has_its_gains_from_the_study_file(compared_lab):
    import json

    launch = compared_lab.launch()
    path = compared_lab.store.study_dir(compared_lab.study.name) / "launches" / f"{launch}.json"
    found = json.loads(path.read_text())
    assert baselines([found]) == {B: A}
    for trial in found["trials"]:
        del trial["baseline"]
    assert baselines([found]) == {B: A}
    assert baselines([{**found, "study_yaml": None}]) == {}


def test_a_run_delivered_under_the_old_name_gets_the_new_one_and_a_name_given_by_hand_stays(named_lab, client, uri):
    name = named_lab.study.name
    for i in range(2):
        named_lab.train(i, named_lab.launch() if i == 0 else named_lab.store.launches(name)[0]["launch_id"])
    sync(named_lab.store, uri)
    ids = [run_of(client, name, trial_id).info.run_id for trial_id in (A, B)]
    client.update_run(ids[0], name="salt=off seed=0")
    client.update_run(ids[1], name="mine")
    for trial_id in (A, B):
        (named_lab.store.trial_dir(trial_id) / "mlflow.json").unlink()
    assert sync(named_lab.store, uri).changed == 0
    assert [client.get_run(identity).info.run_name for identity in ids] == ["atss, seed 0", "mine"]


def test_an_experiment_opens_on_its_runs_with_its_question_and_a_view_of_the_toggles(named_lab, client, uri):
    named_lab.train(0, named_lab.launch())
    sync(named_lab.store, uri)
    found = client.get_experiment_by_name(named_lab.study.name)
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"
    assert found.tags["mlflow.note.content"] == "Does SALT help?"
    view = state_of(found.tags["mlflow.sharedViewState.salt-lab"])
    assert view["selectedColumns"][:5] == [
        "params.`host`", "params.`salt.enabled`", "params.`seed`", "metrics.`AP`", "metrics.`delta_AP`",
    ]  # fmt: skip
    client.set_experiment_tag(found.experiment_id, "mlflow.note.content", "my words")
    sync(named_lab.store, uri)
    after = client.get_experiment_by_name(named_lab.study.name).tags
    assert after == {**found.tags, "mlflow.note.content": "my words"}


def test_the_studys_table_and_pictures_are_opened_from_its_latest_launch(named_lab, client, uri):
    named_lab.train(0, named_lab.launch())
    folder = named_lab.store.study_dir(named_lab.study.name)
    (folder / "figures").mkdir()
    (folder / "table.md").write_text("| AP |")
    (folder / "figures" / "gains.png").write_bytes(b"PNG")
    assert sync(named_lab.store, uri).artifacts == 5 + 2
    (parent,) = runs_of(client, named_lab.study.name, "launch")
    assert {info.path for info in client.list_artifacts(parent.info.run_id, "study")} == {"study/gains.png", "study/table.md"}
    assert sync(named_lab.store, uri).artifacts == 0
    (folder / "table.md").write_text("| AP | delta |")
    assert sync(named_lab.store, uri).artifacts == 1


def test_a_trial_that_two_studies_share_is_a_run_of_each(named_lab, other_study, client, uri):
    one = named_lab
    two = other_study(one, f"{one.study.name}_again")
    one.train(0, one.launch())
    time.sleep(0.01)
    two.launch()
    assert sync(one.store, uri).failures == {}
    runs = [run_of(client, study.study.name, A) for study in (one, two)]
    assert runs[0].info.run_id != runs[1].info.run_id
    assert runs[0].data.metrics["AP"] == runs[1].data.metrics["AP"] == 20.0
    assert [one.store.record(A, study=lab.study.name).run_id for lab in (one, two)] == [run.info.run_id for run in runs]
    before = everything(client, two.study.name)
    sync(one.store, uri)
    assert everything(client, two.study.name) == before


def test_a_trial_without_a_launch_is_delivered_all_the_same(named_lab, client, uri):
    named_lab.train(0, "")
    assert sync(named_lab.store, uri).failures == {}
    run = run_of(client, named_lab.study.name, A)
    assert run.info.status == "FINISHED" and "mlflow.parentRunId" not in run.data.tags


def test_a_folder_copied_from_a_machine_without_mlflow_is_delivered_into_its_own_database(named_lab, uri, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    named_lab.train(0, named_lab.launch())
    assert not list(named_lab.store.root.glob("mlflow*"))
    shutil.copy(uri.removeprefix("sqlite:///"), named_lab.store.root / "mlflow.db")  # an empty database, made fast
    assert sync(named_lab.store).failures == {}
    kept = {path.name for path in (named_lab.store.root / "mlflow_artifacts").rglob("*") if path.is_file()}
    assert kept == FILES | {f"{named_lab.study.name}.yaml"}


def test_a_database_that_was_thrown_away_is_filled_again_whatever_the_folder_remembers(named_lab, uri, client):
    named_lab.train(0, named_lab.launch())
    sync(named_lab.store, uri)
    first = run_of(client, named_lab.study.name, A).info.run_id
    client.delete_run(first)
    assert sync(named_lab.store, uri).changed == 1
    assert run_of(client, named_lab.study.name, A).info.run_id != first


def test_an_experiment_that_was_deleted_in_mlflow_is_named_with_the_way_back(named_lab, client, uri):
    launch = named_lab.launch()
    client.delete_experiment(client.create_experiment(named_lab.study.name))
    with pytest.raises(StoreError, match=rf"experiment '{named_lab.study.name}' was deleted there.*mlflow experiments restore"):
        MlflowStore(named_lab.store, uri).open_launch(named_lab.study.name, launch)
    assert "was deleted there" in str(sync(named_lab.store, uri))


def test_a_launch_that_is_not_in_the_folder_is_named(named_lab, uri):
    with pytest.raises(StoreError, match="no launch 'nope' there. Launches: none"):
        MlflowStore(named_lab.store, uri).open_launch(named_lab.study.name, "nope")


def test_opening_a_dead_server_fails_in_a_moment(named_lab):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(StoreError, match=f"MLflow at 'http://127.0.0.1:{port}'") as error:
        MlflowStore(named_lab.store, f"http://me:secret@127.0.0.1:{port}")
    assert time.monotonic() - begin < 3.0
    assert "secret" not in str(error.value)


def test_without_mlflow_the_next_step_is_said(named_lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(StoreError, match="MLflow is not installed: pip install mlflow, or .*salt-lab sync FOLDER"):
        MlflowStore(named_lab.store, "sqlite:///unused.db")


def test_a_trial_that_is_trained_again_is_a_new_run_and_the_earlier_one_stays(named_lab, client, uri):
    lab, study = named_lab, named_lab.study.name
    first = lab.launch()
    for i in range(2):
        lab.train(i, first)
    sync(lab.store, uri)
    before = everything(client, study)
    time.sleep(0.01)
    assert lab.store.set_aside(A, 1)
    second = lab.store.new_launch(lab.study, lab.ids, set_aside={A: 1})
    lab.finish(lab.begin(0, second, range(1, 3)), ap=33.0)
    assert sync(lab.store, uri).failures == {}
    runs = {run.data.tags["salt_lab.record"]: run for run in runs_of(client, study, "trial") if run.data.tags["salt_lab.trial_id"] == A}
    assert {number: run.data.metrics["AP"] for number, run in runs.items()} == {"1": 20.0, "2": 33.0}
    assert {number: run.data.tags["salt_lab.launch_id"] for number, run in runs.items()} == {"1": first, "2": second}
    assert runs["2"].info.run_name == "atss, seed 0 (record 2)"
    assert (runs["1"].data.tags.get("salt_lab.superseded"), runs["2"].data.tags.get("salt_lab.superseded")) == ("true", None)
    earlier = runs["1"].info.run_id
    assert everything(client, study)[earlier][2:] == before[earlier][2:]  # params, points and files as they were
    assert [run.info.status for run in runs_of(client, study, "launch")] == ["FINISHED"] * 2
    assert lab.store.record(A).run_id == runs["2"].info.run_id
    after = everything(client, study)
    assert sync(lab.store, uri).changed == 0
    assert everything(client, study) == after


@pytest.mark.parametrize("ended", [True, False])
def test_two_launches_that_shared_the_trials_are_both_finished_where_they_stayed_to_the_end(named_lab, client, uri, ended):
    first, second = named_lab.launch(), named_lab.launch()
    named_lab.train(0, first)
    named_lab.train(1, second)
    for launch in (first, second) if ended else ():
        named_lab.store.end_launch(named_lab.study.name, launch)
    assert sync(named_lab.store, uri).failures == {}
    status = [run.info.status for run in runs_of(client, named_lab.study.name, "launch")]
    assert status == (["FINISHED"] * 2 if ended else ["KILLED"] * 2)  # killed launches did not see the other's trial end


def test_a_record_that_was_set_aside_before_it_was_delivered_is_delivered_all_the_same(named_lab, client, uri):
    lab = named_lab
    lab.train(0, lab.launch())
    lab.store.set_aside(A, 1)
    lab.train(0, lab.store.new_launch(lab.study, lab.ids, set_aside={A: 1}))
    assert sync(lab.store, uri).failures == {}
    mine = [run for run in runs_of(client, lab.study.name, "trial") if run.data.tags["salt_lab.trial_id"] == A]
    assert sorted(run.data.tags["salt_lab.record"] for run in mine) == ["1", "2"]
    assert all(run.info.status == "FINISHED" for run in mine)


@pytest.mark.integration
def test_two_drivers_that_make_the_same_database_at_once_do_not_break_it(named_lab):
    named_lab.train(0, named_lab.launch())
    uri = f"sqlite:///{named_lab.store.root}/mlflow.db"
    imports = "from salt_lab.record import Store\nfrom salt_lab.record.mlflow_store import sync\n"
    code = f"{imports}print(sync(Store({str(named_lab.store.root)!r}), {uri!r}))"
    drivers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [driver.communicate(timeout=60)[0] for driver in drivers]
    assert all("1 trials of 1 studies" in answer and "not delivered" not in answer for answer in answers), answers

    from mlflow import MlflowClient

    assert len(runs_of(MlflowClient(tracking_uri=uri), named_lab.study.name)) == 2  # one launch, one trial
