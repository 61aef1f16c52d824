"""Forest plot, costs, clouds, heat maps: what is drawn are the numbers that come back, and those are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from salt_lab.evaluate.matching import match
from salt_lab.evaluate.probe_data import Probe, arrays, dtype_of
from salt_lab.evaluate.seeds import mean_over_seeds
from salt_lab.report.intervals import find_intervals
from salt_lab.report.pictures import ap_against_cost, forest, point_heat_map, point_heat_maps, score_iou_cloud
from salt_lab.report.pictures.clouds import MOST_POINTS
from salt_lab.report.pictures.cost import CostPoint, pareto_front
from salt_lab.report.pictures.points import sizes_of
from salt_lab.report.results import load_results
from salt_lab.report.rows import Table
from salt_lab.report.table import study_table

NAN = math.nan


@pytest.fixture
def ax():
    return Figure().add_subplot()


def table_of(bench) -> Table:
    results = load_results(bench.study, bench.store)
    return study_table(results, find_intervals(results, None))


def words_on(ax) -> str:
    return "\n".join(text.get_text() for text in ax.texts)


def a_probe(n: int, **given) -> Probe:
    """``n`` positive locations of one object of 100 x 50 pixels at (10, 20), without points unless given."""
    rows = {name: np.zeros((n, *(max(size, 0) for size in row)), dtype_of(name)) for name, row in arrays().items()}
    rows["object_box_P4"][:] = (10, 20, 110, 70)
    rows["area_P"][:] = 5000
    for name, value in given.items():
        rows[name] = np.asarray(value, dtype_of(name))
    return Probe(**rows, total=n)


# Forest plot


def test_a_forest_has_the_comparisons_own_intervals_and_each_seeds_own_difference(full, ax):
    table = table_of(full)
    drawn = forest(table, ax)
    for effect, row in zip(drawn, [row for row in table.rows if row.baseline], strict=True):
        found = row.comparison
        assert (effect.delta, effect.low, effect.high) == (found.delta, found.low, found.high) and found.method == "seeds"
        assert np.mean(effect.seeds) == pytest.approx(effect.delta)
    assert drawn[0].seeds == (3.0, 2.5, 3.75)
    assert any(np.array_equal(line.get_xdata(), [0, 0]) for line in ax.lines), "the line at zero"
    assert "paired t over seeds" in words_on(ax) and "one seed" in words_on(ax)


def test_an_unfinished_cell_keeps_its_line_and_says_what_it_waits_for(bench, ax):
    for salt, ap in ((False, 30.0), (True, 31.0)):
        bench.done(bench.trial(0, host="atss", salt=salt), ap)
    bench.failed(bench.trial(0, host="gfl", salt=False))
    atss, gfl = forest(table_of(bench), ax)
    assert (atss.delta, atss.unfinished, gfl.name) == (1.0, "", "gfl")
    assert math.isnan(gfl.delta) and gfl.unfinished == "not run, baseline 0/3 seeds, 1 failed, 2 not run"
    assert "… not run, baseline 0/3 seeds" in words_on(ax) and "+1.0 (1 of 3 seeds)" in words_on(ax)


def test_one_seed_without_detections_has_a_point_and_no_bar_and_the_picture_says_why(bench, ax):
    for salt, ap in ((False, 30.0), (True, 31.0)):
        bench.done(bench.trial(0, host="atss", salt=salt), ap)
    effect = forest(table_of(bench), ax)[0]
    assert effect.method == "none" and math.isnan(effect.low)
    assert "no interval: one seed" in words_on(ax)


def test_cells_of_a_host_stand_together_whatever_the_order_of_the_axes(make_study, make_bench, ax):
    text = (
        "base: {data: marks, salt: true}\naxes: {salt.points: [5, 9], host: [atss, gfl]}\ncompare: {baseline: {salt.points: 5}}\nseeds: [0]"
    )
    assert [effect.host for effect in forest(table_of(make_bench(make_study(text, "points"))), ax)] == ["atss", "gfl"]
    text = text.replace("[5, 9]", "[5, 9, 13]")
    drawn = forest(table_of(make_bench(make_study(text, "points"))), ax)
    assert [effect.host for effect in drawn] == ["atss", "atss", "gfl", "gfl"]
    assert [effect.name for effect in drawn] == ["atss: points=9", "atss: points=13", "gfl: points=9", "gfl: points=13"]


def test_a_study_that_compares_nothing_has_no_forest(make_study, make_bench, ax):
    bench = make_bench(make_study("base: {data: marks}\naxes: {host: [atss, gfl]}\nseeds: [0]", "plain"))
    assert forest(table_of(bench), ax) == [] and not ax.lines


# AP against cost


def test_both_arms_of_a_host_are_joined_and_have_their_interval_over_seeds(full, ax):
    table = table_of(full)
    points, pairs, front = ap_against_cost(table, ax)
    assert len(points) == 4 and len(pairs) == 2
    for point, row in zip(points, table.rows, strict=True):
        mean = mean_over_seeds(list(row.ap_by_seed.values()))
        assert (point.cost, point.ap, point.low, point.high, point.n) == (2.5, mean.mean, mean.low, mean.high, 3)
        assert point.baseline == (row.baseline is None)
    assert front == [max(points, key=lambda point: point.ap).key], "all cost the same: the best alone is on the front"
    assert ax.get_xlabel() == "GFLOPs of one image, 112 x 112 pixels"


def test_a_cell_without_this_cost_is_left_out_and_another_cost_is_refused(full, ax):
    assert ap_against_cost(table_of(full), ax, "inference_ms").points == []
    with pytest.raises(ValueError, match="choose one of gflops, inference_ms, train_minutes"):
        ap_against_cost(table_of(full), ax, "dollars")


def test_the_front_is_what_no_other_beats():
    generator = np.random.default_rng(0)
    points = [CostPoint(str(i), "", float(c), float(a), NAN, NAN, 1, False) for i, (c, a) in enumerate(generator.integers(0, 20, (40, 2)))]
    front = set(pareto_front(points))

    def beaten(p: CostPoint) -> bool:
        return any(q.cost <= p.cost and q.ap >= p.ap and (q.cost, q.ap) != (p.cost, p.ap) for q in points)

    on_it = {(p.cost, p.ap) for p in points if p.key in front}
    assert on_it == {(p.cost, p.ap) for p in points if not beaten(p)} and len(on_it) == len(front) > 1


# Clouds


def test_scores_that_rank_as_the_iou_does_have_rho_one_and_reversed_ones_minus_one():
    iou = np.linspace(0.3, 0.9, 50)
    axes = Figure().subplots(1, 2)
    off, on = score_iou_cloud(a_probe(50, score_P=iou**3, iou_P=iou), a_probe(50, score_P=1 - iou, iou_P=iou), axes, ("off", "on"))
    assert (off.name, round(off.spearman, 6), round(on.spearman, 6)) == ("off", -1, 1)
    assert axes[0].get_xlim() == axes[1].get_xlim() and axes[0].get_ylim() == axes[1].get_ylim() == (0, 1)
    assert "off\nSpearman ρ = -1.00, 50 positive locations" in axes[0].get_title(loc="left")


def test_rho_is_the_mean_over_classes_not_that_of_all_in_one_pot():
    iou = np.concatenate([np.linspace(0.1, 0.4, 40), np.linspace(0.6, 0.9, 40)])
    score = np.concatenate([np.linspace(0.4, 0.1, 40), np.linspace(0.9, 0.6, 40)])  # within each class reversed, between them right
    probe = a_probe(80, score_P=score, iou_P=iou, category_P=np.repeat([1, 2], 40))
    assert score_iou_cloud(probe, probe, Figure().subplots(1, 2))[0].spearman == pytest.approx(-1)


def test_many_locations_are_drawn_as_a_density_in_both_clouds_and_few_as_points():
    iou = np.linspace(0.2, 0.9, MOST_POINTS + 1)
    many, few = a_probe(len(iou), score_P=iou, iou_P=iou), a_probe(40, score_P=iou[:40], iou_P=iou[:40])
    for pair, images in (((many, few), 1), ((few, few), 0)):
        axes = Figure().subplots(1, 2)
        score_iou_cloud(*pair, axes)
        assert [len(ax.images) for ax in axes] == [images, images]


def test_of_detections_those_that_touch_no_object_are_left_out_and_two_kinds_do_not_mix():
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}],
    }
    rows = [{"image_id": 1, "category_id": 1, "bbox": [x, 10, 40, 40], "score": s} for x, s in ((10, 0.9), (30, 0.5), (90, 0.8))]
    found = match(truth, rows)
    cloud = score_iou_cloud(found, found, Figure().subplots(1, 2))[0]
    assert cloud.score_N.tolist() == [0.9, 0.5] and cloud.iou_N.tolist() == [1.0, pytest.approx(1 / 3)]
    assert math.isnan(cloud.spearman) and cloud.source == "detections"
    with pytest.raises(ValueError, match="two of one kind"):
        score_iou_cloud(found, a_probe(3), Figure().subplots(1, 2))


# Heat maps


def test_points_are_where_they_were_put_in_object_coordinates(ax):
    upper_left_and_far = [[[10.0, 20.0], [500.0, 45.0]]] * 6
    probe = a_probe(6, reg_points_PK2=upper_left_and_far, cls_points_PK2=[[[60.0, 45.0]]] * 6)
    heat = point_heat_map(probe, ax, "reg")
    row, column = np.argwhere(heat.share_BB > 0)[0]
    assert heat.edges[row] <= 0 <= heat.edges[row + 1] and heat.edges[column] <= 0 <= heat.edges[column + 1]
    assert (heat.left_out, heat.points, heat.locations) == (0.5, 12, 6)
    assert heat.share_BB.sum() == pytest.approx(1 - heat.left_out)
    assert ax.patches[0].get_bbox().bounds == (0, 0, 1, 1), "the object's outline"
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "down is down"
    assert "50.0 % beyond the view" in ax.get_title(loc="left")


def test_small_multiples_have_a_column_for_each_size_that_there_is():
    probe = a_probe(9, area_P=[500] * 4 + [5000] * 5, reg_points_PK2=np.full((9, 3, 2), 40.0), cls_points_PK2=np.full((9, 3, 2), 50.0))
    assert list(sizes_of(probe)) == ["all", "s", "m"]
    heats = point_heat_maps(probe, Figure().subplots(2, 3))
    sizes = (("all", 9), ("s", 4), ("m", 5))
    assert [(heat.which, heat.size, heat.locations) for heat in heats] == [(which, *size) for which in ("reg", "cls") for size in sizes]


def test_a_run_without_points_draws_the_outline_and_says_so(ax):
    heat = point_heat_map(a_probe(5), ax, "cls")
    assert (heat.points, heat.locations) == (0, 0) and "no points" in ax.get_title(loc="left") and len(ax.patches) == 1
    with pytest.raises(ValueError, match="which = 'mask'"):
        point_heat_map(a_probe(5), ax, "mask")
