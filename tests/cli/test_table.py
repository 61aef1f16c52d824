"""``salt-lab table``: what the options do, and what is said when they make no sense."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.data import fingerprint
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import canonical, trial_id

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@pytest.fixture
def recorded(study: Path, store: Path) -> Path:
    """The study with two more seeds, every trial done: SALT gains 2.0, 2.5 and 3.0 AP."""
    study.write_text(study.read_text().replace("seeds: [0]", "seeds: [0, 1, 2]"))
    for trial in load_study(study).trials():
        data = fingerprint(trial.data)
        recorder = FolderRecorder(Store(store), trial_id(trial, data))
        recorder.start(trial=canonical(trial), study="tiny", launch_id="l", data_fingerprint=data, provenance={})
        ap = 30.0 + trial.seed + (2.0 + 0.5 * trial.seed if trial.salt.enabled else 0.0)
        recorder.done(metrics=dict.fromkeys(NAMES, ap), train_seconds=60, eval_seconds=1, peak_memory_mb=100, epochs=2)
    return study


def test_intervals_are_there_unless_they_are_declined(run: Callable, recorded: Path, store: Path) -> None:
    found, without = (run("table", recorded, "--store", store, *words) for words in ((), ("--no-intervals",)))
    assert found.exit_code == without.exit_code == 0, found.output
    assert "+2.5 [+1.3, +3.7]" in found.output  # 2.5 ± 4.303 * 0.5 / sqrt(3)
    assert "+2.5 ± 0.5" in without.output and "95 %" not in without.output


def test_a_table_in_a_file_has_its_runs_beside_it_and_says_so(run: Callable, recorded: Path, store: Path, tmp_path: Path) -> None:
    result = run("table", recorded, "--store", store, "--format", "latex", "-o", tmp_path / "table.tex")
    assert result.exit_code == 0 and result.stdout == ""
    assert f"the runs behind it to {tmp_path / 'table.runs.csv'}" in result.stderr
    assert r"\begin{table}" in (tmp_path / "table.tex").read_text()
    lines = list(csv.DictReader((tmp_path / "table.runs.csv").open()))
    assert len(lines) == 12 and all(line["trial_id"] and line["AP"] for line in lines)


def test_metrics_published_and_html_go_together(run: Callable, recorded: Path, store: Path) -> None:
    result = run("table", recorded, "--store", store, "--no-intervals", "--metrics", "AR100", "--format", "html", "--published")
    assert result.exit_code == 0, result.output
    assert ">AR100</th>" in result.output and ">AP50</th>" not in result.output and "No published number is comparable" in result.output
    everything = run("table", recorded, "--store", store, "--no-intervals", "--published", "all").output
    assert "SALT-Net, R-50 1x (published, COCO)" in everything


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--no-intervals", "--seed", "3"), "--resamples and --seed are for intervals"),
        (("--metrics", "mAP"), "no metric named 'mAP'"),
        (("--format", "word"), "'word' is not one of"),
        (("--published", "some"), "'some' is not one of"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_the_choices(run: Callable, study: Path, words: tuple[str, ...], said: str) -> None:
    result = run("table", study, *words)
    assert result.exit_code == 2 and said in result.output


def test_a_folder_that_is_not_there_is_an_error_of_one_line(run: Callable, recorded: Path, store: Path, tmp_path: Path) -> None:
    result = run("table", recorded, "--store", store, "--no-intervals", "-o", tmp_path / "no" / "table.md")
    assert (
        result.exit_code == 2 and "--output" in result.output and "there is no folder" in result.output and "Traceback" not in result.output
    )
