"""Matches of finished trials from what lies in a results folder; a reason in words where something is missing or does not fit."""

from __future__ import annotations

import gzip
import json
import os
import shutil

import numpy as np
import pytest

from salt_lab.data import prepare
from salt_lab.evaluate.accumulate import numbers
from salt_lab.evaluate.bootstrap import paired
from salt_lab.evaluate.matching import Matches, match
from salt_lab.record.journal import read_json
from salt_lab.report.matches import matches_of
from salt_lab.report.results import load_results

STUDY = """
    base:
      data: {DATA}
      schedule: {epochs: 1}
    axes:
      salt: [false, true]
    seeds: [0, 1]
    compare:
      baseline: {salt: false}
"""
SPENT = {"train_seconds": 1.0, "eval_seconds": 1.0, "peak_memory_mb": 1.0}
MARKS = "{train_images: 2, val_images: 6, image_size: 48}"


class Lab:
    """A study on a few small images whose trials "found" every object, somewhat beside its place."""

    def __init__(self, bench, truth, text: str) -> None:
        self.bench, self.store, self.study, self.truth, self.text = bench, bench.store, bench.study, truth, text

    def finish(self, seed: int, salt: bool, beside: float, truth=None) -> str:
        """A finished trial with its detections; returns its id."""
        truth = truth or self.truth
        generator = np.random.default_rng([seed, salt])
        rows = [
            {"image_id": row["image_id"], "category_id": row["category_id"], "score": round(float(generator.random()), 3)}
            | {"bbox": [float(v) for v in np.array(row["bbox"]) + generator.normal(0, beside, 4)]}
            for row in truth["annotations"]
        ]
        found = numbers(match(truth, rows))._asdict()
        recorder = self.bench.start(self.bench.trial(seed, salt=salt))
        recorder.done(metrics={k: None if np.isnan(v) else v for k, v in found.items()}, epochs=1, **SPENT)
        self.write(recorder.trial_id, gzip.compress(json.dumps(rows).encode()))
        return recorder.trial_id

    def write(self, trial_id: str, content: bytes) -> None:
        (self.store.trial_dir(trial_id) / "detections.json.gz").write_bytes(content)

    def found(self, **options):
        return matches_of(load_results(self.study, self.store), self.store, **options)


@pytest.fixture
def lab(make_bench, make_study) -> Lab:
    text = STUDY.replace("{DATA}", MARKS)
    bench = make_bench(make_study(text))
    return Lab(bench, read_json(prepare(bench.study.cells[0].trial.data, bench.store.data_dir).val_json), text)


@pytest.fixture
def coco_lab(make_bench, make_study, lab, tmp_path, monkeypatch) -> Lab:
    """The same pictures as anybody's own COCO files, in a folder that a variable names."""
    folder = tmp_path / "mine"
    shutil.copytree(next(lab.store.data_dir.iterdir()), folder)
    monkeypatch.setenv("MY_DATA", str(folder))
    data = "{train: '${MY_DATA}/train.json', val: '${MY_DATA}/val.json', images: '${MY_DATA}/train', val_images: '${MY_DATA}/val'}"
    text = STUDY.replace("{DATA}", data)
    return Lab(make_bench(make_study(text, "mine")), lab.truth, text)


def test_a_finished_trial_gives_the_ap_of_its_record_and_others_say_their_state(lab):
    done = lab.finish(0, True, beside=2.0)
    found = lab.found()
    assert abs(numbers(found[done]).AP - lab.store.record(done).metrics["AP"]) < 1e-9
    assert sorted(map(str, found.values()))[1:] == ["the trial is not finished (new)"] * 3
    assert found.matches(done) is found[done] and all(found.matches(other) is None for other in found if other != done)


def test_two_trials_on_the_same_data_can_be_compared_image_by_image(lab):
    variant, baseline = lab.finish(0, True, beside=1.0), lab.finish(0, False, beside=4.0)
    found = lab.found()
    assert found.why_not_paired(variant, baseline) == ""
    recorded = [lab.store.record(trial_id).metrics["AP"] for trial_id in (variant, baseline)]
    assert paired(found[variant], found[baseline], resamples=5).values["AP"] == pytest.approx(recorded[0] - recorded[1])


def test_the_second_time_nothing_is_matched_again_and_without_the_cache_the_numbers_are_the_same(lab, monkeypatch):
    done = lab.finish(0, True, beside=2.0)
    first = lab.found()[done]
    with monkeypatch.context() as patch:
        patch.setattr("salt_lab.report.matches.match", lambda *_: pytest.fail("matched again"))
        kept = lab.found()[done]
    for name, value in vars(first).items():
        np.testing.assert_array_equal(getattr(kept, name), value)
    (cached,) = (lab.store.root / "cache" / "matches").iterdir()
    cached.write_bytes(b"half a file")
    assert isinstance(lab.found()[done], Matches)
    shutil.rmtree(lab.store.root / "cache")
    assert isinstance(lab.found()[done], Matches)


def test_new_detections_are_not_answered_from_the_cache(lab):
    done = lab.finish(0, True, beside=2.0)
    lab.found()
    lab.write(done, gzip.compress(b"[]"))
    assert "give AP 0.000, its record" in lab.found()[done]


def test_an_export_without_detections_says_so_and_names_no_folder_of_this_machine(lab):
    done = lab.finish(0, True, beside=2.0)
    os.remove(lab.store.trial_dir(done) / "detections.json.gz")
    reason = lab.found()[done]
    assert f"no detections here (trials/{done}/detections.json.gz" in reason and str(lab.store.root) not in reason


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"[{"), gzip.compress(b"[]")[:-4], gzip.compress(b"{}")],
    ids=["empty", "no gzip", "no JSON", "cut off", "no list"],
)
def test_damaged_detections_are_a_reason(lab, content):
    done = lab.finish(0, True, beside=2.0)
    lab.write(done, content)
    assert "cannot be read" in lab.found()[done]


def test_detections_without_a_field_or_of_unknown_images_are_a_reason(lab):
    done = lab.finish(0, True, beside=2.0)
    lab.write(done, gzip.compress(b'[{"image_id": 1}]'))
    assert "detection 0" in lab.found()[done]
    lab.write(done, gzip.compress(b'[{"image_id": 999, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]'))
    assert "999" in lab.found()[done]


def test_the_embedded_set_is_drawn_again_where_it_is_gone(lab):
    done = lab.finish(0, True, beside=2.0)
    shutil.rmtree(lab.store.data_dir)
    assert isinstance(lab.found()[done], Matches)


def test_another_generator_of_the_embedded_set_is_a_reason(lab, monkeypatch):
    done = lab.finish(0, True, beside=2.0)
    results = load_results(lab.study, lab.store)
    monkeypatch.setattr("salt_lab.report.matches.fingerprint", lambda data: "marks-of-a-later-version")
    assert "does not draw any more (now marks-of-a-later-version)" in matches_of(results, lab.store)[done]


def test_only_the_asked_trials_are_read(lab):
    first, second = lab.finish(0, True, beside=2.0), lab.finish(1, True, beside=2.0)
    assert set(lab.found(only=[second])) == {second} and set(lab.found()) > {first, second}


def test_a_coco_set_that_was_moved_is_found_by_the_studys_paths(coco_lab, make_study, tmp_path, monkeypatch):
    done = coco_lab.finish(0, True, beside=2.0)
    assert isinstance(coco_lab.found()[done], Matches)
    shutil.move(tmp_path / "mine", tmp_path / "elsewhere")
    monkeypatch.setenv("MY_DATA", str(tmp_path / "elsewhere"))
    coco_lab.study = make_study(coco_lab.text, "mine")
    assert isinstance(coco_lab.found()[done], Matches)


def test_a_coco_set_that_is_not_here_is_a_reason(coco_lab, tmp_path):
    done = coco_lab.finish(0, True, beside=2.0)
    results = load_results(coco_lab.study, coco_lab.store)
    os.remove(tmp_path / "mine" / "val.json")
    assert "annotations are not on this machine" in matches_of(results, coco_lab.store)[done]


def test_annotations_that_were_changed_since_do_not_pass_and_trials_on_different_ones_are_not_compared(coco_lab, tmp_path):
    early = coco_lab.finish(0, True, beside=2.0)
    results = load_results(coco_lab.study, coco_lab.store)
    before = matches_of(results, coco_lab.store)
    changed = {**coco_lab.truth, "annotations": coco_lab.truth["annotations"][::2]}
    (tmp_path / "mine" / "val.json").write_text(json.dumps(changed))
    late = coco_lab.finish(0, False, beside=2.0, truth=changed)
    after = matches_of(load_results(coco_lab.study, coco_lab.store), coco_lab.store)
    assert isinstance(after[late], Matches) and not isinstance(after.get(early), Matches)
    before[late], before.truths[late] = after[late], after.truths[late]
    assert "different annotations" in before.why_not_paired(early, late)
    assert "not among" in before.why_not_paired(early, "0" * 12)
