"""What ``plan --cost`` and ``calibrate`` say: a number with its basis, or plainly that there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.record.calibration import Calibration, cost_parts, keep_calibration
from salt_lab.record.store import Store
from salt_lab.schedule.cost_known import place_here
from salt_lab.spec.study import load_study

TRAIN = ("--executor", "serial", "--no-mlflow")
TIMES = {"step_seconds": 6.0, "steps_per_epoch": 2, "train_images": 4, "val_images": 2, "eval_image_seconds": 0.0, "memory_gb": 2.0}


@pytest.fixture
def measured(study: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> list[Calibration]:
    """Calibrations that take no time, and those that were made."""
    made = []

    def calibrate(trial, store, *, workers, threads, device, at_once, budget_s):
        here = place_here(load_study(study)).machine
        made.append(Calibration(cost_parts(trial, "marks", workers), here, "ok", threads=threads, at_once=at_once, **TIMES))
        return made[-1]

    monkeypatch.setattr("salt_lab.train.calibrate.calibrate", calibrate)
    return made


def test_without_a_basis_plan_says_so_and_how_to_get_one(run: Callable, study: Path, store: Path) -> None:
    output = run("plan", study, "--cost", "--store", store, "salt.points=16").output
    assert "4 of 4 trials to train have no basis" in output and f"salt-lab calibrate {study} salt.points=16 --store {store}" in output
    assert "hours" not in output and "Finished" not in output and not store.exists()


def test_calibrated_cells_get_hours_memory_and_a_time_of_finish(run: Callable, study: Path, store: Path, measured: list) -> None:
    result = run("calibrate", study, "--store", store)
    assert result.output.endswith(f"next: salt-lab plan {study} --store {store} --cost\n")
    assert result.exit_code == 0 and len(measured) == 4 and "salt-lab plan" in result.output
    cost = json.loads(run("plan", study, "--cost", "--slots", 1, "--json", "--store", store).output)["cost"]
    assert {one["basis"] for one in cost["trials"]} == {"calibration"}
    assert {one["seconds"] for one in cost["trials"]} == {25.0}  # two epochs of two steps, and measuring the inference time
    assert cost["finish_seconds"] == 100.0 and cost["unknown"] == 0
    one, two = (run("plan", study, "--cost", "--slots", slots, "--store", store).output for slots in (1, 2))
    assert "Finished after 1m40s with one trial at a time" in one and "slow each other" not in one
    assert "Finished after 50s with 2 trials at a time" in two and "slow each other" in two


def test_what_was_measured_is_not_measured_again_unless_asked(run: Callable, study: Path, store: Path, measured: list) -> None:
    for words, count in (((), 4), ((), 4), (("schedule.epochs=9", "seeds=[0,1]"), 4), (("--again",), 8), (("--at-once", "2"), 12)):
        assert run("calibrate", study, *words, "--store", store).exit_code == 0
        assert len(measured) == count
    assert len([line for file in (store / "calibrations").glob("*") for line in file.read_text().splitlines()]) == 12


def test_a_cell_that_ran_out_of_memory_is_shown_and_the_exit_code_says_so(
    run: Callable, study: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Calibration({"salt": {}}, "here", "out of memory", memory_gb=1.5)
    monkeypatch.setattr("salt_lab.train.calibrate.calibrate", lambda *_, **__: short)
    result = run("calibrate", study, "--store", store)
    assert result.exit_code == 1 and "out of memory" in result.output and "1.50" in result.output


def test_half_a_basis_gives_half_a_number(run: Callable, study: Path, store: Path) -> None:
    plan = load_study(study)
    keep_calibration(Store(store), Calibration(cost_parts(plan.trials()[0], ""), place_here(plan).machine, "ok", threads=1, **TIMES))
    output = run("plan", study, "--cost", "--store", store).output
    assert "3 of 4 trials to train have no basis" in output and "The others: 0.01 core-hours" in output and "Finished" not in output


@pytest.mark.usefixtures("fake_training")
def test_after_a_run_plan_says_how_far_the_estimate_was_off(run: Callable, study: Path, store: Path, measured: list) -> None:
    run("calibrate", study, "--store", store)
    assert run("run", study, *TRAIN, "--store", store).exit_code == 0
    output = run("plan", study, "--cost", "--store", store).output
    assert "Nothing is left to train." in output
    assert "Past estimates of this study from a calibration: 4 trials took 0.0" in output


def test_slots_without_cost_is_refused(run: Callable, study: Path, store: Path) -> None:
    assert run("plan", study, "--slots", 2, "--store", store).exit_code == 2
