"""Measures of misalignment over a study: from detections and probes, over seeds, against the baseline; and what is said of what is not there."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from salt_lab.data import prepare
from salt_lab.errors import UserError
from salt_lab.evaluate.coco import coco_numbers
from salt_lab.evaluate.probe_data import PROBE, empty_probe, save_probe
from salt_lab.report.page_parts.tables import why_tables
from salt_lab.report.results import load_results
from salt_lab.report.why import Why, why
from salt_lab.report.why_classes import shared
from salt_lab.report.why_measures import ALL, Part
from salt_lab.report.why_table import render

STUDY = """
    question: Why would SALT help?
    base:
      data: {kind: marks, train_images: 1, val_images: 12, image_size: 96}
      schedule: {epochs: 2}
      host: atss
    axes:
      salt: [false, true]
    seeds: [0, 1]
    compare:
      baseline: {salt: false}
"""


class Trained:
    """A study whose trials are done, with detections that are off by as much as the test says."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.val = prepare(bench.trial(0, salt=False).data, bench.store.data_dir).val_json
        self.content = json.loads(self.val.read_text())

    def detections(self, shift: float, seed: int = 0) -> list[dict[str, Any]]:
        """Every object, its box moved right by ``shift`` of its width; scores at random."""
        scores = np.random.default_rng(seed).uniform(0.3, 1, len(self.content["annotations"]))
        boxes = [(a, a["bbox"]) for a in self.content["annotations"]]
        return [
            {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": [x + shift * w, y, w, h], "score": float(score)}
            for (a, (x, y, w, h)), score in zip(boxes, scores, strict=True)
        ]

    def off_by_class(self, shift: float, **special: float | None) -> list[dict[str, Any]]:
        """Detections off by ``shift``, those of a class in ``special`` by that; None: nothing of it is found."""
        names = {category["id"]: category["name"] for category in self.content["categories"]}
        shifts = [special.get(names[a["category_id"]], shift) for a in self.content["annotations"]]
        by_shift = {s: self.detections(s) for s in set(shifts) if s is not None}
        return [by_shift[s][at] for at, s in enumerate(shifts) if s is not None]

    def done(self, seed: int, salt: bool, shift: float) -> Path:
        return self.record(self.bench.trial(seed, salt=salt), self.detections(shift, seed))

    def record(self, trial: Any, rows: list[dict[str, Any]]) -> Path:
        """A finished trial with these detections and the numbers that they give."""
        recorder = self.bench.start(trial)
        metrics = {name: None if math.isnan(v) else v for name, v in coco_numbers(self.val, rows)._asdict().items()}
        recorder.done(metrics=metrics, epochs=1, inference=None, train_seconds=1.0, eval_seconds=1.0, peak_memory_mb=1.0)
        folder = self.bench.store.trial_dir(recorder.trial_id)
        with gzip.open(folder / "detections.json.gz", "wt") as file:
            json.dump(rows, file)
        return folder

    def probe(self, folder: Path, *, salt: bool, coarse: float | list[float] = 0.6, refined: float = 0.8, stuck: bool = False) -> None:
        """Three positive locations for each object: the best-scored one is the worst located; points on the box's sides and on the mark.

        ``stuck``: the coarse box's left and upper side are at the location.
        """
        objects = [a for a in self.content["annotations"] for _ in range(3)]
        corners = np.array([[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in objects)])
        n = len(objects)
        sides = np.stack([corners[:, [0, 1]], corners[:, [2, 3]]], axis=1)
        marks = np.array([a["mark"] for a in objects])
        sides = np.stack([marks, corners[:, [2, 3]]], axis=1) if stuck else sides
        fields = {
            "image_P": [a["image_id"] for a in objects],
            "object_P": [a["id"] for a in objects],
            "category_P": [a["category_id"] for a in objects],
            "object_box_P4": corners,
            "area_P": [a["area"] for a in objects],
            "score_P": np.tile([0.9, 0.5, 0.1], n // 3),
            "class_score_P": np.tile([0.9, 0.5, 0.1], n // 3),
            "iou_P": refined + np.tile([-0.1, 0.0, 0.1], n // 3),
            "coarse_iou_P": np.broadcast_to(np.repeat(coarse, 3) if isinstance(coarse, list) else coarse if salt else np.nan, n),
            "level_P": np.zeros(n, np.int32),
            "stride_P": np.full(n, 8.0),
            "cell_P2": marks,
            "reg_points_PK2": sides if salt else np.zeros((n, 0, 2)),
            "cls_points_PK2": np.stack([marks, marks], axis=1) if salt else np.zeros((n, 0, 2)),
            "mark_P2": marks,
        }
        save_probe(folder / PROBE, replace(empty_probe(), total=n, **{name: np.asarray(value) for name, value in fields.items()}))

    def why(self) -> Why:
        return why(load_results(self.bench.study, self.bench.store), self.bench.store)


@pytest.fixture
def trained(make_bench: Callable, make_study: Callable) -> Trained:
    return Trained(make_bench(make_study(STUDY, "why_study")))


@pytest.fixture
def shifted(trained: Trained) -> Trained:
    """SALT's boxes are off by 0.4 of their width (IoU 0.43: not found at 0.5), the baseline's by 0.05 and 0.1."""
    for seed, shift in enumerate((0.05, 0.1)):
        trained.done(seed, False, shift)
        trained.done(seed, True, 0.4)
    return trained


def test_what_is_only_badly_placed_costs_location_and_nothing_else(shifted: Trained) -> None:
    off, on = shifted.why().rows
    assert off.value(ALL, "ap50").mean == pytest.approx(100) and on.value(ALL, "ap50").mean == 0
    assert on.value(ALL, "error_Loc").mean == pytest.approx(100) and on.value(ALL, "error_Missed").mean == pytest.approx(0)
    assert on.delta(ALL, "error_Loc").delta == pytest.approx(100) and off.deltas is None
    assert off.value(ALL, "olrp_loc").mean == pytest.approx(100 * np.mean([1 - 0.95 / 1.05, 1 - 0.9 / 1.1]), abs=0.01)
    assert math.isnan(on.value(ALL, "olrp_loc").mean) and on.value(ALL, "olrp").mean == 100


def test_the_start_is_the_ap50_that_coco_gives(trained: Trained) -> None:
    rows = trained.detections(0.0)
    rng = np.random.default_rng(5)
    for row in rows:
        row["bbox"] = (np.array(row["bbox"]) * np.exp(rng.normal(0, 0.2, 4))).tolist()
    trained.record(trained.bench.trial(0, salt=False), rows)
    found = trained.why().rows[0]
    assert found.value(ALL, "ap50").mean == pytest.approx(coco_numbers(trained.val, rows).AP50, abs=1e-9)


def test_means_and_spreads_are_over_seeds_and_differences_paired_by_seed(shifted: Trained) -> None:
    off, on = shifted.why().rows
    ious = [0.95 / 1.05, 0.9 / 1.1]
    assert off.seeds == on.seeds == (0, 1)
    assert off.value(ALL, "detections_best_iou").mean == pytest.approx(np.mean(ious))
    assert off.value(ALL, "detections_best_iou").sd == pytest.approx(np.std(ious, ddof=1))
    delta = on.delta(ALL, "detections_best_iou")
    assert delta.delta == pytest.approx(0.6 / 1.4 - np.mean(ious)) and delta.n == 2 and delta.method == "paired"
    assert delta.sd == pytest.approx(np.std(ious, ddof=1)) and delta.low < delta.delta < delta.high


def test_there_is_a_number_for_each_size_and_class_that_has_objects(shifted: Trained) -> None:
    found = shifted.why()
    classes = [category["name"] for category in shifted.content["categories"]]
    assert [part.text for part in found.parts] == ["all", "small", "medium", "large", *classes]
    areas = [a["area"] for a in shifted.content["annotations"]]
    assert min(areas) < 32**2 < max(areas) < 96**2
    on = found.rows[1]
    assert on.value(Part("size", "medium"), "error_Loc").n == 2 and on.value(Part("size", "large"), "error_Loc").n == 0
    by_class = [on.value(Part("class", name), "detections_best_iou").mean for name in classes]
    assert np.nanmean(by_class) == pytest.approx(on.value(ALL, "detections_best_iou").mean)


def test_positive_locations_speak_of_ranking_refining_and_points(trained: Trained) -> None:
    trained.probe(trained.done(0, False, 0.0), salt=False)
    trained.probe(trained.done(0, True, 0.0), salt=True)
    off, on = trained.why().rows
    for row in (off, on):
        assert row.value(ALL, "positives_spearman").mean == pytest.approx(-1)
        assert row.value(ALL, "positives_gap").mean == pytest.approx(0.2, abs=1e-6) and row.value(ALL, "positives_gap_share").mean == 1
    assert off.value(ALL, "coarse_iou").n == 0 and off.value(ALL, "reg_inside").n == 0
    assert on.value(ALL, "coarse_iou").mean == pytest.approx(0.6) and on.value(ALL, "refined_better").mean == 1
    assert on.value(ALL, "reg_on_sides").mean == pytest.approx(1) and on.value(ALL, "reg_touched").mean == pytest.approx(4)
    assert on.value(ALL, "mark_cls_nearest").mean < 1e-6 < on.value(ALL, "mark_grid_median").mean
    assert on.value(Part("size", "medium"), "refined_iou").mean == pytest.approx(0.8)
    text = render(trained.why())
    assert (
        "refined boxes are better than coarse ones at 100 % of all positive locations, where the mean IoU goes from 0.600 to 0.800" in text
    )
    assert "## Where the points fall" in text and "## How near the points come to the class mark" in text and "Not measured" not in text


def test_a_coarse_box_that_is_stuck_is_told(trained: Trained) -> None:
    trained.probe(trained.done(0, False, 0.0), salt=False)
    folder = trained.done(0, True, 0.0)
    trained.probe(folder, salt=True)
    on = trained.why().rows[1]
    assert (on.value(ALL, "coarse_at_zero").mean, on.value(ALL, "coarse_spread").mean) == pytest.approx((0, 1))
    assert "sides are at zero" not in render(trained.why())
    trained.probe(folder, salt=True, stuck=True)
    assert "the coarse box, 2.0 of whose four sides are at zero and learn nothing, varies 0.50 times" in render(trained.why())


def test_without_a_probe_the_detections_are_measured_and_the_rest_is_said_in_words(shifted: Trained) -> None:
    found = shifted.why()
    text = render(found)
    assert "4 trials have no probe.npz" in text and "salt=off seeds 0, 1" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "positive locations" not in text.split("Not measured")[0] and "## Errors by type" in text


def test_a_trial_that_cannot_be_measured_is_named_with_its_reason(shifted: Trained) -> None:
    first, second = sorted(shifted.bench.store.trial_ids())[:2]
    (shifted.bench.store.trial_dir(first) / "detections.json.gz").unlink()
    (shifted.bench.store.trial_dir(second) / "detections.json.gz").write_bytes(b"no gzip")
    (shifted.bench.store.trial_dir(second) / PROBE).write_bytes(b"no zip")
    missing = shifted.why().missing
    assert any(first in line and "no detections here" in line and "detections.json.gz" in line for line in missing)
    assert any(second in line and "detections.json.gz is damaged" in line for line in missing)
    assert any(f"{second}/{PROBE}: damaged" in line for line in missing)


def test_a_study_that_nobody_has_run_has_nothing_to_say_and_says_so(trained: Trained) -> None:
    found = trained.why()
    assert found.sections() == () and found.parts == ()
    assert "Nothing to measure" in render(found)
    assert render(found, "csv").count("\n") == 1


def test_failed_trials_are_in_no_number(trained: Trained) -> None:
    trained.done(0, False, 0.0)
    trained.bench.failed(trained.bench.trial(1, salt=False))
    off, on = trained.why().rows
    assert off.seeds == (0,) and on.seeds == () and on.deltas == {}


def test_the_words_name_what_changed_and_which_errors_carry_it(shifted: Trained) -> None:
    text = render(shifted.why())
    line = next(line for line in text.splitlines() if line.startswith("- "))
    assert "salt=on against" in line and "AP50 -100.0 ± 0.0*" in line and "errors that cost more: Loc +100.0 ± 0.0*" in line


def test_a_star_stands_only_where_the_interval_leaves_out_zero(trained: Trained) -> None:
    """Differences of the same sign in two seeds are far from sure; those of one seed have no interval at all."""
    trained.done(0, False, 0.05)
    trained.done(0, True, 0.2)
    assert "*" not in "".join(line for line in render(trained.why()).splitlines() if "delta" in line and line.startswith("|"))


def test_csv_has_a_line_for_each_number_in_full_precision(shifted: Trained) -> None:
    found = shifted.why()
    rows = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    one = next(r for r in rows if r["measure"] == "error_Loc" and r["part"] == "all" and r["salt.enabled"] == "on")
    assert float(one["mean"]) == found.rows[1].value(ALL, "error_Loc").mean and one["seeds"] == "2" and one["better"] == "lower"
    assert float(one["delta"]) == found.rows[1].delta(ALL, "error_Loc").delta and one["delta_pairs"] == "2"
    base = next(r for r in rows if r["measure"] == "error_Loc" and r["part"] == "all" and r["salt.enabled"] == "off")
    assert base["delta"] == base["delta_pairs"] == "" and {r["part"] for r in rows} == {"all", "size", "class"}


def test_one_asks_for_the_parts_that_one_wants(shifted: Trained) -> None:
    found = shifted.why()
    assert "medium" not in render(found, by=("all",)) and "medium" in render(found, by=("size",))
    with pytest.raises(UserError, match="--by.*no part named 'sizes'. Did you mean 'size'"):
        render(found, by=("sizes",))
    with pytest.raises(UserError, match="--format.*no format named 'latex'"):
        render(found, "latex")


def test_detections_that_do_not_give_the_recorded_ap_are_not_measured(shifted: Trained) -> None:
    identity = shifted.bench.store.trial_ids()[0]
    with gzip.open(shifted.bench.store.trial_dir(identity) / "detections.json.gz", "wt") as file:
        json.dump(shifted.detections(0.25), file)
    assert any(identity in line and "is not the recorded one" in line for line in shifted.why().missing)


def _loc(shift: float) -> float:
    """oLRP Loc of boxes that are all off by ``shift`` of their width."""
    return 100 * (1 - (1 - shift) / (1 + shift))


@pytest.fixture
def lost(trained: Trained) -> tuple[Trained, str, int]:
    """SALT's boxes are off by 0.1 and the baseline's by 0.05, but of one class by 0.2 in both; SALT's second seed finds nothing of that class."""
    names = [category["name"] for category in trained.content["categories"]]
    for seed in (0, 1):
        trained.record(trained.bench.trial(seed, salt=False), trained.off_by_class(0.05, **{names[0]: 0.2}))
        trained.record(trained.bench.trial(seed, salt=True), trained.off_by_class(0.1, **{names[0]: None if seed else 0.2}))
    return trained, names[0], len(names)


def test_a_class_that_a_run_does_not_find_does_not_flatter_its_other_classes(lost: tuple[Trained, str, int]) -> None:
    """Every box of SALT is as bad as the baseline's or worse. Over each run's own classes its second seed would look better than it is."""
    trained, gone, n = lost
    on = trained.why().rows[1]
    worse = _loc(0.1) - _loc(0.05)
    delta = on.delta(ALL, "olrp_loc")
    assert delta.delta == pytest.approx(((n - 1) / n * worse + worse) / 2, abs=0.01) and delta.n == 2
    naive = _loc(0.1) - ((n - 1) * _loc(0.05) + _loc(0.2)) / n
    assert naive < worse - 4 and on.delta_classes[ALL]["olrp_loc"] == n - 1 and on.delta_classes[ALL]["olrp_fn"] == n
    assert on.delta(ALL, "olrp_fn").delta == pytest.approx(100 / n / 2)
    assert on.delta(Part("class", gone), "olrp_loc").n == 1
    assert on.delta(Part("size", "medium"), "olrp_loc").delta > (n - 1) / n * worse - 0.01


def test_classes_behind_a_number_are_counted_and_the_missing_ones_named(lost: tuple[Trained, str, int]) -> None:
    trained, gone, n = lost
    found = trained.why()
    text = render(found)
    olrp = text.split("## oLRP")[1].split("\n## ")[0]
    assert olrp.count(f"[{n - 1}/{n}]") >= 4 and f"- salt=on seed 1: no {gone} in Loc, FP\n" in olrp
    assert "(1)" in next(line for line in olrp.splitlines() if line.startswith(f"| {gone}") and " on " in line)
    assert "only 2 of the 3 classes" in text and f"[a seed with {n - 1} of {n} classes]" in text.splitlines()[4]
    page = next(table for table in why_tables(found) if table.title == "oLRP")
    assert f"salt=on seed 1: no {gone} in Loc, FP." in page.note and "only 2 of the 3 classes" in page.note
    marked = [cell for cell in page.body[1] if f"[{n - 1}/{n}]" in cell.text]
    assert len(marked) == 2 and all(f"[{n - 1}/{n}]" in cell.below for cell in marked)
    rows = csv.DictReader(io.StringIO(render(found, "csv")))
    one = next(r for r in rows if r["measure"] == "olrp_loc" and r["part"] == "all" and r["salt.enabled"] == "on")
    assert (one["classes"], one["delta_classes"], one["classes_known"]) == (str(n - 1), str(n - 1), str(n))


def test_a_seed_that_one_arm_lacks_is_counted_and_named_and_whole_studies_have_no_marks(trained: Trained) -> None:
    trained.done(0, False, 0.05)
    trained.done(0, True, 0.1)
    whole = render(trained.why())
    trained.done(1, False, 0.05)
    text = render(trained.why())
    assert "(2): over only" not in whole and "(2): over only" in text
    assert "salt=on: no measures of seed 1." in text and "18.2 (1)" in text and "+8.7 (1)" in text


def test_arms_that_cannot_be_paired_are_compared_over_the_classes_that_all_runs_have() -> None:
    variant = {0: {"a": 1.0, "b": 5.0}, 1: {"a": 2.0}}
    baseline = {2: {"a": 3.0, "b": 4.0}, 3: {"a": 3.0, "b": 9.0}}
    assert shared(variant, baseline) == ({0: {"a": 1.0}, 1: {"a": 2.0}}, {2: {"a": 3.0}, 3: {"a": 3.0}})
    paired = shared({0: {"a": 1.0, "b": 5.0}, 1: {"a": 2.0}, 2: {"b": 1.0}}, {0: {"b": 4.0}, 1: {"a": 3.0, "b": 9.0}, 2: {"a": 1.0}})
    assert paired == ({0: {"b": 5.0}, 1: {"a": 2.0}}, {0: {"b": 4.0}, 1: {"a": 3.0}})


def test_coarse_and_refined_boxes_are_compared_over_locations_and_by_class_within_each(trained: Trained) -> None:
    """Of the first class no refined box is better, of the others all: the share is that of locations, whatever the number of classes."""
    objects, first = trained.content["annotations"], trained.content["categories"][0]
    is_first = np.array([a["category_id"] == first["id"] for a in objects])
    trained.done(0, False, 0.0)
    trained.probe(trained.done(0, True, 0.0), salt=True, coarse=np.where(is_first, 0.95, 0.5).tolist())
    on = trained.why().rows[1]
    share = 1 - is_first.mean()
    assert abs(share - (1 - 1 / len(trained.content["categories"]))) > 0.01
    assert on.value(ALL, "refined_better").mean == pytest.approx(share)
    assert on.value(ALL, "coarse_iou").mean == pytest.approx(0.95 - 0.45 * share) and on.value(ALL, "refined_iou").mean == pytest.approx(
        0.8
    )
    medium = np.array([32**2 < a["area"] <= 96**2 for a in objects])
    assert on.value(Part("size", "medium"), "refined_better").mean == pytest.approx(1 - is_first[medium].mean())
    assert on.value(Part("class", first["name"]), "refined_better").mean == 0
    assert f"at {100 * share:.0f} % of all positive locations" in render(trained.why())
