"""What ``salt-lab power`` says: a number of seeds with its basis, or plainly what is missing and how to get it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.data import fingerprint
from salt_lab.record import FolderRecorder, Store
from salt_lab.record.fold import COCO_NAMES
from salt_lab.report.image_draws import StudyImages
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import canonical, trial_id

PROVENANCE = {"git_commit": None, "git_dirty": None, "code_version": "test", "packages": {}, "machine": {}, "python": "3"}
#: By host, then SALT off and on, then seed: the differences are 1.0, 2.0, 3.0 and 0.5, 1.0, 1.5.
THREE_SEEDS = {"fcos": ((30.0, 32.0, 31.0), (31.0, 34.0, 34.0)), "atss": ((30.0, 30.5, 31.0), (30.5, 31.5, 32.5))}
ONE_SEED = {"fcos": ((30.0,), (31.0,)), "atss": ((30.0,), (30.5,))}


@pytest.fixture
def trained(study: Path, store: Path) -> Callable[..., None]:
    """Write the journals of the tiny study as if it had been trained to these APs."""

    def train(aps: dict, *overrides: str) -> None:
        plan = load_study(study, overrides)
        for cell in plan.cells:
            for trial, ap in zip(cell.trials(), aps[trial_host(cell)][cell.label["salt.enabled"]], strict=True):
                write(trial, ap, plan.name)

    def write(trial, ap, name) -> None:
        data = fingerprint(trial.data)
        recorder = FolderRecorder(Store(store), trial_id(trial, data))
        recorder.start(trial=canonical(trial), study=name, launch_id="l", data_fingerprint=data, provenance=PROVENANCE)
        metrics = dict.fromkeys(COCO_NAMES, ap)
        recorder.done(metrics=metrics, epochs=1, train_seconds=1.0, eval_seconds=1.0, peak_memory_mb=1.0)

    return train


def trial_host(cell) -> str:
    return cell.label["host"]


def numbers_of(line: str) -> list[float]:
    return [float(text.replace(",", "")) for text in re.findall(r"\d[\d,]*(?:\.\d+)?", line)]


def test_a_studys_own_paired_spread_is_the_basis_and_its_uncertainty_makes_a_range(
    run: Callable, study: Path, store: Path, trained
) -> None:
    trained(THREE_SEEDS, "seeds=[0,1,2]")
    result = run("power", study, "seeds=[0,1,2]", "--store", store, "--resamples", 0)
    assert result.exit_code == 0, result.output
    assert (
        "SD 0.79 AP in the difference between the arms of one seed (2 comparisons, 6 pairs of seeds" in result.output
    )  # sqrt((2 + 0.5) / 4)
    assert "0.47 to 2.27, 95 %" in result.output
    needed = numbers_of(next(line for line in result.output.splitlines() if line.startswith("To see 0.3 AP")))
    middle, low, high = needed[3:6]
    assert low < middle < high and middle == 57
    assert "Holm asks p < 0.025 of the first" in result.output
    assert "so p < 0.05 takes 6 pairs at least" in result.output
    assert "Seeds alone will hardly do. With the 3 seeds that are there, 2.58 AP can be seen on these images." in result.output


def test_a_large_difference_needs_no_further_seed_and_a_middling_one_gets_its_command(
    run: Callable, study: Path, store: Path, trained
) -> None:
    trained(THREE_SEEDS, "seeds=[0,1,2]")
    assert (
        "3 seeds that are there are enough for 5 AP on these images."
        in run("power", study, "seeds=[0,1,2]", "--store", store, "--see", 5).output
    )
    output = run("power", study, "seeds=[0,1,2]", "--store", store, "--see", 1.5).output
    assert re.search(r"next: salt-lab run .*tiny\.yaml 'seeds=\[0,1,2,3,4,5\]' --store", output), (
        "6, as Holm asks over two comparisons; 5 without"
    )


@pytest.fixture
def with_images(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the 87 evaluation images leave this standard error to a difference, as if the detections were here."""

    def leave(se_images: float, se_seeds: float = 0.5) -> None:
        found = StudyImages(se_images, se_seeds, 87, 2, True, "")
        monkeypatch.setattr("salt_lab.report.image_draws.study_images", lambda *_, **__: found)

    return leave


def test_what_the_images_forbid_no_number_of_seeds_is_said_to_show(run: Callable, study: Path, store: Path, trained, with_images) -> None:
    trained(THREE_SEEDS, "seeds=[0,1,2]")
    with_images(0.7)
    output = run("power", study, "seeds=[0,1,2]", "--store", store, "--see", 1.6).output
    assert "To see 1.6 AP on these images" in output and "pairs of seeds (paired t test)" in output
    assert "no number of seeds earns the table's mark for 1.6 AP: these 87 images leave 1.96 AP" in output  # 2.80 * 0.7
    assert "next: evaluate on more images, 159 at the very least" in output  # 87 * (3.08 * 0.7 / 1.6)^2
    assert "salt-lab run" not in output and "are enough" not in output


def test_the_command_is_for_the_tables_mark_and_so_is_enough(run: Callable, study: Path, store: Path, trained, with_images) -> None:
    trained(THREE_SEEDS, "seeds=[0,1,2]")
    with_images(0.7)
    output = run("power", study, "seeds=[0,1,2]", "--store", store, "--see", 2.5).output
    every = next(line for line in output.splitlines() if line.startswith("In the table at Holm's p < 0.025: "))
    pairs = int(re.search(r": (\d+) pairs of seeds", every)[1])
    assert pairs == json.loads(run("power", study, "seeds=[0,1,2]", "--store", store, "--see", 2.5, "--json").output)["mark_all"]["needed"]
    on_these = int(re.search(r"Holm asks p < 0.025 of the first: (\d+)", output)[1])
    assert pairs > on_these
    seeds = re.search(r"next: salt-lab run .*'seeds=\[([\d,]+)\]'", output)[1]
    assert len(seeds.split(",")) == pairs
    output = run("power", study, "seeds=[0,1,2]", "--store", store, "--see", 9).output
    assert "The 3 seeds that are there are enough for 9 AP." in output


def test_with_one_seed_the_images_part_is_only_a_bound_and_says_nothing_of_the_mark(
    run: Callable, study: Path, store: Path, trained, with_images
) -> None:
    trained(ONE_SEED)
    with_images(0.7, math.nan)
    output = run("power", study, "--store", store).output
    assert "leave at most" in output and "table's mark" not in output and "seeds=[0,1,2]" in output


def test_a_given_spread_is_not_set_against_the_records_share_of_the_images(
    run: Callable, study: Path, store: Path, trained, with_images
) -> None:
    trained(THREE_SEEDS, "seeds=[0,1,2]")
    with_images(0.7)
    words = ("power", study, "seeds=[0,1,2]", "--store", store, "--see", 3)
    assert "66% of the variance is the images'" in run(*words).output
    assert "of the variance" not in run(*words, "--sd", 0.5).output


def test_image_noise_is_said_to_be_unknown_and_why_where_there_are_no_detections(run: Callable, study: Path, store: Path, trained) -> None:
    trained(THREE_SEEDS, "seeds=[0,1,2]")
    output = run("power", study, "seeds=[0,1,2]", "--store", store).output
    assert "Image noise, what other images would change and no seed takes away: not known here (" in output


def test_a_study_with_one_seed_gets_what_others_report_and_the_command_for_three(run: Callable, study: Path, store: Path, trained) -> None:
    trained(ONE_SEED)
    output = run("power", study, "--store", store, "--resamples", 0).output
    assert "No cell of this study has two finished seeds, so its own spread is unknown" in output
    assert "what others report for COCO" in output and "SD 0.15 AP" in output
    assert "6 seeds in each arm" in output
    assert re.search(r"next: salt-lab run .*'seeds=\[0,1,2\]'", output)


def test_a_study_that_was_never_run_gets_what_others_report_and_the_command_to_run_it(run: Callable, study: Path, store: Path) -> None:
    store.mkdir()
    result = run("power", study, "--store", store)
    assert result.exit_code == 0 and "No trial of this study is done" in result.output
    assert f"next: salt-lab run {study} --store {store}" in result.output and not list(store.iterdir())


def test_a_study_that_compares_nothing_goes_by_the_runs_of_its_cells(run: Callable, study: Path, store: Path, trained) -> None:
    study.write_text(study.read_text().replace("compare:\n  baseline: {salt.enabled: false}\n", ""))
    trained(THREE_SEEDS, "seeds=[0,1,2]")
    output = run("power", study, "seeds=[0,1,2]", "--store", store, "--resamples", 0).output
    assert "it has no 'compare' section" in output and "SD 1.15 AP between the runs of one cell (4 cells, 12 runs" in output
    assert "seeds in each arm (t test of two independent arms)" in output and "Holm" not in output and "sign flips" not in output


def test_arms_that_share_no_second_seed_go_by_the_runs_too(run: Callable, study: Path, store: Path, trained) -> None:
    trained({"fcos": ((30.0, 32.0, 31.0), (None, None, 34.0)), "atss": ((30.0, 30.5, 31.0), (30.5, None, None))}, "seeds=[0,1,2]")
    output = run("power", study, "seeds=[0,1,2]", "--store", store, "--resamples", 0).output
    assert "No comparison has two seeds that are finished in both arms" in output and "(2 cells, 6 runs" in output


def test_a_spread_can_be_given_without_any_study(run: Callable, tmp_path: Path) -> None:
    result = run("power", "--sd", 0.15, "--see", 0.3)
    assert result.exit_code == 0 and "SD 0.15 AP between the runs of one arm, as given" in result.output
    lines = {line.split()[0]: line for line in result.output.splitlines() if line[:1].isdigit()}
    assert "± 0.34" in lines["3"] and "± 0.22" in lines["5"]
    assert "next:" not in result.output and "Image noise" not in result.output


def test_the_answer_is_also_plain_data(run: Callable, study: Path, store: Path, trained) -> None:
    trained(THREE_SEEDS, "seeds=[0,1,2]")
    answer = json.loads(run("power", study, "seeds=[0,1,2]", "--store", store, "--json").output)
    assert (answer["needed"], answer["noise"]["paired"], answer["noise"]["df"], answer["seeds"]) == (57, True, 4, 3)
    assert answer["needed_low"] < 57 < answer["needed_high"] < answer["needed_high"] + answer["needed_all"]
    assert answer["images"]["se_images"] is None and "no detections here" in answer["images"]["reason"]
    assert {line["seeds"] for line in answer["lines"]} >= {2, 3, 57}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a study file, or a spread: --sd 0.15"),
        (["--sd", "0"], "--sd"),
        (["--sd", "nan"], "no number to calculate with"),
        (["--sd", "0.1", "--see", "inf"], "no number to calculate with"),
        (["--sd", "0.1", "--power", "0.01"], "larger than --alpha 0.05"),
        (["--sd", "0.1", "--power", "1"], "--power"),
        (["nowhere.yaml"], "no such study file"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(run: Callable, words: list[str], said: str) -> None:
    result = run("power", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and said in result.stderr
