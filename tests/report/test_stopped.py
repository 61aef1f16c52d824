"""A trial that early stopping ended is marked wherever it is shown, and is in no number."""

from __future__ import annotations

import csv
import io
import re

import matplotlib.pyplot as plt
import pytest

from salt_lab.report.figures import gains, learning_curves
from salt_lab.report.results import load_results
from salt_lab.report.table import pivot_table, render, study_table


@pytest.fixture
def searched(bench):
    """Three seeds of each cell; one seed of ATSS with SALT was stopped, and all of GFL with SALT."""
    for host, first in (("atss", 30.0), ("gfl", 28.0)):
        for seed in range(3):
            bench.done(bench.trial(seed, host=host, salt=False), first + seed, curve=(first - 12,))
    for seed, ap in ((0, 33.0), (1, 34.0)):
        bench.done(bench.trial(seed, host="atss", salt=True), ap, curve=(20.0,))
    bench.stopped(bench.trial(2, host="atss", salt=True), 77.7)
    for seed in range(3):
        bench.stopped(bench.trial(seed, host="gfl", salt=True), 77.7)
    return bench


def table_of(bench):
    return study_table(load_results(bench.study, bench.store))


def rows_of(bench):
    return {(row.label["host"], row.label["salt.enabled"]): row for row in table_of(bench).rows}


def grid(markdown):
    lines = [[text.strip() for text in line.split("|")[1:-1]] for line in markdown.splitlines() if line.startswith("|")]
    return {tuple(line[:2]): line for line in lines}


def test_a_stopped_trial_is_in_no_mean_and_no_delta(searched):
    row = rows_of(searched)["atss", True]
    assert (row.metrics["AP"].mean, row.metrics["AP"].n, row.delta.mean, row.delta.n) == (33.5, 2, 3.0, 2)
    assert (row.done, row.asked, row.stopped) == (2, 3, 1)
    alone = rows_of(searched)["gfl", True]
    assert alone.metrics["AP"].n == 0 and alone.delta.n == 0
    assert all("77.7" not in line or "early stopping at epoch 1" in line for line in render(table_of(searched)).splitlines())


def test_a_row_of_which_some_seeds_were_stopped_shows_n_of_m_and_a_dagger_at_every_number(searched):
    lines = grid(render(table_of(searched)))
    assert lines["atss", "on"][2:5] == ["33.5 ± 0.7† … 2/3 seeds, 1 stopped", "+3.0 ± 0.0†", "58.5 ± 0.7†"]
    assert lines["gfl", "on"][2:5] == ["… stopped", "…", "…"]
    assert not any("†" in text for text in lines["atss", "off"])


def test_the_table_says_that_its_means_are_of_chosen_seeds_and_what_to_do(searched):
    text = render(table_of(searched))
    assert "Early stopping ended 4 of 12 trials before their last epoch; they are in no number." in text
    assert "**WARNING: 1 row has seeds that early stopping ended: means over the seeds that did better (†), too high" in text
    assert "salt-lab run STUDY early_stop=null" in text
    reasons = re.findall(r"seed 2 \(trial \w+\) stopped: early stopping at epoch 1: AP 77.7, needed 30.0 to be among the best 1 of 4", text)
    assert len(reasons) == 2, "both hosts' third seeds are named with their reasons"


def test_cells_that_were_stopped_whole_bias_no_mean_and_need_no_warning(bench):
    for seed in range(3):
        bench.done(bench.trial(seed, host="atss", salt=False), 30.0 + seed)
        bench.stopped(bench.trial(seed, host="atss", salt=True), 10.0)
    text = render(table_of(bench))
    assert "WARNING" not in text and "†" not in text and "Early stopping ended 3 of 12 trials" in text


def test_latex_marks_them_in_the_table_and_warns_in_the_caption(searched):
    text = render(table_of(searched), "latex")
    assert r"33.5 $\pm$ 0.7$^\dagger$ \ldots{} 2/3 seeds, 1 stopped & +3.0 $\pm$ 0.0$^\dagger$" in text
    assert r"\textbf{WARNING: 1 row has seeds that early stopping ended" in text and r"early\_stop=null" in text


def test_csv_counts_them_in_a_column_that_other_studies_do_not_have(searched, bench):
    lines = {(line["host"], line["salt.enabled"]): line for line in csv.DictReader(io.StringIO(render(table_of(searched), "csv")))}
    assert (lines["atss", "on"]["seeds_done"], lines["atss", "on"]["seeds_stopped"], lines["atss", "on"]["AP_n"]) == ("2", "1", "2")
    assert (lines["gfl", "on"]["state"], lines["gfl", "on"]["AP"], lines["gfl", "on"]["delta_AP"]) == ("stopped", "", "")


def test_without_early_stopping_a_table_does_not_speak_of_it(full):
    for form in ("md", "latex", "csv"):
        assert not re.search("stopp|†|dagger", render(table_of(full), form))


def test_the_short_table_marks_them_too(searched):
    text = render(pivot_table(load_results(searched.study, searched.store)))
    assert "| 33.5 ± 0.7† … 2/3 seeds, 1 stopped | +3.0 ± 0.0† |" in text
    assert "… stopped" in text and "Early stopping ended 4 of 12 trials" in text and "**WARNING: 1 row has seeds" in text


def test_a_baseline_some_of_whose_seeds_were_stopped_marks_the_deltas_against_it(bench):
    for seed in range(2):
        bench.done(bench.trial(seed, host="atss", salt=False), 30.0 + seed)
    bench.stopped(bench.trial(2, host="atss", salt=False), 5.0)
    for seed in range(3):
        bench.done(bench.trial(seed, host="atss", salt=True), 33.0 + seed)
    lines = grid(render(table_of(bench)))
    assert lines["atss", "on"][2:4] == ["34.0 ± 1.0 (3)", "+3.0 ± 0.0† (2)"]


def test_figures_end_no_line_in_a_stopped_trial_and_name_the_seeds_that_are_left(searched):
    axes = plt.figure().subplots(1, 2)
    drawn = {gain.name: gain for gain in gains(table_of(searched), axes[0])}
    assert list(drawn) == ["atss (2 of 3 seeds†)"], "GFL's variant has no number"
    assert (drawn["atss (2 of 3 seeds†)"].variant, drawn["atss (2 of 3 seeds†)"].variant_seeds) == (33.5, (33.0, 34.0))
    curves = {curve.name: curve for curve in learning_curves(load_results(searched.study, searched.store), searched.store, axes[1])}
    assert set(curves) == {"atss", "gfl", "atss + SALT (2 of 3 seeds†)"}
    assert all(max(curve.high) < 77 for curve in curves.values())


def test_a_stopped_trial_that_was_finished_is_a_trial_like_any_other(searched):
    for host, seeds in (("atss", (2,)), ("gfl", range(3))):
        for seed in seeds:
            searched.done(searched.trial(seed, host=host, salt=True), 31.0, curve=(20.0,))
    text = render(table_of(searched))
    assert "†" not in text and "stopped" not in text and rows_of(searched)["gfl", True].done == 3
