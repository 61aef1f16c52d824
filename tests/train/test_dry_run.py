"""``benchmarks/dry_run.py``: a cell of the paper's study is built, learns and evaluates without COCO, and its whole time follows from its steps."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from salt_lab.data import check_coco
from salt_lab.spec.trial import Trial


@pytest.fixture(scope="module")
def dry_run(repository: Path) -> ModuleType:
    """The script, as a module."""
    folder = repository / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("dry_run", folder / "dry_run.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def test_the_made_data_set_is_one_that_the_lab_would_train_on(dry_run, tmp_path):
    paths = check_coco(dry_run.made_coco(tmp_path / "set", 2, 320, 200))
    content = json.loads(paths.train_json.read_text())
    assert len(paths.classes) == 80 and len(content["images"]) == 2 and len(content["annotations"]) == 2 * dry_run.BOXES


def test_twelve_epochs_of_coco_at_half_a_second_a_step_are_the_hours_that_one_counts_by_hand(dry_run):
    trial = Trial(schedule="1x")
    found = SimpleNamespace(step_seconds=0.5, eval_image_seconds=0.1)
    steps = 12 * 7330  # 117,266 images, 16 a step
    evaluations = 12 // (trial.schedule.eval_every or 12)
    assert dry_run.hours_of(trial, found, 8, 2) == pytest.approx((steps * 0.5 + evaluations * 5000 / 8 * 0.1) / 3600)


@pytest.mark.slow
def test_a_cell_of_the_papers_study_runs_without_coco(repository, tmp_path):
    """At a small size; the full one takes minutes on a CPU and is what the script is for."""
    words = ["experiments/paper/gains.yaml", "schedule.image_size=[160,96]", "--only", "host=gflv2 salt=on", "--images", "2"]
    script = repository / "benchmarks" / "dry_run.py"
    done = subprocess.run(
        [sys.executable, script, *words, "--output", tmp_path], cwd=repository, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [row] = json.loads((tmp_path / "dry_run.json").read_text())["rows"]
    assert row["ended"] == "ok" and row["cell"] == "host=gflv2 salt=on" and row["images"] == 2
    assert row["memory_gb"] > 0.2 and 0 < row["step_s"] < 60 and row["eval_image_s"] > 0
    assert "host=gflv2 salt=on | ok | 2" in (tmp_path / "dry_run.md").read_text()
