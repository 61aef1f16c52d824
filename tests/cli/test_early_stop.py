"""Early stopping from the command line: planned, shown, finished when asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.cli.train import only
from salt_lab.spec.study import load_study

SERIAL = ("--executor", "serial", "--no-mlflow")
STUDY = """
base:
  backbone: {name: resnet18, base_channels: 16}
  channels: 32
  data: {kind: marks, train_images: 4, val_images: 2, image_size: 64}
  schedule: {epochs: 2, batch: 2, image_size: [64, 64]}
axes: {schedule.lr: [0.0010, 0.0005, 0.0002]}
early_stop: {rungs: [1], keep: 1/3, min_peers: 2}
"""


@pytest.fixture
def search(tmp_path: Path) -> Path:
    path = tmp_path / "search.yaml"
    path.write_text(STUDY)
    return path


@pytest.mark.usefixtures("fake_training")
class TestEarlyStop:
    def test_a_launch_whose_trials_are_done_or_stopped_is_complete_and_says_which(self, run: Callable, search: Path, store: Path) -> None:
        result = run("run", search, "--store", store, *SERIAL)
        assert result.exit_code == 0, result.output
        assert "search: 2 done, 1 stopped early, reused 0" in result.output
        assert "stopped: lr=0.0002 seed=0: early stopping at epoch 1: AP 4.0, needed 20.0" in result.stderr
        assert "--finish-stopped trains it to its end" in result.stderr
        assert "… stopped" in result.output

    def test_finish_stopped_trains_them_to_their_end_and_the_table_has_no_mark_left(self, run: Callable, search: Path, store: Path) -> None:
        run("run", search, "--store", store, *SERIAL)
        result = run("run", search, "--store", store, *SERIAL, "--finish-stopped")
        assert result.exit_code == 0 and "search: 1 done, reused 2" in result.output
        assert "stopped" not in run("table", search, "--store", store).output

    def test_plan_and_status_count_the_stopped_apart_from_what_is_left(self, run: Callable, search: Path, store: Path) -> None:
        before = run("plan", search, "--store", store).output
        assert "early stopping: asha at epoch 1: the best 33.3 % go on, once there are 2 others" in before
        run("run", search, "--store", store, *SERIAL)
        after = run("plan", search, "--store", store).output
        assert "3 trials (2 done, 1 stopped): 0 to train." in after
        assert "3 trials (2 done, 1 stopped): 1 to train." in run("plan", search, "early_stop=null", "--store", store).output
        assert json.loads(run("plan", search, "--store", store, "--json").output)["early_stop"]["rungs"] == [1]
        assert "early stopping at epoch 1: AP 4.0" in run("status", search, "--store", store).output


def test_a_trial_that_is_asked_for_by_name_is_trained_to_its_end(search: Path) -> None:
    study = load_study(search)
    assert study.early_stop is not None and only(study, study.trials()[2]).early_stop is None
