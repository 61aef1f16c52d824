"""``salt-lab look``: a trained detector on images that chose nothing; the record says whose weights they were, and readers of records read it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.data import prepare
from salt_lab.record.fold import COCO_NAMES
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import EmbeddedData
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
    """A study of photos: the embedded set's, as files in COCO's format. ``again.json`` are the val images under another title."""
    drawn = prepare(EmbeddedData(train_images=24, val_images=6, image_size=64), folder / "drawn")
    for name, source in {"train": drawn.train_json, "val": drawn.val_json}.items():
        (folder / f"{name}.json").write_bytes(source.read_bytes())
    again = json.loads(drawn.val_json.read_bytes())
    (folder / "again.json").write_text(json.dumps(again | {"info": {"description": "the same images"}}))
    study = folder / "s.yaml"
    study.write_text(STUDY.format(here=folder, images=drawn.train_images.parent, more=more))
    assert (drawn.train_images.name, drawn.val_images.name) == ("train", "val")
    return study


def detections(store: Store, trial_id: str) -> list:
    return json.loads(gzip.decompress((store.trial_dir(trial_id) / "detections.json.gz").read_bytes()))


@pytest.mark.parametrize("more", ["", ", ema: 0.9"], ids=["last weights", "running mean"])
def test_the_same_images_under_another_name_give_the_same_boxes_and_the_same_twelve_numbers(
    tmp_path: Path, run: Callable, more: str
) -> None:
    study, store = written(tmp_path, more), Store(tmp_path / "runs")
    _, salt = load_study(study).trials()
    trained = run_trial(salt, store, study="s", launch_id="l", device="cpu")

    looked = run("look", study, tmp_path / "again.json", "--store", store.root)
    assert looked.exit_code == 0, looked.output
    assert "2 trials: 1 evaluated now, 0 before, 0 cannot be, 1 not finished" in looked.output
    [new] = [name for name in store.trial_ids() if name != trained.trial_id]
    record = store.record(new)
    assert detections(store, new) == detections(store, trained.trial_id) != []
    assert {name: record.metrics[name] for name in COCO_NAMES} == {name: trained.metrics[name] for name in COCO_NAMES}
    assert record.note == f"not trained: trial {trained.trial_id} after epoch 4, evaluated on other images"
    assert [epoch["losses"] for epoch in record.epochs.values()] == [epoch["losses"] for epoch in trained.epochs.values()]
    assert list(record.evals) == [4], "what it was at epoch 2 on these images nobody knows"
    assert record.cost["train_seconds"] == trained.cost["train_seconds"] and record.provenance == trained.provenance

    once_more = run("look", study, tmp_path / "again.json", "--store", store.root)
    assert "0 evaluated now, 1 before" in once_more.output and store.record(new) == record
    table = run("table", study, f"data.val={tmp_path / 'again.json'}", "--store", store.root)
    assert table.exit_code == 0 and new in table.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("val.json", "the study was evaluated on these images already"),
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


def test_a_trial_whose_checkpoint_is_gone_is_named_and_leaves_no_record(tmp_path: Path, run: Callable) -> None:
    from salt_lab.data import fingerprint
    from salt_lab.record.recorder import FolderRecorder
    from salt_lab.spec.trial import canonical, trial_id

    study, store = written(tmp_path), Store(tmp_path / "runs")
    trial = load_study(study).trials()[0]
    content = fingerprint(trial.data)
    recorder = FolderRecorder(store, trial_id(trial, content))
    recorder.start(trial=canonical(trial), study="s", launch_id="l", data_fingerprint=content, provenance={})
    recorder.done(metrics={"AP": 1.0}, train_seconds=1, eval_seconds=1, peak_memory_mb=1, epochs=4)

    gone = run("look", study, tmp_path / "again.json", "--store", store.root)
    assert gone.exit_code == 1 and f"{recorder.trial_id} (salt.enabled=off seed=0): not evaluated" in gone.output
    assert "no checkpoint of epoch 4 is left" in gone.output and "1 cannot be" in gone.output
    assert [name for name in store.trial_ids() if store.record(name).state == "done"] == [recorder.trial_id]
