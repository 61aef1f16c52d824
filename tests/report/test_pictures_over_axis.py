"""A study over a numeric axis: the line is the table's numbers at the study's values, and what has none is said, not drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from salt_lab.errors import UserError
from salt_lab.report.figures import save_figures
from salt_lab.report.intervals import find_intervals
from salt_lab.report.pictures import over_axis, png, study_pictures
from salt_lab.report.pictures.axis import numeric_axes
from salt_lab.report.results import load_results
from salt_lab.report.rows import Table, study_table

OFFSETS = """
    base: {data: marks, schedule: {epochs: 3}}
    axes:
      data.mark_offset: [1.0, 0.0, 0.5]
      salt: [false, true]
    seeds: [0, 1]
    compare: {baseline: {salt: false}}
"""
POINTS = """
    base: {data: marks, schedule: {epochs: 2}}
    axes:
      host: [atss, gfl]
      salt: [false, true]
      salt.points: [4, 9, 25, 64]
    seeds: [0]
    compare: {baseline: {salt: false}}
"""
CHOICES = """
    base: {data: marks, salt: {enabled: true, sdr_weight: 1.0}, schedule: {epochs: 2}}
    one_at_a_time:
      vary:
        salt.sdr_weight: [0.0, 0.5, 2.0]
        salt.points: [4, 16]
        salt.sdr_kind: [smooth_l1]
        salt.long_skip: [none]
    seeds: [0, 1]
    compare: {baseline: {salt.sdr_weight: 1.0, salt.points: 9, salt.sdr_kind: giou, salt.long_skip: cls}}
"""


LONG_NAMES = """
    base: {data: marks, salt: {sdr_weight: 0.0}, schedule: {epochs: 3}}
    axes:
      data.mark_offset: [0.0, 0.5, 1.0]
    zip:
      salt.enabled: [false, true, true]
      salt.reg_at: [r_points, r_points, cell]
      salt.cls_at: [c_points, c_points, cell]
      salt.coarse_weight: [null, null, 1.0e-6]
    seeds: [0, 1]
    compare: {baseline: {salt.enabled: false}}
"""


@pytest.fixture
def axes():
    return Figure(figsize=(5, 4)).subplots(2, sharex=True)


@pytest.fixture
def lab(make_bench, make_study):
    """A study whose every trial is done: its AP falls by 4 along the axis without SALT, and only by 1 with it."""

    def make(text: str, leave_out: tuple = (), name: str = "over"):
        bench = make_bench(make_study(text, name))
        for number, cell in enumerate(bench.study.cells):
            for trial in cell.trials():
                if (number, trial.seed) not in leave_out:
                    bench.done(trial, 40.0 - number + 0.25 * trial.seed * (1 + number))
        return bench

    return make


def table_of(bench) -> Table:
    results = load_results(bench.study, bench.store)
    return study_table(results, find_intervals(results, None))


def words_under(ax) -> str:
    return " ".join(" ".join(text.get_text() for text in ax.texts).split())


def test_each_arm_is_drawn_at_the_axiss_values_in_their_order_with_the_tables_own_numbers(lab, axes):
    table = table_of(lab(OFFSETS))
    found = over_axis(table, axes)
    assert found.key == "data.mark_offset" and found.missing == []
    assert [arm.name for arm in found.arms] == ["without SALT", "with SALT"]
    for arm, salt in zip(found.arms, (False, True), strict=True):
        rows = {row.label["data.mark_offset"]: row for row in table.rows if row.label["salt.enabled"] is salt}
        assert [point.value for point in arm.points] == [0.0, 0.5, 1.0], "not in the file's order"
        for point in arm.points:
            row = rows[point.value]
            assert (point.ap, point.seeds) == (row.metrics["AP"].mean, tuple(row.ap_by_seed.values()))
        drawn = [line.get_xydata().tolist() for line in axes[0].lines]
        assert [[point.value, point.ap] for point in arm.points] in drawn
        assert all([[point.value, seed] for seed in point.seeds] in drawn for point in arm.points), "its seeds"


def test_the_difference_has_the_comparisons_interval_each_seeds_own_difference_and_a_line_at_zero(lab, axes):
    table = table_of(lab(OFFSETS))
    found = over_axis(table, axes)
    rows = {row.label["data.mark_offset"]: row for row in table.rows if row.baseline}
    drawn = [np.asarray(line.get_xydata()).tolist() for line in axes[1].lines]
    assert len(found.changes) == 3 and found.salt and "SALT's gain" in axes[1].get_ylabel()
    for change in found.changes:
        one = rows[change.value].comparison
        assert (change.delta, change.low, change.high, change.method) == (one.delta, one.low, one.high, "seeds")
        assert np.mean(change.seeds) == pytest.approx(change.delta)
        assert [[change.value, change.low], [change.value, change.high]] in drawn
    assert any(np.array_equal(line.get_ydata(), [0, 0]) for line in axes[1].lines), "zero"
    low, high = axes[1].get_ylim()
    assert low < min(change.low for change in found.changes) and high > max(change.high for change in found.changes), (
        "no interval is cut off"
    )
    assert "95 % interval: paired t over seeds" in words_under(axes[1])


def test_a_missing_cell_is_left_out_of_the_line_and_the_note_says_which_and_why(lab, axes):
    bench = lab(OFFSETS, leave_out=((0, 0), (0, 1), (2, 1), (4, 0), (5, 1)))
    found = over_axis(table_of(bench), axes)
    off, on = found.arms
    assert [point.value for point in off.points] == [0.0, 0.5] and [point.value for point in on.points] == [0.0, 0.5, 1.0]
    assert [change.value for change in found.changes] == [0.0], "at 1 there is no baseline, at 0.5 no common seed"
    said = words_under(axes[1])
    assert "Left out: without SALT at 1 (not run)." in said
    assert "Fewer seeds: without SALT at 0 (1 of 2), without SALT at 0.5 (1 of 2), with SALT at 0.5 (1 of 2)." in said
    assert "No difference: with SALT at 0.5 (no seed is done in both), with SALT at 1 (baseline not run)." in said


def test_a_baseline_that_has_no_number_of_points_is_a_level_line(lab, axes):
    found = over_axis(table_of(lab(POINTS)), axes)
    assert [(arm.name, len(arm.points)) for arm in found.arms] == [("atss", 1), ("atss + SALT", 4), ("gfl", 1), ("gfl + SALT", 4)]
    levels = [arm.points[0] for arm in found.arms if len(arm.points) == 1]
    assert all(math.isnan(point.value) for point in levels)
    assert {point.ap for point in levels} <= {line.get_ydata()[0] for line in axes[0].lines if list(line.get_xdata()) == [0, 1]}
    assert {change.arm for change in found.changes} == {"atss + SALT", "gfl + SALT"} and len(found.changes) == 8
    assert axes[0].get_xscale() == "log", "4 to 64"
    off, on, other, _ = (arm.look for arm in found.arms)
    assert off.colour == on.colour != other.colour and off.dash != on.dash, "told apart in grey too"
    assert "No interval: one seed" in words_under(axes[1])


def test_of_keys_changed_one_at_a_time_the_named_one_is_drawn_with_the_base_and_its_baseline_at_zero(lab, axes):
    table = table_of(lab(CHOICES))
    found = over_axis(table, axes, key="salt.sdr_weight")
    (arm,) = found.arms
    assert arm.name == "" and axes[0].get_legend() is None, "one line needs no name"
    assert [point.value for point in arm.points] == [0.0, 0.5, 1.0, 2.0], (
        "without SDR its kind has no effect: the 0 is on the line all the same"
    )
    assert [change.value for change in found.changes] == [0.0, 0.5, 2.0] and found.zeros == [(arm.name, 1.0)]
    assert "4 of the study's 8 cells are not on this axis." in words_under(axes[1])
    assert numeric_axes(table) == ["salt.points", "salt.sdr_weight"]
    assert [point.value for point in over_axis(table, axes, "salt.points").arms[0].points] == [4, 9, 16]


def test_which_axis_is_asked_where_there_are_two_and_a_wrong_or_missing_one_is_an_error_with_the_choices(lab, make_study, make_bench, axes):
    table = table_of(lab(CHOICES))
    with pytest.raises(UserError, match="study over: key: 2 numeric axes. Name .*'salt.points'. Choices: salt.points, salt.sdr_weight"):
        over_axis(table, axes)
    with pytest.raises(UserError, match="no numeric axis named 'salt.point'. Did you mean 'salt.points'"):
        over_axis(table, axes, "salt.point")
    with pytest.raises(UserError, match="no numeric axis named 'salt.long_skip'. .*Choices: salt.points, salt.sdr_weight"):
        over_axis(table, axes, "salt.long_skip")
    plain = "base: {data: marks}\nzip: {host: [atss, gfl, fcos], schedule.lr: [0.01, 0.02, 0.03]}\nseeds: [0]"
    with pytest.raises(UserError, match="no number changes alone. Add an axis"):
        over_axis(table_of(make_bench(make_study(plain, "zipped"))), axes)
    two = "base: {data: marks}\naxes: {data.mark_offset: [0, 1]}\nseeds: [0]"
    table = table_of(make_bench(make_study(two, "two")))
    with pytest.raises(UserError, match="no numeric axis of 3 values or more. Name .*'data.mark_offset'"):
        over_axis(table, axes)
    assert over_axis(table, axes, "data.mark_offset").arms[0].points == (), "nothing is done yet"


def test_one_panel_is_ap_alone_and_a_study_that_compares_nothing_gets_one(lab, make_study, store):
    ax = Figure().add_subplot()
    over_axis(table_of(lab(OFFSETS)), ax)
    assert ax.get_xlabel().startswith("data.mark_offset\nWhere the class mark lies") and "interval" not in words_under(ax)
    alone = load_results(make_study(OFFSETS.partition("compare")[0], "alone"), store)
    picture = study_pictures(alone, store, deep=False).of("over_data_mark_offset")
    assert len(picture.figure.axes) == 1 and picture.numbers.changes == []


def test_a_study_with_such_an_axis_has_the_picture_among_its_files_and_one_without_has_not(lab, full, tmp_path):
    bench = lab(OFFSETS)
    results = load_results(bench.study, bench.store)
    names = {path.name for path in save_figures(results, bench.store, tmp_path / "figures")}
    assert {"over_data_mark_offset.png", "over_data_mark_offset.pdf"} <= names
    assert (tmp_path / "figures" / "over_data_mark_offset.png").read_bytes().startswith(b"\x89PNG")
    picture = study_pictures(results, bench.store, deep=False).of("over_data_mark_offset")
    assert png(picture, dpi=60) == png(picture, dpi=60)
    assert "without SALT: AP " in picture.alt and "with SALT at 0.5: " in picture.alt
    found = study_pictures(load_results(full.study, full.store), full.store, deep=False)
    assert not any(name.startswith("over_") for name in (*found.missing, *(made.name for made in found.made)))


@pytest.mark.parametrize("study", [OFFSETS, LONG_NAMES], ids=["short", "long"])
def test_names_of_arms_take_no_width_from_the_picture_and_are_legible_whole(lab, study):
    bench = lab(study, name="names")
    picture = study_pictures(load_results(bench.study, bench.store), bench.store, deep=False).of("over_data_mark_offset")
    picture.figure.draw_without_rendering()
    upper, lower = picture.figure.axes
    page, legend = picture.figure.bbox, upper.get_legend().get_window_extent()
    assert min(upper.bbox.width, lower.bbox.width) > 0.75 * page.width
    assert page.x0 <= legend.x0 < legend.x1 <= page.x1 and legend.y1 <= page.y1 and legend.y0 >= upper.bbox.y1 - 1
    shown = [" ".join(text.get_text().split()) for text in upper.get_legend().get_texts()]
    assert shown == [arm.name for arm in picture.numbers.arms], "in the arms' order, wrapped at most"
