"""The table says what the records say: nothing more, nothing hidden."""

from __future__ import annotations

import csv
import io
import re
import shutil

import pytest

from salt_lab.errors import UserError
from salt_lab.record import Store
from salt_lab.report.results import load_results
from salt_lab.report.table import pivot_table, render, study_table
from salt_lab.spec.study import load_study


def table_of(bench):
    return study_table(load_results(bench.study, bench.store))


def row_of(bench, **label):
    keys = {"host": "host", "salt": "salt.enabled"}
    return next(row for row in table_of(bench).rows if all(row.label[keys[key]] == value for key, value in label.items()))


def grid(markdown: str) -> list[list[str]]:
    return [[text.strip() for text in re.split(r"(?<!\\)\|", line)[1:-1]] for line in markdown.splitlines() if line.startswith("|")]


def test_the_delta_is_the_mean_of_the_seeds_differences_as_by_hand(full):
    row = row_of(full, host="atss", salt=True)
    assert row.delta.mean == pytest.approx((3.0 + 2.5 + 3.75) / 3)
    assert row.delta.sd == pytest.approx(0.6291528696)  # sample SD of 3.0, 2.5, 3.75, by hand
    assert row.delta.n == 3


def test_the_spread_is_the_sample_standard_deviation_over_seeds(full):
    ap = row_of(full, host="gfl", salt=False).metrics["AP"]
    assert (ap.mean, ap.sd, ap.n) == (29.0, 1.0, 3)


def test_a_seed_that_one_arm_lacks_is_in_its_mean_but_not_in_the_delta(bench):
    for seed, ap in enumerate((30.0, 31.0, 50.0)):
        bench.done(bench.trial(seed, host="atss", salt=False), ap)
    for seed, ap in enumerate((32.0, 34.0)):
        bench.done(bench.trial(seed, host="atss", salt=True), ap)
    row = row_of(bench, host="atss", salt=True)
    assert (row.delta.mean, row.delta.n) == (2.5, 2)
    assert row_of(bench, host="atss", salt=False).metrics["AP"].mean == 37.0
    line = next(line for line in grid(render(table_of(bench), "md")) if line[:2] == ["atss", "on"])
    assert line[2] == "33.0 ± 1.4 … 2/3 seeds, 1 not run"
    assert line[3] == "+2.5 ± 0.7"


def test_arms_without_a_common_seed_have_no_delta(bench):
    bench.done(bench.trial(0, host="atss", salt=False), 30.0)
    bench.done(bench.trial(1, host="atss", salt=True), 40.0)
    assert row_of(bench, host="atss", salt=True).delta.n == 0
    assert next(line for line in grid(render(table_of(bench))) if line[:2] == ["atss", "on"])[3] == "…"


def test_a_failed_trial_never_enters_the_mean_and_is_named_with_its_reason(bench):
    bench.done(bench.trial(0, host="atss", salt=False), 30.0)
    identity = bench.failed(bench.trial(1, host="atss", salt=False), last_ap=99.0)
    row = row_of(bench, host="atss", salt=False)
    assert (row.metrics["AP"].mean, row.done, row.asked) == (30.0, 1, 3)
    assert "99" not in render(table_of(bench), "csv")
    assert f"seed 1 (trial {identity}) failed: RuntimeError: out of memory" in render(table_of(bench))


def test_a_cell_of_failures_alone_shows_its_state_and_no_number(bench):
    for seed in range(3):
        bench.failed(bench.trial(seed, host="gfl", salt=True))
    line = next(line for line in grid(render(table_of(bench))) if line[:2] == ["gfl", "on"])
    assert line[2] == "… failed"
    assert set(line[3:]) == {"…"}


def test_a_study_that_was_never_run_is_a_table_of_not_run_cells(bench):
    text = render(table_of(bench))
    assert text.count("… not run") == 4
    assert "12 of 12 trials not run yet" in text and "WARNING" not in text
    assert not bench.store.root.exists(), "reading made folders"


def test_a_baseline_has_a_dash_for_its_delta_and_a_loss_keeps_its_minus(full):
    lines = {tuple(line[:2]): line for line in grid(render(table_of(full)))}
    assert lines["gfl", "off"][3] == "–"
    assert lines["gfl", "on"][3] == "-1.2 ± 0.8"
    assert lines["atss", "on"][2] == "**34.2** ± 1.8 (3)"


def test_markdown_has_as_many_cells_in_every_line_as_in_its_head_and_is_aligned(full):
    text = render(table_of(full))
    rows = grid(text)
    assert len(rows) == 2 + 4
    metrics, costs = ["AP50", "AP75", "APs", "APm", "APl"], ["params (M)", "GFLOPs", "train (min)", "peak (MB)"]
    assert rows[0] == ["host", "SALT", "AP", "delta", *metrics, *costs]
    assert {len(row) for row in rows} == {13}
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1


def test_with_cost_speed_and_input_size_stand_beside_the_accuracy_and_the_caption_says_what_they_are(bench):
    for seed, ms in enumerate((20.0, 21.0, 25.0)):
        bench.done(
            bench.trial(seed, host="atss", salt=False), 30.0, inference={"ms": ms, "p10_ms": ms - 1, "p90_ms": ms + 1, "repeats": 20}
        )
    text = render(table_of(bench), cost=True)
    rows = grid(text)
    assert rows[0][-3:] == ["train (img/s)", "inference (ms)", "input"]
    assert next(line for line in rows if line[:2] == ["atss", "off"])[-3:] == ["10.0", "22.0", "112 x 112"]
    assert next(line for line in rows if line[:2] == ["gfl", "on"])[-3:] == ["…"] * 3
    assert "multiply-adds" in text and "median milliseconds" in text
    assert "22.0 & 112 x 112" in render(table_of(bench), "latex", cost=True)
    line = next(csv.DictReader(io.StringIO(render(table_of(bench), "csv", cost=True))))
    assert (float(line["inference_ms"]), float(line["train_images_per_second"]), line["input_size"]) == (22.0, 10.0, "112 x 112")


def test_a_record_from_before_inference_was_timed_has_no_inference_time(full):
    assert {line[-2] for line in grid(render(table_of(full), cost=True))[2:]} == {"n/a"}
    line = next(csv.DictReader(io.StringIO(render(table_of(full), "csv", cost=True))))
    assert line["inference_ms"] == ""


@pytest.mark.parametrize("study", ["quickstart", "bccd"])
def test_the_committed_records_still_make_the_committed_numbers(repository, study, monkeypatch, tmp_path):
    monkeypatch.setenv("SALT_LAB_BCCD", str(tmp_path / "not_on_this_machine"))
    monkeypatch.setenv("SALT_LAB_MOBILENET_V2", str(tmp_path / "mobilenet_v2_imagenet.pth"))
    results = load_results(load_study(repository / "experiments" / f"{study}.yaml"), Store(repository / "benchmarks" / "results" / study))
    committed = (repository / "benchmarks" / "results" / study / "table.csv").read_text()
    now, then = (
        [{**row, "cell_key": ""} for row in csv.DictReader(io.StringIO(text))] for text in (render(study_table(results), "csv"), committed)
    )
    assert now == then  # a cell's key depends on where the data lie


def test_a_bar_in_a_label_does_not_make_a_column():
    from salt_lab.report.table import markdown

    assert {len(row) for row in grid(markdown(["a", "b"], [["x|y", "1"], ["two\nlines", "2"]], 1))} == {2}


def test_the_caption_names_data_seeds_code_date_and_what_the_spread_is_over(full):
    text = render(table_of(full))
    for fact in (
        "two_hosts",
        "marks-",
        "Seeds: 0, 1, 2",
        "1a2b3c4 + uncommitted changes",
        "c0de00000001",
        " UTC",
        "over seeds",
        "paired by seed",
    ):
        assert fact in text, fact


def test_run_ids_are_mlflows_where_delivered_and_the_trials_otherwise(full):
    identity = load_results(full.study, full.store).frame["trial_id"][0]
    (full.store.trial_dir(identity) / "mlflow.json").write_text('{"two_hosts": {"run_id": "f00d"}}', encoding="utf-8")
    runs = table_of(full).rows[0].runs
    assert runs[0] == "seed 0 f00d"
    assert runs[1].startswith("seed 1 trial ")
    assert "seed 0 f00d, seed 1 trial" in render(table_of(full))


def test_two_code_versions_in_one_table_are_a_visible_warning_in_every_text_format(bench):
    bench.done(bench.trial(0, host="atss", salt=False), 30.0)
    bench.done(bench.trial(0, host="atss", salt=True), 31.0, code_version="c0de00000002")
    assert "**WARNING: 2 code versions in one table (c0de00000001; c0de00000002)" in render(table_of(bench), "md")
    assert r"\textbf{WARNING: 2 code versions" in render(table_of(bench), "latex")


def test_a_trial_whose_code_changed_between_attempts_is_a_warning_too(bench):
    trial = bench.trial(0, host="atss", salt=False)
    bench.start(trial).interrupted("Ctrl-C")
    bench.done(trial, 30.0, code_version="c0de00000002")
    assert "2 code versions" in render(table_of(bench))


def test_two_packages_with_the_same_training_code_are_no_warning(bench):
    bench.done(bench.trial(0, host="atss", salt=False), 30.0, training_code="7ra1n0000001")
    bench.done(bench.trial(0, host="atss", salt=True), 31.0, training_code="7ra1n0000001", code_version="c0de00000002")
    assert "WARNING" not in render(table_of(bench))


def test_two_versions_of_the_training_code_are_a_warning_that_names_them(bench):
    bench.done(bench.trial(0, host="atss", salt=False), 30.0, training_code="7ra1n0000001")
    bench.done(bench.trial(0, host="atss", salt=True), 31.0, training_code="7ra1n0000002")
    assert "WARNING: 2 versions of the training code in one table (7ra1n0000001; 7ra1n0000002)" in render(table_of(bench))


def test_the_caption_says_which_trials_other_training_code_made_than_the_present(bench, monkeypatch):
    monkeypatch.setattr("salt_lab.report.evidence.training_code_version", lambda: "0123456789ab")
    bench.done(bench.trial(0, host="atss", salt=False), 30.0, training_code="0123456789ab")
    assert "training code" not in render(table_of(bench))
    bench.done(bench.trial(0, host="atss", salt=True), 31.0, training_code="7ra1n0000001")
    bench.done(bench.trial(0, host="gfl", salt=True), 31.0)
    sentence = "2 of 3 finished trials were made by other training code (7ra1n0000001, not recorded; now 0123456789ab)."
    assert sentence in render(table_of(bench), "md") and sentence in render(table_of(bench), "latex")


def test_two_data_sets_in_one_table_are_a_visible_warning(make_study, make_bench):
    text = "question: q\nbase: {host: atss}\naxes: {data.mark_offset: [0.0, 1.0]}\nseeds: [0]\n"
    bench = make_bench(make_study(text, "offsets"))
    for cell in bench.study.cells:
        bench.done(cell.trials()[0], 30.0)
    assert "WARNING: 2 data sets in one table (marks-" in render(table_of(bench))


def test_csv_keeps_every_digit(full):
    table = table_of(full)
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert len(lines) == len(table.rows)
    for line, row in zip(lines, table.rows, strict=True):
        assert float(line["AP"]) == row.metrics["AP"].mean
        assert float(line["AP_sd"]) == row.metrics["AP"].sd
        assert float(line["train_minutes"]) == row.train_minutes == 1.5
        assert line["delta_AP"] == ("" if row.delta is None else repr(row.delta.mean))
        assert line["APl"] == "", "undefined must be empty"


def test_latex_is_balanced_escaped_and_has_a_caption(full):
    text = render(table_of(full), "latex")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[{}]", "", body)
    depth = [bare[: index + 1].count("{") - bare[: index + 1].count("}") for index in range(len(bare))]
    assert min(depth) == 0 and depth[-1] == 0
    assert re.findall(r"\\begin{(\w+)}", body) == re.findall(r"\\end{(\w+)}", body)[::-1]
    assert r"two\_hosts by 100 \%?" in body and not re.search(r"(?<!\\)[_%#]", re.sub(r"\\label{.*}", "", body))
    assert r"\toprule" in body and r"\caption[two\_hosts]{" in body and "$-$1.2 $\\pm$ 0.8" in body
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [line.count(" & ") for line in rows] == [8] * 5 + [5] * 5, "accuracy, and under it the cost of the same rows"


def test_the_table_reads_the_records_only(full):
    before = render(table_of(full), "csv")
    for identity in full.store.trial_ids():
        (full.store.trial_dir(identity) / "config.py").write_text("nonsense", encoding="utf-8")
    for folder in (full.store.root / "trials").iterdir():
        for path in folder.iterdir():
            if path.name != "record.jsonl":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert render(table_of(full), "csv") == before


def test_a_value_that_rounds_to_nothing_has_no_sign(bench):
    for salt, ap in ((False, 30.0), (True, 29.99)):
        bench.done(bench.trial(0, host="atss", salt=salt), ap)
    assert next(line for line in grid(render(table_of(bench))) if line[:2] == ["atss", "on"])[3] == "0.0"


def test_an_unknown_format_is_refused_with_the_choices(bench):
    with pytest.raises(UserError, match="Did you mean 'latex'"):
        render(table_of(bench), "latec")


def test_a_two_armed_study_pivots_to_host_ap_ap_with_salt_delta(full):
    text = render(pivot_table(load_results(full.study, full.store)))
    assert grid(text)[0] == ["host", "AP", "AP + SALT", "delta"]
    assert grid(text)[2:] == [
        ["atss", "31.2 ± 1.3 (3)", "34.2 ± 1.8 (3)", "+3.1 ± 0.6"],
        ["gfl", "29.0 ± 1.0 (3)", "27.8 ± 0.8 (3)", "-1.2 ± 0.8"],
    ]


def test_a_pivot_of_unfinished_arms_shows_what_there_is(bench):
    bench.done(bench.trial(0, host="atss", salt=False), 30.0)
    rows = grid(render(pivot_table(load_results(bench.study, bench.store))))
    assert rows[2] == ["atss", "30.0 … 1/3 seeds, 2 not run", "… not run", "…"]


@pytest.mark.parametrize(
    ("axes", "baseline"),
    [("{salt.points: [5, 9, 12]}", "{salt.points: 9}"), ("{salt: [false, true], salt.points: [5, 9]}", "{salt: false}")],
)
def test_a_study_with_more_than_two_arms_has_no_pivot(make_study, store, axes, baseline):
    study = make_study(f"question: q\nbase: {{salt: true}}\naxes: {axes}\nseeds: [0]\ncompare:\n  baseline: {baseline}\n", "points")
    assert pivot_table(load_results(study, store)) is None


def test_without_compare_there_is_no_delta_column(make_study, store):
    study = make_study("question: q\nbase: {salt: true}\naxes: {host: [atss, gfl]}\nseeds: [0]\n", "plain")
    results = load_results(study, store)
    assert "delta" not in grid(render(study_table(results)))[0]
    assert pivot_table(results) is None


def test_records_are_found_where_the_data_set_is_not(make_study, make_bench, store, tmp_path):
    folder = tmp_path / "cells"
    (folder / "images").mkdir(parents=True)
    for name in ("train.json", "val.json"):
        (folder / name).write_text('{"images": [], "annotations": [], "categories": []}', encoding="utf-8")
    text = f"question: q\nbase:\n  data: {{train: {folder}/train.json, val: {folder}/val.json, images: {folder}/images}}\nseeds: [0]\n"
    study = make_study(text, "real")
    make_bench(study).done(study.cells[0].trials()[0], 41.5)
    assert study_table(load_results(study, store)).rows[0].done == 1
    moved = make_study(text.replace(str(folder), str(tmp_path / "elsewhere")), "real")
    shutil.rmtree(folder)
    assert study_table(load_results(moved, store)).rows[0].metrics["AP"].mean == 41.5


def test_a_cell_that_the_study_names_is_shown_by_its_name(make_study, make_bench, store):
    text = "question: q\nbase: {host: atss}\ncases:\n  - {name: plain, salt: false}\n  - {name: full model, salt: true}\nseeds: [0]\n"
    bench = make_bench(make_study(text, "named"))
    rows = grid(render(table_of(bench)))
    assert rows[0][:2] == ["cell", "SALT"]
    assert [row[:2] for row in rows[2:]] == [["plain", "off"], ["full model", "on"]]
