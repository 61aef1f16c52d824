"""The table in every format: what is best, how sure a delta is, and LaTeX and HTML that other programs accept."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from salt_lab.errors import UserError
from salt_lab.report.companion import companion_path, runs_table
from salt_lab.report.compare import Comparison
from salt_lab.report.grid import chosen_metrics
from salt_lab.report.intervals import Intervals, find_intervals
from salt_lab.report.published import beside
from salt_lab.report.results import load_results
from salt_lab.report.table import FORMATS, render, study_table


def results_of(bench):
    return load_results(bench.study, bench.store)


def with_intervals(bench):
    results = results_of(bench)
    return study_table(results, find_intervals(results, None))


def grid(markdown: str) -> dict[tuple[str, str], list[str]]:
    lines = [[text.strip() for text in line.split("|")[1:-1]] for line in markdown.splitlines() if line.startswith("|")]
    return {(line[0], line[1]): line for line in lines}


def comparison(**fields) -> Comparison:
    usual = {
        "cell": "",
        "baseline": "",
        "delta": 3.0,
        "low": 1.0,
        "high": 5.0,
        "method": "seeds",
        "pairs": 3,
        "p": 0.01,
        "p_adjusted": 0.02,
    }
    return Comparison(**{**usual, "better": 1.0, "mark": "*", **fields})


def marked(bench, method: str, **fields):
    """The table with one made-up comparison for every compared cell."""
    results = results_of(bench)
    found = {
        cell.key: comparison(cell=cell.key, baseline=cell.baseline, method=method, **fields) for cell in bench.study.cells if cell.baseline
    }
    return study_table(results, Intervals(found, 1000, 7))


# --- best ---


def test_the_best_of_each_column_is_bold_in_every_text_format(full):
    table = study_table(results_of(full))
    assert grid(render(table))["atss", "on"][4] == "**59.2** ± 1.8"
    assert r"\textbf{34.2} $\pm$ 1.8 (3)" in render(table, "latex")
    assert "<b>34.2</b> ± 1.8 (3)" in render(table, "html")
    assert render(table).count("**") == 2 * 5, "AP, AP50, AP75, APs and APm, each once; APl is undefined everywhere"


@pytest.mark.parametrize("end", ["partial", "stopped"])
def test_a_row_that_is_not_finished_is_never_the_best(bench, end):
    for host, salt, ap in (("atss", False, 30.0), ("gfl", False, 31.0)):
        for seed in range(3):
            bench.done(bench.trial(seed, host=host, salt=salt), ap)
    for seed in range(2):
        bench.done(bench.trial(seed, host="atss", salt=True), 50.0)
    if end == "stopped":
        bench.stopped(bench.trial(2, host="atss", salt=True), 10.0)
    lines = grid(render(study_table(results_of(bench))))
    assert lines["gfl", "off"][2] == "**31.0** ± 0.0 (3)"
    assert "**" not in " ".join(lines["atss", "on"]) and lines["atss", "on"][2].startswith("50.0")


def test_ties_as_the_table_shows_them_are_all_bold(bench):
    for host, ap in (("atss", 30.04), ("gfl", 30.0)):
        for seed in range(3):
            bench.done(bench.trial(seed, host=host, salt=False), ap)
    lines = grid(render(study_table(results_of(bench))))
    assert lines["atss", "off"][2].startswith("**30.0**") and lines["gfl", "off"][2].startswith("**30.0**")


def test_one_finished_row_alone_is_the_best_of_nothing(bench):
    for seed in range(3):
        bench.done(bench.trial(seed, host="atss", salt=False), 30.0)
    assert "**" not in render(study_table(results_of(bench)))


# --- how sure ---


def test_a_delta_has_its_interval_and_its_mark_and_the_caption_says_what_they_are(full):
    text = render(with_intervals(full))
    delta = grid(text)["atss", "on"][3]
    mean, low, high = (float(number) for number in re.fullmatch(r"(\+[\d.]+) \[(\+[\d.]+), (\+[\d.]+)\]\*?\*?", delta).groups())
    assert low < mean < high
    # the paired t interval of 3.0, 2.5, 3.75 by hand: 3.083 ± 4.303 * 0.6292 / sqrt(3)
    assert (low, high) == (1.5, 4.6)
    assert "[low, high]: 95 % interval, paired t over seeds." in text and "adjusted for 2 comparisons (Holm)" in text
    assert grid(text)["atss", "off"][3] == "–"


def test_a_bootstrap_names_its_resamples_and_its_seed(full):
    text = render(marked(full, "seeds and images"))
    assert "hierarchical bootstrap over seeds and images" in text and "1000 resamples, bootstrap seed 7" in text
    assert "resamples" not in render(marked(full, "seeds"))


def test_the_interval_of_one_seed_says_that_seeds_are_not_in_it(full):
    one = render(marked(full, "images", mark=""))
    assert "images of one seed, so without the spread over seeds" in one and "One seed earns no significance mark" in one


def test_a_delta_without_an_interval_has_no_mark_and_the_caption_says_why(full):
    text = render(marked(full, "none", mark=""))
    assert grid(text)["atss", "on"][3] == "+3.1 ± 0.6" and "No delta has an interval" in text


def test_why_an_interval_lacks_something_is_said_once(full):
    table = marked(full, "seeds", note="trial 0123456789ab: no detections")
    assert render(table).count("no detections") == 1 and "Intervals: 2 of 2: trial 0123456789ab: no detections; 1 more alike." in render(
        table
    )


def test_a_loss_keeps_its_minus_in_latex_and_html_and_marks_are_raised(full):
    table = marked(full, "seeds", low=-3.9, high=-0.4, mark="**")
    assert r"$-$1.2 [$-$3.9, $-$0.4]$^{**}$" in render(table, "latex")
    assert "−1.2 [−3.9, −0.4]**" in render(table, "html")


def test_csv_has_the_intervals_to_every_digit_only_where_they_were_asked_for(full):
    plain, found = (
        list(csv.DictReader(io.StringIO(render(table, "csv")))) for table in (study_table(results_of(full)), with_intervals(full))
    )
    assert "delta_AP_low" not in plain[0]
    by_state = {(line["host"], line["salt.enabled"]): line for line in found}
    line = by_state["atss", "on"]
    assert float(line["delta_AP_low"]) < float(line["delta_AP"]) < float(line["delta_AP_high"])
    assert (line["delta_AP_method"], line["delta_AP_pairs"]) == ("seeds", "3")
    assert by_state["atss", "off"]["delta_AP_low"] == ""


def test_arms_that_share_no_seed_have_a_difference_with_intervals_and_none_without(bench):
    for seed, salt, ap in ((0, False, 30.0), (1, True, 33.0)):
        bench.done(bench.trial(seed, host="atss", salt=salt), ap)
    results = results_of(bench)
    key = next(cell.key for cell in bench.study.cells if cell.label == {"host": "atss", "salt.enabled": True})
    table = study_table(results, Intervals({key: comparison(method="seeds, unpaired", pairs=0, mark="")}, 1000, 0))
    assert grid(render(table))["atss", "on"][3] == "+3.0 [+1.0, +5.0]" and "Welch's t" in render(table)
    assert grid(render(study_table(results)))["atss", "on"][3] == "…"


# --- columns ---


def test_metric_columns_can_be_chosen_among_cocos_twelve_and_ap_is_always_first(full):
    table = study_table(results_of(full))
    head = next(iter(grid(render(table, metrics=chosen_metrics("AR100,AP75")))))
    text = render(table, metrics=chosen_metrics("AR100,AP75"))
    assert head == ("host", "SALT") and re.sub(r"\s+", "", text.splitlines()[0]).startswith("|host|SALT|AP|delta|AR100|AP75|params")
    assert "52.2" in text, "AR100 is AP + 21"
    with pytest.raises(UserError, match="Did you mean 'AP75'"):
        chosen_metrics("AP,AP_75")


# --- formats ---


def test_html_is_well_formed_needs_nothing_else_and_escapes_what_it_shows(make_study, make_bench):
    bench = make_bench(make_study("question: Is a < b & c?\nbase: {data: marks}\naxes: {host: [atss, gfl]}\nseeds: [0]\n", "angles"))
    bench.done(bench.trial(0, host="atss"), 30.0)
    page = render(study_table(results_of(bench)), "html", cost=True)
    assert "Is a &lt; b &amp; c?" in page and "<!doctype html>" in page and "<script" not in page and "http" not in page
    opened: list[str] = []

    class Check(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta",):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Check().feed(page)
    assert opened == []
    widths = {len(re.findall("<t[dh]", row)) for row in re.findall("<tr>.*?</tr>", page)}
    assert len(widths) == 1


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed: apt-get install texlive-latex-base texlive-latex-recommended"
)
@pytest.mark.parametrize("published", [False, True], ids=["ours", "with published rows"])
def test_the_latex_compiles_with_booktabs_and_is_no_wider_than_the_text(bench, tmp_path, published):
    for seed in range(3):
        bench.done(bench.trial(seed, host="atss", salt=False), 30.0 + seed)
        bench.done(bench.trial(seed, host="atss", salt=True), 33.0 + 1.5 * seed, code_version="c0de00000002")
    bench.stopped(bench.trial(0, host="gfl", salt=True), 12.0)
    results = results_of(bench)
    table = study_table(results, find_intervals(results, None))
    text = render(table, "latex", cost=True, published=beside(results, everything=True) if published else None)
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    packages = r"\documentclass{article}\usepackage{booktabs}\usepackage{graphicx}"
    (tmp_path / "paper.tex").write_text(packages + r"\begin{document}\input{table}\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
    assert "Overfull \\hbox" not in done.stdout


@pytest.mark.parametrize("form", FORMATS)
def test_a_study_that_was_never_run_has_a_table_in_every_format(bench, form):
    text = render(with_intervals(bench), form, cost=True, published=beside(results_of(bench)))
    assert text.endswith("\n") and "not run" in text


# --- the companion ---


def test_the_companion_names_every_trial_with_its_run_commit_code_data_and_ap(bench):
    done, identity = bench.done(bench.trial(0, host="atss", salt=False), 30.0), bench.failed(bench.trial(2, host="gfl", salt=True))
    (bench.store.trial_dir(done) / "mlflow.json").write_text('{"two_hosts": {"run_id": "f00d"}}', encoding="utf-8")
    lines = list(csv.DictReader(io.StringIO(runs_table(results_of(bench)))))
    assert len(lines) == 12 and list(lines[0])[:2] == ["cell_key", "label"]
    assert (lines[0]["run_id"], lines[0]["label"], lines[0]["commit"]) == ("f00d", "host=atss salt=off", "1a2b3c4 + uncommitted changes")
    assert lines[0]["data_fingerprint"].startswith("marks-") and float(lines[0]["AP"]) == 30.0
    failed = next(line for line in lines if line["trial_id"] == identity)
    assert (failed["state"], failed["AP"], failed["run_id"]) == ("failed", "", "")


def test_the_companion_lies_beside_its_table(tmp_path):
    assert companion_path(tmp_path / "table.tex").name == "table.runs.csv"
