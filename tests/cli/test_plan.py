"""What ``plan`` and ``status`` say: only what differs, what is done, what is compared with what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("fake_training")
TRAIN = ("--executor", "serial", "--no-mlflow")


def test_plan_prints_only_the_keys_that_differ(run: Callable, study: Path, store: Path) -> None:
    output = run("plan", study, "--store", store).output
    header = output.splitlines()[1].split()
    assert header[:4] == ["cell", "host", "salt.enabled", "trial"]
    assert "resnet18" not in output and "seed" not in header
    assert "4 trials (4 new): 4 to train." in output


def test_plan_names_the_seed_where_there_are_several(run: Callable, study: Path, store: Path) -> None:
    output = run("plan", study, "seeds=[3,4]", "--store", store).output
    assert "seed" in output.splitlines()[1] and "8 trials (8 new)" in output


def test_plan_says_what_is_compared_with_what(run: Callable, study: Path, store: Path) -> None:
    plan = json.loads(run("plan", study, "--store", store, "--json").output)
    compared = {trial["cell"]: trial["baseline"] for trial in plan["trials"]}
    assert compared == {
        "host=fcos salt=off": None,
        "host=fcos salt=on": "host=fcos salt=off",
        "host=atss salt=off": None,
        "host=atss salt=on": "host=atss salt=off",
    }
    assert run("plan", study, "--store", store).output.count("(baseline)") == 2


def test_plan_starts_nothing_and_writes_nothing(run: Callable, study: Path, store: Path) -> None:
    assert run("plan", study, "--store", store).exit_code == 0
    assert run("status", study, "--store", store).exit_code == 0
    assert not store.exists()


def test_plan_and_status_mark_what_is_done_and_what_failed(run: Callable, study: Path, store: Path) -> None:
    words = (study, "axes.host=[fcos]", "seeds=[0,1001]", "--store", store)  # seed 1001 fails in epoch 2
    assert run("run", *words, *TRAIN).exit_code == 1
    plan = json.loads(run("plan", *words, "--json").output)
    assert {(trial["seed"], trial["state"], trial["AP"]) for trial in plan["trials"]} == {(0, "done", 40.0), (1001, "failed", None)}
    assert plan["to_train"] == 2
    status = run("status", *words).output
    assert "4 trials: 2 done, 2 failed" in status
    assert "the loss is NaN" in status and "train.log" in status and "1/2" in status and "2/2" in status


def test_an_override_plans_other_trials(run: Callable, study: Path, store: Path) -> None:
    def ids(*words: str) -> set[str]:
        return {trial["trial_id"] for trial in json.loads(run("plan", study, *words, "--store", store, "--json").output)["trials"]}

    assert not ids() & ids("schedule.epochs=3")
    assert len(ids() & ids("salt.points=16")) == 2  # the cells without SALT have no points that could change


def test_the_schema_is_the_published_one(run: Callable) -> None:
    published = Path(__file__).parents[2] / "experiments" / "study.schema.json"
    assert json.loads(run("schema").output) == json.loads(published.read_text())
