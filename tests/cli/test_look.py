"""``salt-lab look``: a trained detector on images that chose nothing; the record says whose weights they were, and readers of records read it."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.data import fingerprint, prepare
from salt_lab.record.fold import COCO_NAMES
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import EmbeddedData, Trial, canonical, trial_id
from salt_lab.train.trial import run_trial

STUDY = """\
question: q?
base:
  backbone: {{name: resnet18, base_channels: 8}}
  channels: 64
  head_convs: 1
  data: {{train: {here}/train.json, val: {here}/val.json, images: {images}/train, val_images: {images}/val}}
  schedule: {{epochs: 4, batch: 2, image_size: [64, 64], optimizer: adamw, lr: 0.004, eval_every: 2{more}}}
  host: fcos
axes: {{salt.enabled: [false, true]}}
compare: {{baseline: {{salt.enabled: false}}}}
"""


def written(folder: Path, more: str = "") -> Path:
    """A study of photos: the embedded set's, as COCO files. ``again.json`` are the val images under another title, copied to another folder."""
    drawn = prepare(EmbeddedData(train_images=24, val_images=6, image_size=64), folder / "drawn")
    for name, source in {"train": drawn.train_json, "val": drawn.val_json}.items():
        (folder / f"{name}.json").write_bytes(source.read_bytes())
    again = json.loads(drawn.val_json.read_bytes())
    (folder / "again.json").write_text(json.dumps(again | {"info": {"description": "the same images"}}))
    shutil.copytree(drawn.val_images, folder / "copies")
    study = folder / "s.yaml"
    study.write_text(STUDY.format(here=folder, images=drawn.train_images.parent, more=more))
    assert (drawn.train_images.name, drawn.val_images.name) == ("train", "val")
    return study


def done(store: Store, trial: Trial) -> FolderRecorder:
    """A trial that ended, without a checkpoint."""
    content = fingerprint(trial.data)
    recorder = FolderRecorder(store, trial_id(trial, content))
    recorder.start(trial=canonical(trial), study="s", launch_id="l", data_fingerprint=content, provenance={})
    recorder.done(metrics={"AP": 1.0}, train_seconds=1, eval_seconds=1, peak_memory_mb=1, epochs=4)
    return recorder


def detections(store: Store, trial_id: str) -> list:
    return json.loads(gzip.decompress((store.trial_dir(trial_id) / "detections.json.gz").read_bytes()))


@pytest.mark.parametrize("more", ["", ", ema: 0.9"], ids=["last weights", "running mean"])
def test_the_same_images_under_another_name_give_the_same_boxes_and_the_same_twelve_numbers(
    tmp_path: Path, run: Callable, more: str
) -> None:
    study, store = written(tmp_path, more), Store(tmp_path / "runs")
    _, salt = load_study(study).trials()
    trained = run_trial(salt, store, study="s", launch_id="l", device="cpu")

    copies = [tmp_path / "again.json", "--images", tmp_path / "copies", "--store", store.root]
    looked = run("look", study, *copies)
    assert looked.exit_code == 0, looked.output
    assert f"{trained.trial_id} (salt=on seed=0): " in looked.output and "1 evaluated now, 1 not finished" in looked.output
    [new] = store.looks.trial_ids()
    record = store.looks.record(new)
    assert detections(store.looks, new) == detections(store, trained.trial_id) != []
    assert {name: record.metrics[name] for name in COCO_NAMES} == {name: trained.metrics[name] for name in COCO_NAMES}
    assert record.look["trial_id"] == trained.trial_id and (record.look["epoch"], record.look["images"]) == (4, "again.json")
    assert record.epochs == trained.epochs and record.provenance == trained.provenance and record.training_codes == trained.training_codes
    assert list(record.evals) == [4], "what it was at epoch 2 on these images nobody knows"
    assert store.trial_ids() == [trained.trial_id], "nothing takes a look for a trained trial"

    assert "1 evaluated before" in run("look", study, *copies).output and store.looks.record(new) == record
    words = shlex.split(looked.output.partition("next: salt-lab ")[2])
    table = run(*words)
    assert table.exit_code == 0 and new in table.output
    assert "All rows are looks at again.json" in table.output
    refused = run("run", *words[1:-2], "--store", store.looks.root, "--no-mlflow")
    assert refused.exit_code == 2 and "holds looks" in refused.output


def test_weights_that_were_trained_anew_are_looked_at_anew(tmp_path: Path, run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    study, store = written(tmp_path), Store(tmp_path / "runs")
    plain, _ = load_study(study).trials()
    seen = iter([{"AP": 10.0}, {"AP": 20.0}])
    monkeypatch.setattr("salt_lab.train.look.check_checkpoint", lambda *_: tmp_path)
    monkeypatch.setattr("salt_lab.train.look._evaluate", lambda *_: next(seen))
    look = ["look", study, tmp_path / "again.json", "--images", tmp_path / "copies", "--store", store.root]
    first = done(store, plain)
    assert "AP 10.0" in run(*look).output
    store.set_aside(first.trial_id, 1)
    done(store, plain)
    assert "AP 20.0" in run(*look).output
    [new] = store.looks.trial_ids()
    assert (store.looks.record(new).metrics["AP"], store.looks.record(new).number) == (20.0, 2)
    assert store.looks.earlier(new)[1].record(new).metrics["AP"] == 10.0, "nothing that was recorded is lost"


def test_more_seeds_of_looks_are_trained_where_the_trials_are_on_the_images_of_the_study(
    tmp_path: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, store = written(tmp_path), Store(tmp_path / "results")
    monkeypatch.setattr("salt_lab.train.look.check_checkpoint", lambda *_: tmp_path)
    monkeypatch.setattr("salt_lab.train.look._evaluate", lambda *_: {"AP": 10.0})
    for trial in load_study(study).trials():
        done(store, trial)
    looked = run("look", study, tmp_path / "again.json", "host=fcos", "--images", tmp_path / "copies", "--store", store.root)
    words = shlex.split(looked.output.partition("next: salt-lab ")[2])
    said = run("power", *words[1:]).output
    command, _, then = said.partition("next: salt-lab ")[2].partition("   # ")
    assert shlex.split(command) == ["run", str(study), "host=fcos", "seeds=[0,1,2]", "--store", str(store.root)]
    assert then == "what is done is kept; then salt-lab look\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("val.json", "the study was evaluated on these images already"),
        ("again.json", "6 of its 6 images were evaluated on while it trained"),
        ("nowhere.json", "annotation file cannot be read"),
    ],
)
def test_images_that_are_no_test_are_refused(tmp_path: Path, run: Callable, name: str, said: str) -> None:
    study = written(tmp_path)
    (tmp_path / "runs").mkdir()
    refused = run("look", study, tmp_path / name, "--store", tmp_path / "runs")
    assert refused.exit_code == 2 and said in refused.output


def test_images_that_were_trained_on_are_refused(tmp_path: Path, run: Callable) -> None:
    study = written(tmp_path)
    (tmp_path / "runs").mkdir()
    images = load_study(study).trials()[0].data.images
    refused = run("look", study, tmp_path / "train.json", "--images", images, "--store", tmp_path / "runs")
    assert refused.exit_code == 2 and "24 of its 24 images were trained on" in refused.output


def test_drawn_images_have_no_test_split(tmp_path: Path, run: Callable) -> None:
    refused = run("look", Path(__file__).parents[2] / "experiments" / "quickstart.yaml", "x.json")
    assert refused.exit_code == 2 and "its images are drawn" in refused.output


def test_a_study_that_trained_nothing_has_nothing_to_look_with(tmp_path: Path, run: Callable) -> None:
    study = written(tmp_path)
    (tmp_path / "runs").mkdir()
    refused = run("look", study, tmp_path / "again.json", "--images", tmp_path / "copies", "--store", tmp_path / "runs")
    assert refused.exit_code == 2 and "none of its 2 trials is finished" in refused.output
    assert not list((tmp_path / "runs").iterdir())


def test_a_trial_whose_checkpoint_is_gone_is_named_and_leaves_no_record(tmp_path: Path, run: Callable) -> None:
    study, store = written(tmp_path), Store(tmp_path / "runs")
    name = done(store, load_study(study).trials()[0]).trial_id

    gone = run("look", study, tmp_path / "again.json", "--images", tmp_path / "copies", "--store", store.root)
    assert gone.exit_code == 1 and f"{name} (salt=off seed=0): not evaluated" in gone.output
    assert "no checkpoint of epoch 4 is left" in gone.output and "1 cannot be evaluated" in gone.output
    assert store.looks.trial_ids() == []


def test_a_path_is_taken_as_it_is_and_not_as_yaml(tmp_path: Path, run: Callable) -> None:
    study, store = written(tmp_path), Store(tmp_path / "runs")
    done(store, load_study(study).trials()[0])
    (tmp_path / "again.json").rename(tmp_path / "a: b #1.json")
    gone = run("look", study, tmp_path / "a: b #1.json", "--images", tmp_path / "copies", "--store", store.root)
    assert gone.exit_code == 1 and "no checkpoint of epoch 4 is left" in gone.output


def test_cells_that_differ_in_their_val_images_cannot_be_looked_at_together(tmp_path: Path, run: Callable) -> None:
    study = written(tmp_path)
    (tmp_path / "runs").mkdir()
    text = study.read_text().replace("axes: {", f"axes: {{data.val: [{tmp_path}/val.json, {tmp_path}/again.json], ")
    study.write_text(text)
    refused = run("look", study, tmp_path / "again.json", "--store", tmp_path / "runs")
    assert refused.exit_code == 2 and "its cells differ in their val images" in refused.output
