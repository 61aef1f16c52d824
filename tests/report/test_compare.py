"""A cell against its baseline: which interval, which p, how many comparisons, and no mark that is not earned."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from salt_lab.data import prepare
from salt_lab.evaluate.accumulate import numbers
from salt_lab.evaluate.bootstrap import paired
from salt_lab.evaluate.matching import match
from salt_lab.record.journal import read_json
from salt_lab.report import compare as module
from salt_lab.report.compare import compare
from salt_lab.report.image_draws import study_images
from salt_lab.report.power import Ask, study_power
from salt_lab.report.results import load_results

MARKS = """
    base:
      data: {train_images: 2, val_images: 24, image_size: 48}
      schedule: {epochs: 1}
    axes:
      salt: [false, true]
    seeds: [0, 1, 2]
    compare:
      baseline: {salt: false}
"""
HOSTS = """
    base:
      data: marks
    axes:
      salt: [false, true]
    seeds: [0, 1, 2, 3]
    compare:
      baseline: {salt: false}
"""
SPENT = {"train_seconds": 1.0, "eval_seconds": 1.0, "peak_memory_mb": 1.0}
RESAMPLES = 300


class Lab:
    """A study on small drawn images; its trials find each object, some pixels beside its place."""

    def __init__(self, bench) -> None:
        self.bench, self.study, self.store = bench, bench.study, bench.store
        self.truth = read_json(prepare(bench.study.cells[0].trial.data, bench.store.data_dir).val_json)

    def finish(self, seed: int, salt: bool, beside: float) -> str:
        generator = np.random.default_rng([seed, salt])
        rows = [
            {"image_id": row["image_id"], "category_id": row["category_id"], "score": round(float(generator.random()), 3)}
            | {"bbox": [float(v) for v in np.array(row["bbox"]) + generator.normal(0, beside, 4)]}
            for row in self.truth["annotations"]
        ]
        found = numbers(match(self.truth, rows))._asdict()
        recorder = self.bench.start(self.bench.trial(seed, salt=salt))
        recorder.done(metrics={name: None if np.isnan(value) else value for name, value in found.items()}, epochs=1, **SPENT)
        (self.detections(recorder.trial_id)).write_bytes(gzip.compress(json.dumps(rows).encode()))
        return recorder.trial_id

    def detections(self, trial_id: str):
        return self.store.trial_dir(trial_id) / "detections.json.gz"

    @property
    def results(self):
        return load_results(self.study, self.store)

    def compared(self, **options):
        (found,) = compare(self.results, self.store, **{"resamples": RESAMPLES, **options}).values()
        return found


@pytest.fixture
def lab(make_bench, make_study) -> Lab:
    return Lab(make_bench(make_study(MARKS)))


def seeds_only(bench):
    """Comparisons by the host's name."""
    found = compare(load_results(bench.study, bench.store), None)
    return {cell.label["host"]: found[cell.key] for cell in bench.study.cells if cell.key in found}


def same(one, other) -> bool:
    return str(one) == str(other)  # NaN equals NaN here


def test_without_detections_the_interval_is_the_paired_t_interval_over_seeds(full):
    found = seeds_only(full)["atss"]
    test = stats.ttest_rel([33.0, 33.5, 36.25], [30.0, 31.0, 32.5])
    assert (found.method, found.pairs, found.better) == ("seeds", 3, 1.0)
    assert (found.delta, found.p) == pytest.approx((37 / 12, test.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_every_comparison_of_the_study_counts_in_holms_correction(full):
    found = seeds_only(full)
    assert found["atss"].p < found["gfl"].p
    assert found["atss"].p_adjusted == pytest.approx(2 * found["atss"].p)
    assert found["gfl"].p_adjusted == pytest.approx(found["gfl"].p), "the last step"
    assert (found["atss"].mark, found["gfl"].mark) == ("*", ""), "0.014 before, 0.027 after; 0.12"


def test_a_comparison_of_one_seed_takes_no_mark_from_the_others(full, monkeypatch):
    true = module._compared

    def one_seed_of_gfl(cell, aps, draws):
        found = true(cell, aps, draws)
        return found if cell.label["host"] == "atss" else replace(found, method="images", p=0.001)

    monkeypatch.setattr(module, "_compared", one_seed_of_gfl)
    found = seeds_only(full)
    assert found["atss"].p_adjusted == found["atss"].p and found["atss"].mark == "*", "it is the only one that can earn a mark"
    assert math.isnan(found["gfl"].p_adjusted) and found["gfl"].mark == ""


def test_only_cells_with_a_baseline_are_compared_and_with_the_studys_own(full):
    found = compare(load_results(full.study, full.store), None)
    assert list(found) == [cell.key for cell in full.study.cells if cell.baseline]
    assert all(one.baseline == full.study.cell(key).baseline and one.cell == key for key, one in found.items())


def test_a_seed_that_failed_or_was_stopped_early_is_in_no_comparison_and_chosen_seeds_earn_no_mark(bench):
    for seed, ap in enumerate((30.0, 30.1)):
        bench.done(bench.trial(seed, host="atss", salt=False), ap)
        bench.done(bench.trial(seed, host="atss", salt=True), ap + 5 + seed / 1000)
    bench.failed(bench.trial(2, host="atss", salt=True), last_ap=99.0)
    bench.done(bench.trial(2, host="atss", salt=False), 30.2)
    found = seeds_only(bench)["atss"]
    assert (found.pairs, found.mark) == (2, "**") and found.delta == pytest.approx(5.0005)
    bench.stopped(bench.trial(2, host="atss", salt=True), 20.0)
    stopped = seeds_only(bench)["atss"]
    assert (stopped.delta, stopped.p) == (found.delta, found.p)
    assert stopped.mark == "" and "early stopping chose the seeds" in stopped.note


def test_one_seed_without_detections_has_a_delta_and_neither_interval_nor_mark(bench):
    bench.done(bench.trial(0, host="atss", salt=False), 30.0)
    bench.done(bench.trial(0, host="atss", salt=True), 60.0)
    found = seeds_only(bench)
    assert (found["atss"].delta, found["atss"].method, found["atss"].mark, found["atss"].pairs) == (30.0, "none", "", 1)
    assert all(math.isnan(number) for number in (found["atss"].low, found["atss"].p, found["atss"].p_adjusted, found["atss"].better))
    assert math.isnan(found["gfl"].delta) and (found["gfl"].method, found["gfl"].pairs) == ("none", 0), "nothing was run"


def test_arms_without_a_common_seed_are_compared_as_independent_ones(make_bench, make_study):
    bench = make_bench(make_study(HOSTS))
    for seed, (salt, ap) in enumerate([(False, 30.0), (False, 31.0), (True, 33.0), (True, 35.0)]):
        bench.done(bench.trial(seed, salt=salt), ap)
    (found,) = compare(load_results(bench.study, bench.store), None).values()
    assert (found.method, found.pairs, found.delta, found.better) == ("seeds, unpaired", 0, 3.5, 1.0)
    assert found.p == pytest.approx(stats.ttest_ind([33, 35], [30, 31], equal_var=False).pvalue)


def test_with_detections_the_interval_is_over_seeds_and_images_and_no_narrower_than_over_seeds(lab):
    for seed in range(3):
        lab.finish(seed, False, beside=4.0 + seed / 2)
        lab.finish(seed, True, beside=2.0)
    found, over_seeds = lab.compared(), lab.compared(resamples=0)
    assert (found.method, over_seeds.method, found.note) == ("seeds and images", "seeds", "")
    assert found.delta == over_seeds.delta and found.low < over_seeds.low and found.high > over_seeds.high
    assert found.p > over_seeds.p and found.better == 1.0
    assert same(found, lab.compared()) and not same(found, lab.compared(seed=1)), "the seed of the draws decides, and nothing else"


def test_one_seed_with_detections_is_the_paired_bootstrap_over_images(lab):
    baseline, variant = lab.finish(0, False, beside=2.0), lab.finish(0, True, beside=1.7)
    found = lab.compared()
    rows = [json.loads(gzip.decompress(lab.detections(trial).read_bytes())) for trial in (variant, baseline)]
    draws = paired(*(match(lab.truth, one) for one in rows), resamples=RESAMPLES, seed=0, metrics=("AP",))
    assert (found.method, found.pairs, found.mark) == ("images", 1, ""), "two trained models may differ for sure, and the methods not"
    assert (found.low, found.high) == pytest.approx(tuple(draws.interval("AP"))) and found.p == pytest.approx(draws.p("AP"))
    assert found.better == pytest.approx((draws.draws["AP"] > 0).mean()) and 0 < found.better < 1


def test_where_one_seeds_detections_are_gone_no_seed_is_dropped_and_the_reason_is_said(lab):
    for seed in range(3):
        lab.finish(seed, False, beside=4.0 + seed / 2)
        lost = lab.finish(seed, True, beside=2.0)
    lab.detections(lost).unlink()
    found = lab.compared()
    assert (found.method, found.pairs) == ("seeds", 3) and "no detections here" in found.note and lost in found.note
    assert found.p == lab.compared(resamples=0).p


def test_image_noise_shrinks_with_the_images_and_is_set_against_that_of_the_seeds(make_bench, make_study):
    halves = []
    for images in (12, 96):
        lab = Lab(make_bench(make_study(MARKS.replace("val_images: 24", f"val_images: {images}"), name=f"images_{images}")))
        for seed in range(2):
            lab.finish(seed, False, beside=3.0)
            lab.finish(seed, True, beside=3.0)
            found = study_images(lab.results, lab.store, RESAMPLES)
            assert (found.images, found.groups, found.paired, found.reason) == (images, 1, True, "")
            if seed == 0:
                halves.append(found.half)
                assert math.isnan(found.se_seeds) and math.isnan(found.share), "one seed: nothing to set against it"
        assert found.share == pytest.approx(found.se_images**2 / (found.se_images**2 + found.se_seeds**2))
    assert halves[1] < 0.6 * halves[0], "eight times the images: about sqrt(8) times less noise"


def test_a_study_without_any_finished_comparison_says_so_instead_of_a_noise(bench):
    found = study_images(load_results(bench.study, bench.store), bench.store)
    assert math.isnan(found.se_images) and found.reason == "no seed of a comparison is done in both arms"


def test_a_studys_own_spread_is_that_of_its_paired_differences(full):
    found = study_power(load_results(full.study, full.store), Ask(see=0.3))
    atss, gfl = (3.0, 2.5, 3.75), (-1.0, -0.5, -2.0)
    assert found.noise.sd == pytest.approx(math.sqrt((np.var(atss, ddof=1) + np.var(gfl, ddof=1)) / 2))
    assert (found.why, found.seeds, found.comparisons) == ("", 3, 2)
    assert found.needed_low < found.needed < found.needed_high and found.needed < found.needed_all
    assert {3, found.needed} <= {line.seeds for line in found.lines}


def test_a_spread_that_is_given_stands_above_the_records(full):
    found = study_power(load_results(full.study, full.store), Ask(), sd=0.15)
    assert (found.noise.sd, found.why, found.needed, found.needed_low, found.needed_high) == (0.15, "given", 6, 6, 6)
    assert study_power(None, Ask(), sd=0.15).needed == 6
