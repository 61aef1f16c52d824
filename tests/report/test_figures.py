"""Figures draw the records' numbers and give them back."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from salt_lab.report.figures import gains, learning_curves, save_figures
from salt_lab.report.results import load_results
from salt_lab.report.style import house_style, look
from salt_lab.report.table import study_table


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_gains_draws_each_pair_with_the_tables_own_numbers(full, ax):
    table = study_table(load_results(full.study, full.store))
    drawn = gains(table, ax)
    assert [gain.name for gain in drawn] == ["atss", "gfl"]
    for gain, row in zip(drawn, [row for row in table.rows if row.baseline], strict=True):
        assert (gain.variant, gain.delta) == (row.metrics["AP"].mean, row.delta.mean)
    assert drawn[1].delta < 0 and "−1.2" in {text.get_text() for text in ax.texts}, "a loss is shown"
    assert drawn[0].baseline_seeds == (30.0, 31.0, 32.5)


def test_a_cell_without_numbers_is_left_out_of_gains_and_an_unfinished_baseline_draws_no_delta(bench, ax):
    bench.done(bench.trial(0, host="atss", salt=True), 31.0)
    drawn = gains(study_table(load_results(bench.study, bench.store)), ax)
    assert [gain.name for gain in drawn] == ["atss"]
    assert drawn[0].baseline != drawn[0].baseline and not [text for text in ax.texts if text.get_text()]


def test_learning_curves_are_the_mean_and_the_range_over_finished_seeds(full, ax):
    curves = learning_curves(load_results(full.study, full.store), full.store, ax)
    atss = next(curve for curve in curves if curve.name == "atss + SALT")
    assert (atss.epochs, atss.n) == ((1, 2), 3)
    assert atss.mean == pytest.approx((34.25 - 12, 34.25))
    assert (atss.low[-1], atss.high[-1]) == (33.0, 36.25)
    assert len(ax.lines) == 4


def test_a_failed_trial_draws_no_curve(bench, ax):
    bench.failed(bench.trial(0, host="atss", salt=False))
    assert learning_curves(load_results(bench.study, bench.store), bench.store, ax) == []


def test_a_baseline_and_the_one_variant_compared_with_it_share_a_colour_and_differ_in_grey(full, ax):
    learning_curves(load_results(full.study, full.store), full.store, ax)
    off, on, other, _ = ax.lines
    assert off.get_color() == on.get_color() != other.get_color()
    assert off.get_linestyle() != on.get_linestyle() and off.get_markerfacecolor() != on.get_markerfacecolor()


def test_no_two_of_28_series_look_alike_and_neighbours_differ_in_marker_and_dash():
    looks = [look(index) for index in range(28)]
    assert len(set(looks)) == 28
    assert all(one.marker != other.marker and one.dash != other.dash for one, other in itertools.pairwise(looks))


def test_figures_are_saved_and_the_readers_settings_come_back(full, tmp_path):
    before = mpl.rcParams["font.size"]
    files = save_figures(load_results(full.study, full.store), full.store, tmp_path / "figures")
    both = [f"{name}{suffix}" for name in ("gains", "forest", "learning_curves") for suffix in (".png", ".pdf")]
    assert [path.name for path in files] == [*both, "ap_against_gflops.png", "ap_against_train_minutes.png"]
    assert files.missing == {"ap_against_inference_ms": "no record has inference_ms"}
    assert all(path.stat().st_size > 1000 for path in files)
    assert mpl.rcParams["font.size"] == before
    with house_style():
        assert mpl.rcParams["font.size"] == 7.5


def test_nothing_recorded_makes_no_figure(bench, tmp_path):
    saved = save_figures(load_results(bench.study, bench.store), bench.store, tmp_path / "figures")
    assert saved == [] and not list((tmp_path / "figures").iterdir())
    assert saved.missing["forest"] == "no comparison has a seed that is done in both arms"
    assert set(saved.missing) > {"gains", "learning_curves", "ap_against_gflops"} and all(saved.missing.values())
