"""Reweighting images is resampling them: the same numbers as pycocotools on data that was really drawn again."""

from __future__ import annotations

import contextlib
import io
import sys

import numpy as np
import pytest

from salt_lab.errors import DataError
from salt_lab.evaluate import resample
from salt_lab.evaluate.accumulate import numbers
from salt_lab.evaluate.bootstrap import METRICS, Draws, bootstrap, hierarchical, paired
from salt_lab.evaluate.matching import match
from salt_lab.evaluate.resample import image_counts, plain_ap, plan, resampled_ap
from salt_lab.testing.population import draw_images, run_on


def _data(seed: int, images: int = 12, decimals: int = 1):
    """A small data set and detections with everything that is awkward: crowds, equal scores, a rare class, empty images, objects on a bound."""
    g = np.random.default_rng(seed)
    truth = {
        "images": [{"id": 7 * i + 3, "width": 200, "height": 200} for i in range(images)],
        "categories": [{"id": c, "name": str(c)} for c in (2, 5, 9, 11)],
        "annotations": [],
    }
    found = []
    for image in truth["images"][:-1]:
        for _ in range(g.integers(0, 7)):
            category = int(g.choice([2, 5, 9], p=[0.6, 0.37, 0.03]))
            w, h = (int(v) for v in g.choice([16, 32, 60, 96, 120], 2))
            box = [int(v) for v in g.integers(0, 80, 2)] + [w, h]
            crowd = int(g.random() < 0.15)
            number = len(truth["annotations"]) + 1
            truth["annotations"].append(
                {"id": number, "image_id": image["id"], "category_id": category, "bbox": box, "area": w * h, "iscrowd": crowd}
            )
            for _ in range(g.integers(0, 4)):
                shifted = [float(v) for v in np.array(box) + g.normal(0, 6, 4)]
                found.append({"image_id": image["id"], "category_id": category, "bbox": [*shifted[:2], abs(shifted[2]), abs(shifted[3])]})
        for _ in range(g.integers(0, 5)):
            box = [float(v) for v in g.uniform(0, 90, 4)]
            found.append({"image_id": image["id"], "category_id": int(g.choice([2, 5, 9, 11])), "bbox": box})
    for row in found:
        row["score"] = float(np.round(g.random(), decimals))
    return truth, found


def _really_resampled(truth, found, weights_I):
    """Images drawn w times become w images of their own, with copies of their objects and detections; copies stand side by side."""
    ids = sorted(image["id"] for image in truth["images"])
    copies = {old: [1000 * (place + 1) + copy for copy in range(weights_I[place])] for place, old in enumerate(ids)}
    images = [{**image, "id": new} for image in truth["images"] for new in copies[image["id"]]]
    annotations = [{**row, "image_id": new} for row in truth["annotations"] for new in copies[row["image_id"]]]
    annotations = [{**row, "id": number} for number, row in enumerate(annotations, 1)]
    detections = [{**row, "image_id": new} for row in found for new in copies[row["image_id"]]]
    return {**truth, "images": images, "annotations": annotations}, detections


def _pycocotools(truth, found):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * value if value >= 0 else np.nan for value in evaluation.stats[:6]]


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("data_seed", range(4))
def test_every_draw_equals_pycocotools_on_images_that_were_really_drawn_again(data_seed, decimals):
    truth, found = _data(data_seed, decimals=decimals)
    drawn = bootstrap(match(truth, found), resamples=6, seed=data_seed, threads=1)
    weights_RI = next(image_counts(len(truth["images"]), 6, data_seed))
    assert weights_RI.max() > 2 and weights_RI.min() == 0
    for r, weights_I in enumerate(weights_RI):
        expected = _pycocotools(*_really_resampled(truth, found, weights_I))
        np.testing.assert_allclose([drawn.draws[name][r] for name in METRICS], expected, atol=1e-9, rtol=0)


def test_the_value_as_measured_is_pycocotools_own():
    truth, found = _data(5)
    np.testing.assert_allclose(list(bootstrap(match(truth, found), resamples=1).values.values()), _pycocotools(truth, found), atol=1e-9)


def test_the_compiled_loop_the_plain_one_and_the_evaluator_agree():
    for data_seed in range(6):
        truth, found = _data(data_seed, images=20)
        matches = match(truth, found)
        planned = plan(matches, (0, 1, 2, 3))
        weights_RI = next(image_counts(20, 5, 1))
        fast_RAT = resampled_ap(planned, weights_RI)
        np.testing.assert_allclose(fast_RAT, [plain_ap(planned, weights_I) for weights_I in weights_RI], atol=1e-10)
        np.testing.assert_allclose(fast_RAT[:, 0].mean(axis=1), [numbers(matches, weights_I).AP for weights_I in weights_RI], atol=1e-10)


def test_without_numba_the_numbers_are_the_same(monkeypatch):
    truth, found = _data(2)
    with_numba = bootstrap(match(truth, found), resamples=4, seed=3)
    monkeypatch.setitem(sys.modules, "salt_lab.evaluate.resample_kernel", None)
    resample._kernel.cache_clear()
    try:
        without = bootstrap(match(truth, found), resamples=4, seed=3)
    finally:
        resample._kernel.cache_clear()
    for name in METRICS:
        np.testing.assert_allclose(without.draws[name], with_numba.draws[name], atol=1e-10)


def test_a_class_whose_objects_were_not_drawn_leaves_the_mean():
    truth, found = _data(0)
    rare = {row["image_id"] for row in truth["annotations"] if row["category_id"] == 9}
    ids = sorted(image["id"] for image in truth["images"])
    matches = match(truth, found)
    weights_1I = np.array([[0 if number in rare else 1 for number in ids]], np.int32)
    without = {**truth, "categories": [c for c in truth["categories"] if c["id"] != 9]}
    without["images"] = [image for image in truth["images"] if image["id"] not in rare]
    without["annotations"] = [row for row in truth["annotations"] if row["image_id"] not in rare]
    kept = [row for row in found if row["image_id"] not in rare and row["category_id"] != 9]
    assert resampled_ap(plan(matches), weights_1I).mean() == pytest.approx(numbers(match(without, kept)).AP, abs=1e-9)


def test_no_object_drawn_gives_no_number_and_no_detection_gives_zero():
    truth, found = _data(1)
    empty = np.zeros((1, len(truth["images"])), np.int32)
    assert np.isnan(resampled_ap(plan(match(truth, found)), empty)).all()
    assert (bootstrap(match(truth, []), resamples=3, metrics=["AP"]).draws["AP"] == 0).all()


def test_the_same_seed_gives_the_same_draws_whatever_the_number_of_threads_and_resamples():
    generator = np.random.default_rng(0)
    run = run_on(draw_images(generator, 60), generator, 0.0)
    one, three, more = (bootstrap(run, resamples=r, seed=4, metrics=["AP"], threads=t) for r, t in ((280, 1), (280, 3), (300, 2)))
    np.testing.assert_array_equal(one.draws["AP"], three.draws["AP"])
    np.testing.assert_array_equal(one.draws["AP"], more.draws["AP"][:280])
    assert (bootstrap(run, resamples=280, seed=5, metrics=["AP"]).draws["AP"] != one.draws["AP"]).all()


def test_a_run_does_not_differ_from_itself():
    generator = np.random.default_rng(0)
    run = run_on(draw_images(generator, 40), generator, 0.0)
    found = paired(run, run, resamples=50)
    assert found.interval("AP") == (0, 0) and found.p("AP") == 1 and found.values["APs"] == 0


def test_pairing_the_images_makes_the_interval_of_a_difference_narrower():
    generator = np.random.default_rng(1)
    images = draw_images(generator, 150)
    variant, baseline = run_on(images, generator, 0.3, noise=0.1), run_on(images, generator, 0.0, noise=0.1)
    together = paired(variant, baseline, resamples=200, metrics=["AP"])
    apart = [bootstrap(run, resamples=200, metrics=["AP"]).sd() for run in (variant, baseline)]
    assert together.sd() < 0.7 * np.hypot(*apart)
    assert together.interval().low > 0 and together.p() < 0.02
    assert paired(baseline, variant, resamples=200, metrics=["AP"]).values["AP"] == -together.values["AP"]


def test_four_times_the_images_halve_the_standard_error():
    generator = np.random.default_rng(2)
    few, many = (run_on(draw_images(generator, n), generator, 0.0) for n in (300, 1200))
    ratio = bootstrap(few, resamples=300, metrics=["AP"]).sd() / bootstrap(many, resamples=300, metrics=["AP"]).sd()
    assert ratio == pytest.approx(2, rel=0.25)


def test_rare_classes_make_resampled_ap_too_high_and_the_interval_of_one_run_holds_its_value_all_the_same():
    generator = np.random.default_rng(3)
    shares = 1 / np.arange(1, 31)
    run = run_on(draw_images(generator, 60, shares / shares.sum()), generator, 0.0)
    found = bootstrap(run, resamples=200, metrics=["AP"])
    assert found.draws["AP"].mean() > found.values["AP"]
    low, high = found.interval()
    assert low < found.values["AP"] < high and high - low == pytest.approx(np.diff(np.quantile(found.draws["AP"], [0.025, 0.975]))[0])
    alone = hierarchical({0: run}, resamples=200)["AP"]
    assert (alone.low, alone.high) == pytest.approx((low, high)) and alone.method == "images"


def test_a_size_that_no_object_has_has_no_interval():
    found = Draws({"APs": float("nan")}, {"APs": np.full(5, np.nan)}, images=3, seed=0)
    assert np.isnan(found.interval("APs")).all() and np.isnan(found.p("APs")) and np.isnan(found.sd("APs"))


def test_refusals_say_what_and_what_next():
    generator = np.random.default_rng(0)
    run, other = (run_on(draw_images(generator, n), generator, 0.0) for n in (20, 21))
    same_size = run_on(draw_images(np.random.default_rng(9), 20), generator, 0.0)
    with pytest.raises(DataError, match="20 and 21 images"):
        paired(run, other)
    with pytest.raises(DataError, match="different ground truth"):
        paired(run, same_size)
    with pytest.raises(DataError, match="Did you mean 'AP75'"):
        bootstrap(run, metrics=["AP5"])
    with pytest.raises(DataError, match="resamples = 0"):
        bootstrap(run, resamples=0)
    with pytest.raises(DataError, match="an arm without a run"):
        hierarchical({0: run}, {})


def _arms(seeds: int, spread: float, images: int = 80):
    generator = np.random.default_rng(3)
    drawn = draw_images(generator, images)
    shift = generator.normal(0, spread, (2, seeds))
    return tuple({s: run_on(drawn, generator, ability + shift[arm, s]) for s in range(seeds)} for arm, ability in ((0, 0.2), (1, 0.0)))


def test_seeds_that_differ_widen_the_interval_beyond_that_of_images_and_of_resampled_seeds():
    alike, different = (hierarchical(*_arms(3, spread), resamples=200)["AP"] for spread in (0.0, 0.5))
    assert different.se_seeds > 3 * alike.se_seeds
    assert different.high - different.low > 1.5 * (different.plain.high - different.plain.low)
    assert different.method == "seeds and images" and different.pairs == 3 and different.df == 2


def test_runs_that_are_all_the_same_leave_the_images_alone():
    variant, baseline = _arms(1, 0.0)
    three = hierarchical(dict.fromkeys(range(3), variant[0]), dict.fromkeys(range(3), baseline[0]), resamples=300)["AP"]
    one = paired(variant[0], baseline[0], resamples=300, metrics=["AP"])
    shift = one.values["AP"] - one.draws["AP"].mean()
    np.testing.assert_allclose((three.low, three.high), np.array(one.interval()) + shift, atol=1e-9)
    assert three.se_seeds == 0


def test_one_seed_gives_the_paired_interval_over_images_and_says_so():
    variant, baseline = _arms(1, 0.0)
    found = hierarchical(variant, baseline, resamples=100)["AP"]
    expected = paired(variant[0], baseline[0], resamples=100, metrics=["AP"])
    assert found.method == "images" and (found.low, found.high) == expected.interval() and found.p == expected.p()
    assert found.pairs == 1 and np.isnan(found.se_seeds)


def test_arms_that_share_seeds_are_paired_over_those_alone_and_others_are_not_paired():
    variant, baseline = _arms(3, 0.3)
    shared = hierarchical({0: variant[0], 1: variant[1], 7: variant[2]}, baseline, resamples=100)["AP"]
    only = hierarchical({0: variant[0], 1: variant[1]}, {0: baseline[0], 1: baseline[1]}, resamples=100)["AP"]
    assert shared == only and shared.pairs == 2
    apart = hierarchical({s + 10: run for s, run in variant.items()}, baseline, resamples=100)["AP"]
    assert apart.pairs == 0 and apart.runs == (3, 3) and 2 <= apart.df <= 4
    assert apart.value == pytest.approx(hierarchical(variant, baseline, resamples=100)["AP"].value)


def test_one_arm_alone_has_an_interval_around_its_mean():
    variant, _ = _arms(3, 0.3)
    found = hierarchical(variant, resamples=100, metrics=["AP", "AP50"])
    assert found["AP"].low < found["AP"].value < found["AP"].high and found["AP50"].value > found["AP"].value
    assert found["AP"].value == pytest.approx(np.mean([numbers(run).AP for run in variant.values()]))
