"""Where two runs disagree: the measure, the boxes, and the pictures of a study from its records, detections and probes."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from salt_lab.data import prepare
from salt_lab.errors import DataError
from salt_lab.evaluate.accumulate import numbers
from salt_lab.evaluate.ground_truth import load_truth
from salt_lab.evaluate.matching import Matches, match
from salt_lab.record.journal import read_json
from salt_lab.report.figures import save_figures
from salt_lab.report.pictures import disagreement_sheet, disagreements, draw_disagreement, jpeg, load_pair, png, study_pictures
from salt_lab.report.pictures.disagreement import judge
from salt_lab.report.pictures.pair import Pair, Run
from salt_lab.report.pictures.side_by_side import side_by_side
from salt_lab.report.pictures.tags import Box, place_tags
from salt_lab.report.results import load_results

IMAGES, SIDE = 12, 100


@pytest.fixture
def truth() -> dict:
    """Twelve images, a box of each of two classes on each."""
    boxes = [(image, label, [5 + 45 * (label - 1), 10 + image, 40, 30]) for image in range(1, IMAGES + 1) for label in (1, 2)]
    return {
        "images": [{"id": i, "width": SIDE, "height": SIDE, "file_name": f"{i}.png"} for i in range(1, IMAGES + 1)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": 1200, "iscrowd": 0} for n, (i, c, b) in enumerate(boxes, 1)
        ],
    }


def perfect(truth: dict) -> list[dict]:
    """Every object found in its place, the surest first in the file."""
    return [
        {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"], "score": 0.9 - 0.01 * n}
        for n, row in enumerate(truth["annotations"])
    ]


def noisy(truth: dict, seed: int = 0) -> list[dict]:
    """Objects found somewhat beside their place, some of another class, and clutter."""
    generator = np.random.default_rng(seed)
    rows = [
        {**row, "bbox": [float(v) for v in np.array(row["bbox"]) + generator.normal(0, 3, 4)], "score": float(generator.random())}
        for row in perfect(truth) * 3
    ]
    return [{**row, "category_id": 3 - row["category_id"]} if n % 5 == 0 else row for n, row in enumerate(rows)]


def a_pair(truth: dict, baseline: list[dict], variant: list[dict], images: Path | None = None) -> Pair:
    objects = load_truth(truth)
    runs = []
    for name, rows in (("off", baseline), ("on", variant)):
        found = match(objects, rows)
        runs.append(Run(name, found, np.array([row["bbox"] for row in rows], float)[found.det_index_D]))
    return Pair(objects, *runs, images=images)


# The measure


def test_a_run_agrees_with_itself_and_with_the_same_boxes_on_another_scale_of_scores(truth):
    rows = noisy(truth)
    squashed = [{**row, "score": row["score"] ** 3 / 7} for row in rows]
    for other in (rows, squashed):
        found = disagreements(match(truth, other), match(truth, rows))
        assert len(found) == IMAGES and all(one.total == 0 for one in found)


def test_an_object_that_one_sure_run_misses_is_worth_one_and_its_image_comes_first(truth):
    rows = perfect(truth)
    without = [row for row in rows if (row["image_id"], row["category_id"]) != (7, 2)]
    first, *others = disagreements(match(truth, without), match(truth, rows))
    assert (first.image_id, first.total, first.gain, first.alarms) == (7, pytest.approx(1), pytest.approx(-1), 0)
    assert all(one.total == pytest.approx(0) for one in others)
    assert disagreements(match(truth, rows), match(truth, without))[0].gain == pytest.approx(1), "the other way round it is a gain"


def test_the_worth_of_objects_is_the_ap_but_for_cocos_sampling(truth):
    for seed in range(5):
        found = match(truth, noisy(truth, seed))
        worth_G = judge(found).worth_G
        by_class = [worth_G[found.obj_category_G == category].mean() for category in range(2)]
        assert 100 * np.mean(by_class) == pytest.approx(numbers(found).AP, abs=2.5)


def test_a_sure_false_alarm_counts_and_one_that_is_not_shown_does_not(truth):
    rows = perfect(truth)
    clutter = {"image_id": 4, "category_id": 1, "bbox": [60, 70, 20, 20]}
    sure, unsure = (disagreements(match(truth, [*rows, {**clutter, "score": s}]), match(truth, rows)) for s in (0.99, 0.01))
    assert sure[0].image_id == 4 and 0.9 < sure[0].alarms <= 1
    assert all(one.alarms == 0 for one in unsure)


def test_runs_on_different_objects_are_not_compared(truth):
    fewer = {**truth, "annotations": truth["annotations"][:-1]}
    with pytest.raises(ValueError, match="different ground truth"):
        disagreements(match(truth, perfect(truth)), match(fewer, perfect(fewer)))


def test_a_run_without_detections_is_worth_nothing_and_shows_nothing(truth):
    judged = judge(match(truth, []))
    assert not judged.worth_G.any() and len(judged.shown_D) == 0


# The boxes


def test_every_object_is_right_once_or_missed_and_wrong_boxes_are_what_is_left(truth):
    pair = a_pair(truth, perfect(truth), noisy(truth))
    for image in range(1, IMAGES + 1):
        drawn = side_by_side(pair, image)
        assert drawn.counts("baseline") == (2, 0, 0) and len(drawn.objects) == 2
        right, wrong, missed = drawn.counts("variant")
        assert right + missed == 2
        of = pair.variant.matches
        assert right + wrong == int((pair.variant.judged.shown_D & (of.det_image_D == image - 1)).sum())


def test_right_wrong_and_missed_differ_in_line_style_and_a_page_without_pictures_is_grey(truth):
    rows = perfect(truth)
    moved = [{**row, "bbox": [60, 60, 20, 20]} if (row["image_id"], row["category_id"]) == (1, 1) else row for row in rows]
    axes = Figure().subplots(1, 3)
    drawn = draw_disagreement(a_pair(truth, rows, moved), 1, axes)
    assert drawn.counts("variant") == (1, 1, 1)
    assert len({str(patch.get_linestyle()) for patch in axes[2].patches}) == 3
    assert len({str(patch.get_linestyle()) for patch in axes[1].patches}) == 1
    assert len(axes[2].lines) == 1, "a cross on the wrong one"
    assert not axes[0].images and axes[0].get_facecolor()[:3] == pytest.approx((0.706,) * 3, abs=1e-3)


def test_the_sheet_shows_the_most_disputed_images_and_nothing_where_none_is(truth):
    pair = a_pair(truth, perfect(truth), noisy(truth))
    drawn = disagreement_sheet(pair, Figure(layout="constrained"), count=3)
    totals = [one.total for one, _ in drawn]
    assert len(drawn) == 3 and totals == sorted(totals, reverse=True)
    assert [one for one, _ in drawn] == disagreements(pair.variant.matches, pair.baseline.matches)[:3]
    assert disagreement_sheet(a_pair(truth, perfect(truth), perfect(truth)), Figure(layout="constrained")) == []


def test_names_on_boxes_cover_no_other_name_and_stay_inside_the_image():
    generator = np.random.default_rng(0)
    kinds = ("right", "wrong", "missed")
    boxes = [Box(kinds[n % 3], *generator.uniform(-5, 90, 2), *generator.uniform(5, 40, 2), n % 2, 0.5) for n in range(40)]
    tags = place_tags(boxes, ("cat", "elephant"), (SIDE, SIDE))
    assert 4 < len(tags) < 30
    for place, one in enumerate(tags):
        assert one.x >= 0 and one.x + one.width <= SIDE and one.y >= 0 and one.y + one.height <= SIDE
        for other in tags[:place]:
            assert one.x + one.width <= other.x or other.x + other.width <= one.x or abs(one.y - other.y) >= one.height


def test_wrong_boxes_in_one_place_share_a_name_tag():
    wrong = [Box("wrong", 10, 10, 30, 30, label, 0.5 - label / 10) for label in (0, 1, 0)]
    assert [tag.words for tag in place_tags(wrong, ("cat", "dog"), (SIDE, SIDE))] == ["× cat, dog"]


# A study's pictures

STUDY = """
    base:
      data: {train_images: 2, val_images: 6, image_size: 48}
      schedule: {epochs: 1}
    axes:
      host: [atss, gfl]
      salt: [false, true]
    seeds: [0]
    compare:
      baseline: {salt: false}
"""


@pytest.fixture
def lab(make_bench, make_study):
    """ATSS is done in both arms, with detections; GFL was never run."""
    bench = make_bench(make_study(STUDY))
    found = read_json(prepare(bench.study.cells[0].trial.data, bench.store.data_dir).val_json)
    bench.ids = {}
    for salt in (False, True):
        rows = noisy(found, seed=int(salt))
        recorder = bench.start(bench.trial(0, host="atss", salt=salt))
        values = numbers(match(found, rows))._asdict()
        recorder.eval(1, {name: None if np.isnan(v) else v for name, v in values.items()})
        spent = {"train_seconds": 1.0, "eval_seconds": 1.0, "peak_memory_mb": 1.0}
        recorder.done(metrics={name: None if np.isnan(v) else v for name, v in values.items()}, epochs=1, **spent)
        (bench.store.trial_dir(recorder.trial_id) / "detections.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
        bench.ids[salt] = recorder.trial_id
    return bench


def pictures(lab, **options):
    return study_pictures(load_results(lab.study, lab.store), lab.store, **options)


def test_a_study_gets_the_pictures_that_its_records_allow_and_a_reason_for_each_other(lab):
    found = pictures(lab)
    assert [picture.name for picture in found.made] == [
        "gains",
        "forest",
        "learning_curves",
        "ap_against_gflops",
        "ap_against_train_minutes",
        "score_iou_atss_salt",
        "disagreement_atss_salt",
    ]
    assert found.missing.pop("ap_against_inference_ms") == "no record has inference_ms"
    assert "no such probe" in found.missing.pop("points_atss_salt")
    assert found.missing == dict.fromkeys(
        ("score_iou_gfl_salt", "points_gfl_salt", "disagreement_gfl_salt"), "no seed is done in both arms"
    )
    assert all(picture.alt and picture.caption and str(lab.store.root) not in picture.alt + picture.caption for picture in found.made)
    assert found.of("score_iou_atss_salt").numbers[0].source == "detections", "there is no probe"
    assert found.of("forest").numbers[0].method == "images"


def test_the_end_of_a_run_draws_from_the_records_alone(lab, monkeypatch, tmp_path):
    monkeypatch.setattr("salt_lab.report.pictures.pairs.matches_of", lambda *_, **__: pytest.fail("read detections"))
    files = save_figures(load_results(lab.study, lab.store), lab.store, tmp_path)
    assert {path.stem for path in files} == {"gains", "forest", "learning_curves", "ap_against_gflops", "ap_against_train_minutes"}
    assert not (lab.store.root / "cache").exists()


def test_a_picture_gives_the_same_bytes_twice_and_photos_are_smaller_as_jpeg(lab):
    sheet = pictures(lab).of("disagreement_atss_salt")
    first = png(sheet, dpi=60)
    assert first == png(sheet, dpi=60) and first.startswith(b"\x89PNG")
    assert 1.5 * len(jpeg(sheet, dpi=60)) < len(first)


def test_a_pair_has_its_pictures_and_does_without_them(lab):
    results = load_results(lab.study, lab.store)
    pair = load_pair(results, lab.store, lab.ids[True], lab.ids[False], ("atss", "atss + SALT"))
    assert pair.picture(1).shape == (48, 48, 3) and pair.size(1) == (48, 48)
    assert isinstance(pair.variant.matches, Matches) and pair.baseline.name == "atss"
    shutil.rmtree(pair.images)
    assert pair.picture(1) is None and disagreement_sheet(pair, Figure(layout="constrained"), count=1)
    assert replace(pair, images=None).picture(1) is None


def test_an_unfinished_trial_is_no_half_of_a_pair(lab):
    results = load_results(lab.study, lab.store)
    new = str(results.frame.loc[results.frame["state"] == "new", "trial_id"].iloc[0])
    with pytest.raises(DataError, match="not finished"):
        load_pair(results, lab.store, new, lab.ids[False])


def test_a_study_of_more_cells_than_a_picture_has_room_for_points_to_the_table(lab, monkeypatch):
    monkeypatch.setattr("salt_lab.report.pictures.study.MOST_LINES", 1)
    monkeypatch.setattr("salt_lab.report.pictures.pairs.MOST_PAIRS", 0)
    found = pictures(lab)
    assert [picture.name for picture in found.made] == ["gains"], "one line fits"
    assert "2 lines, and a picture has room for 1: see the table" in found.missing["forest"]
    assert "only the first" in found.missing["disagreement_atss_salt"]
