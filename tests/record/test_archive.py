"""A study goes to another machine and into another MLflow: nothing is lost, nothing is there twice, nothing damaged is taken in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from salt_lab.errors import StoreError
from salt_lab.record import COCO_NAMES, Store, TrialBusy
from salt_lab.record.archive import write_archive
from salt_lab.record.delivered import digest
from salt_lab.record.import_ import import_archive
from salt_lab.record.manifest import verify

A, B = "a" * 12, "b" * 12


@pytest.fixture
def trained(lab):
    """Both trials done, with files."""
    launch = lab.launch()
    for i in range(2):
        lab.train(i, launch)
        (lab.store.trial_dir(lab.ids[i]) / "probe.npz").write_bytes(b"probe")
    lab.store.end_launch(lab.study.name, launch)
    return lab


@pytest.fixture
def archive(trained, tmp_path):
    write_archive(trained.store, trained.study, trained.ids, tmp_path / "out", detections=True, as_is=True)
    return tmp_path / "out"


def content(folder: Path) -> dict[str, str]:
    """Every file of a folder, locks apart: relative path -> sha256."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}


class TestWhatIsInAnArchive:
    def test_the_manifest_lists_study_trials_code_counts_and_every_file(self, trained, archive):
        manifest = verify(archive)
        assert manifest["study_file"]["text"] == trained.study.source.read_text()
        assert [(trial["trial_id"], trial["state"], trial["seed"]) for trial in manifest["trials"]] == [(A, "done", 0), (B, "done", 0)]
        assert manifest["code_versions"] == ["c0de"]
        assert manifest["counts"]["trials"] == manifest["counts"]["records"] == 2 and manifest["counts"]["launches"] == 1
        assert set(content(archive)) - {"manifest.json"} == set(manifest["files"])

    def test_files_that_tell_of_the_machine_and_large_ones_come_only_when_asked_for(self, trained, tmp_path):
        write_archive(trained.store, trained.study, trained.ids, tmp_path / "few")
        assert sorted(path.name for path in (tmp_path / "few" / "trials" / A).iterdir()) == ["probe.npz", "record.jsonl"]
        write_archive(trained.store, trained.study, trained.ids, tmp_path / "few", detections=True)
        assert (tmp_path / "few" / "trials" / A / "detections.json.gz").exists()

    def test_the_parquet_files_say_what_the_journals_say(self, trained, archive):
        import pyarrow.parquet as pq

        trials, points = (pq.read_table(archive / f"{name}.parquet").to_pylist() for name in ("trials", "points"))
        record = trained.store.record(A)
        (row,) = [row for row in trials if row["trial_id"] == A]
        assert {name: row[name] for name in COCO_NAMES} == record.metrics and row["APl"] is None
        assert json.loads(row["trial"]) == record.trial and row["train_seconds"] == record.cost["train_seconds"]
        aps = {point["step"]: point["value"] for point in points if (point["trial_id"], point["name"]) == (A, "AP")}
        assert aps == {epoch: evaluation["metrics"]["AP"] for epoch, evaluation in record.evals.items()}
        assert len(points) == verify(archive)["counts"]["points"]

    def test_exported_again_it_grows_and_the_archive_of_another_study_is_refused(self, lab, other_study, tmp_path):
        recorder = lab.begin(0, lab.launch(), range(1, 2))
        before = write_archive(lab.store, lab.study, lab.ids, tmp_path / "out")
        recorder.epoch(2, losses={}, lr=0.01, seconds=2.0, images_per_second=50.0, memory_mb=250.0)
        lab.finish(recorder)
        after = write_archive(lab.store, lab.study, lab.ids, tmp_path / "out")
        assert (before["trials"][0]["state"], after["trials"][0]["state"]) == ("interrupted", "done")
        assert verify(tmp_path / "out") == after
        with pytest.raises(StoreError, match="archive of study 'does_salt_help' is there: choose another folder for 'other'"):
            write_archive(lab.store, other_study(lab, "other").study, lab.ids, tmp_path / "out")

    def test_a_study_without_a_record_makes_no_folder(self, lab, tmp_path):
        with pytest.raises(StoreError, match="has no record of study 'does_salt_help'; run it first"):
            write_archive(lab.store, lab.study, lab.ids, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestTakingItIn:
    def test_the_records_and_files_are_those_of_the_folder_they_came_from(self, trained, archive, tmp_path):
        store = Store(tmp_path / "there")
        done = import_archive(archive, store)
        assert (done.new, done.grown, done.same, done.launches) == (2, 0, 0, 1)
        theirs, ours = content(trained.store.root), content(store.root)
        assert theirs.items() <= ours.items()
        assert set(ours) - set(theirs) == {f"studies/{trained.study.name}/{trained.study.source.name}"}
        assert [store.record(trial_id).metrics for trial_id in trained.ids] == [trained.store.record(i).metrics for i in trained.ids]

    def test_twice_changes_nothing(self, archive, tmp_path):
        store = Store(tmp_path / "there")
        import_archive(archive, store)
        before = content(store.root)
        again = import_archive(archive, store)
        assert (again.new, again.grown, again.same, again.files, again.launches) == (0, 0, 2, 0, 0)
        assert content(store.root) == before

    def test_into_the_folder_it_came_from_it_changes_nothing_though_the_archive_has_no_paths(self, lab, tmp_path):
        recorder = lab.begin(0, lab.launch(), range(1, 2))
        recorder.failed(f"{tmp_path}/cells/val.json: no such file")
        write_archive(lab.store, lab.study, lab.ids, tmp_path / "out")
        before = content(lab.store.root / "trials")
        assert import_archive(tmp_path / "out", lab.store).same == 1
        assert content(lab.store.root / "trials") == before

    def test_the_beginning_of_a_record_grows_and_a_longer_one_stays(self, lab, tmp_path):
        recorder = lab.begin(0, lab.launch(), range(1, 2))
        write_archive(lab.store, lab.study, lab.ids, tmp_path / "early")
        store = Store(tmp_path / "there")
        import_archive(tmp_path / "early", store)
        assert store.record(A).state == "interrupted"
        lab.finish(recorder)
        write_archive(lab.store, lab.study, lab.ids, tmp_path / "late")
        assert import_archive(tmp_path / "late", store).grown == 1
        assert store.record(A).metrics == lab.store.record(A).metrics
        before = store.journal(A).path.read_bytes()
        assert import_archive(tmp_path / "early", store).same == 1
        assert store.journal(A).path.read_bytes() == before

    def test_another_training_of_the_same_trial_is_refused_before_anything_is_written(self, trained, archive, tmp_path):
        there = type(trained)(Store(tmp_path / "there"), trained.study, trained.ids)
        there.train(1, there.launch())
        before = content(there.store.root)
        with pytest.raises(StoreError, match=rf"trials/{B}/record.jsonl: line 1 \('start'\) differs.*another training.*--store FOLDER"):
            import_archive(archive, there.store)
        assert content(there.store.root) == before

    def test_a_trial_that_is_being_run_here_is_left_to_its_process(self, archive, tmp_path):
        store = Store(tmp_path / "there")
        with store.lock(A), pytest.raises(TrialBusy, match=f"trial {A} is being run by process"):
            import_archive(archive, store)
        assert not store.journal(A).size() and not store.journal(B).size()

    def test_records_that_were_set_aside_come_along_and_an_older_import_is_set_aside_too(self, trained, archive, tmp_path):
        import_archive(archive, old := Store(tmp_path / "there"))
        trained.store.set_aside(A, 1)
        trained.train(0, trained.store.new_launch(trained.study, trained.ids, set_aside={A: 1}))
        write_archive(trained.store, trained.study, trained.ids, tmp_path / "second", detections=True, as_is=True)
        for store in (old, Store(tmp_path / "fresh")):
            import_archive(tmp_path / "second", store)
            assert import_archive(tmp_path / "second", store).same == 3
            theirs = content(trained.store.root / "trials")
            assert content(store.root / "trials") == theirs and f"{A}/earlier/1/record.jsonl" in theirs

    def test_what_was_exported_before_there_were_manifests_is_still_a_results_folder(self, trained, archive, tmp_path):
        (archive / "manifest.json").unlink()
        assert Store(archive).record(A).metrics == trained.store.record(A).metrics
        with pytest.raises(StoreError, match="manifest.json: is not there.*salt-lab sync FOLDER"):
            import_archive(archive, Store(tmp_path / "there"))


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def edit_manifest(folder: Path, change) -> None:
    found = json.loads((folder / "manifest.json").read_text())
    change(found)
    (folder / "manifest.json").write_text(json.dumps(found))


DAMAGE = {
    "a changed byte": (lambda f: spoil(f / "trials" / A / "detections.json.gz"), "detections.json.gz: damaged"),
    "a missing file": (lambda f: (f / "trials" / B / "record.jsonl").unlink(), f"trials/{B}/record.jsonl: listed in manifest.json and not there"),
    "a file more": (lambda f: (f / "trials" / A / "weights.pth").touch(), "weights.pth: is not in manifest.json"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json: is not there"),
    "half a manifest": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json: damaged, it is no JSON"),
    "a foreign manifest": (lambda f: (f / "manifest.json").write_text("{}"), "is no manifest of a study archive"),
    "a later format": (lambda f: edit_manifest(f, lambda m: m.update(version=2)), "version 2, and this salt-lab reads 1: update"),
    "a list where a mapping was": (lambda f: edit_manifest(f, lambda m: m.update(files=[])), "'files' is missing or of another kind"),
    "a path that leaves the folder": (
        lambda f: edit_manifest(f, lambda m: m["files"].update({"../x": {"bytes": 0, "sha256": ""}})), "lists '../x', which is no file"
    ),
    "a link out of the folder": (
        lambda f: (f / "trials" / A / "probe.npz").unlink() or (f / "trials" / A / "probe.npz").symlink_to("/etc/hostname"), "is a link",
    ),
    "another trial's journal": (
        lambda f: (shutil.copy(f / "trials" / A / "record.jsonl", f / "trials" / B / "record.jsonl"), relist(f)), f"{B}/record.jsonl: is the journal"
    ),
}  # fmt: skip


def relist(folder: Path) -> None:
    """The manifest's hashes made to fit, as somebody would who meddles."""

    def change(manifest):
        for name, entry in manifest["files"].items():
            entry.update(bytes=(folder / name).stat().st_size, sha256=digest(folder / name))

    edit_manifest(folder, change)


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_or_foreign_archive_is_refused_by_the_name_of_the_file(archive, tmp_path, what):
    damage, words = DAMAGE[what]
    damage(archive)
    with pytest.raises(StoreError, match=words):
        import_archive(archive, Store(tmp_path / "there"))
    assert not (tmp_path / "there").exists()


def test_text_that_others_put_beside_the_archive_is_no_damage(archive, tmp_path):
    (archive / "README.md").write_text("our results")
    assert import_archive(archive, Store(tmp_path / "there")).new == 2


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An MLflow database without runs: making its tables takes seconds."""
    from salt_lab.record.mlflow_store import MlflowStore

    folder = tmp_path_factory.mktemp("empty")
    MlflowStore(Store(folder), f"sqlite:///{folder}/mlflow.db")
    return folder / "mlflow.db"


class TestIntoAnotherMlflow:
    """From one SQLite store to a fresh one, compared run by run through MLflow's own client."""

    @pytest.fixture
    def two(self, empty, tmp_path):
        """URIs of two fresh MLflow stores."""
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            shutil.copy(empty, tmp_path / name / "mlflow.db")
        return [f"sqlite:///{tmp_path / name}/mlflow.db" for name in ("one", "other")]

    def runs(self, uri, study):
        """(kind, trial or launch, record) -> all that MLflow has of the run."""
        from mlflow import MlflowClient

        client, found = MlflowClient(tracking_uri=uri), {}
        for run in client.search_runs([client.get_experiment_by_name(study).experiment_id]):
            tags = dict(run.data.tags)
            key = tuple(tags.get(f"salt_lab.{name}") for name in ("kind", "trial_id", "launch_id", "record"))
            assert key not in found, "a run is there twice"
            histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
            points = {name: [(p.step, p.timestamp, p.value) for p in history] for name, history in histories.items()}
            files = content(Path(run.info.artifact_uri.removeprefix("file://")))
            times = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time, run.info.user_id)
            found[key] = {"id": run.info.run_id, "times": times, "params": run.data.params, "points": points, "tags": tags, "files": files}
        return found

    def test_every_run_arrives_whole_and_once_and_tells_its_former_id(self, trained, two, tmp_path):
        from salt_lab.record.mlflow_store import sync

        trained.store.set_aside(A, 1)
        second = trained.store.new_launch(trained.study, trained.ids, set_aside={A: 1})
        trained.finish(trained.begin(0, second, range(1, 3)), ap=33.0)
        assert not sync(trained.store, two[0]).failures
        write_archive(trained.store, trained.study, trained.ids, tmp_path / "out", detections=True, as_is=True)
        store, study = Store(tmp_path / "there"), trained.study.name
        for _ in range(2):
            done = import_archive(tmp_path / "out", store)
            report = sync(store, two[1], study=done.study, trial_ids=done.trial_ids)
            assert not report.failures
            before, after = self.runs(two[0], study), self.runs(two[1], study)
            assert before.keys() == after.keys() and len(before) == 5  # two launches, two trials, one record that was set aside
            parents = {run["id"]: key for found in (before, after) for key, run in found.items()}
            for key, theirs in before.items():
                ours = after[key]
                assert [ours[part] for part in ("times", "params", "points", "files")] == [
                    theirs[part] for part in ("times", "params", "points", "files")
                ]
                if key[0] == "trial":
                    assert ours["tags"].pop("salt_lab.original_run_id") == theirs["id"]
                    assert parents[ours["tags"].pop("mlflow.parentRunId")] == parents[theirs["tags"].pop("mlflow.parentRunId")]
                assert ours["tags"] == theirs["tags"]
        assert report.changed == report.points == report.artifacts == 0

    def test_exported_once_more_from_there_the_first_run_ids_are_still_told(self, trained, two, tmp_path):
        from salt_lab.record.mlflow_store import sync

        sync(trained.store, two[0])
        first = write_archive(trained.store, trained.study, trained.ids, tmp_path / "out")
        import_archive(tmp_path / "out", store := Store(tmp_path / "there"))
        sync(store, two[1], study=trained.study.name, trial_ids=trained.ids)
        second = write_archive(store, trained.study, trained.ids, tmp_path / "again")
        assert [trial["run_id"] for trial in second["trials"]] == [trial["run_id"] for trial in first["trials"]]
        assert None not in [trial["run_id"] for trial in first["trials"]]
