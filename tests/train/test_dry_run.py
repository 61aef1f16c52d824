"""``benchmarks/dry_run.py``: a cell of the paper's study is built, learns and evaluates without COCO, and its whole time follows from its steps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
import torch

from salt_lab.data import check_coco
from salt_lab.spec import load_study
from salt_lab.spec.trial import Trial


@pytest.fixture(scope="module")
def dry_run(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script, as a module."""
    return script("benchmarks/dry_run.py")


@pytest.fixture(scope="module")
def dry_run_cell(script: Callable[[str], ModuleType]) -> ModuleType:
    """What runs one cell, as a module."""
    return script("benchmarks/dry_run_cell.py")


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


def test_what_is_kept_for_the_backward_pass_is_counted_once_and_without_the_weights(dry_run_cell):
    """y = relu(x w): kept are x for w's gradient and relu's result, 4 bytes a number; w is no activation; the second step counts nothing."""
    x_NC, weight_CD = torch.ones(1000, 256), torch.ones(256, 64, requires_grad=True)
    kept = dry_run_cell.Kept()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        for _ in range(2):
            (x_NC @ weight_CD).relu().sum().backward()
    assert kept.gib * 2**30 == 4 * 1000 * (256 + 64)
    assert torch.equal(weight_CD.grad, torch.full((256, 64), 2000.0)), "counting changed a gradient"


def test_memory_of_a_gpu_grows_with_its_images_and_holds_the_weights_four_times(dry_run):
    answer = {"kept_gb": 1.5, "weights_gb": 0.13, "trained_gb": 0.12}
    assert dry_run.gpu_memory(answer, 2) == pytest.approx(3.0 + 0.13 + 3 * 0.12)
    assert dry_run.gpu_memory(answer, 4) - dry_run.gpu_memory(answer, 2) == pytest.approx(3.0)


def test_cells_that_several_studies_share_are_run_once_under_all_their_names(dry_run, repository):
    studies = [
        load_study(repository / "experiments" / "paper" / f"{name}.yaml", [])
        for name in ("hosts", "components", "points", "sdr_weight", "salt_net")
    ]
    tasks = dry_run.tasks_of(studies, "", None)
    names = [name for task in tasks for name in task.names]
    assert len(names) == len(set(names)) == sum(len(study.cells) for study in studies) and len(tasks) < len(names)
    [shared] = [task.names for task in tasks if "paper_hosts: host=atss salt=off" in task.names]
    assert shared == ("paper_hosts: host=atss salt=off", "paper_components: no SALT", "paper_points: salt=off")
    assert {task.key for task in dry_run.tasks_of(studies, "host=gfl ", None)} < {task.key for task in tasks}


def test_a_cell_that_asks_for_another_trial_now_leaves_its_name_to_the_new_row_alone(dry_run, repository):
    study = load_study(repository / "experiments" / "paper" / "hosts.yaml", [])
    [task] = dry_run.tasks_of([study], "host=fcos salt=on", None)
    row = dry_run.Row(task.key, task.names, 3, "fcos", "ok", 1, None, None, None, None, {})
    former = row._replace(key="former")
    shared = row._replace(key="shared", names=(*task.names, "another study: on"))
    with_two_images = row._replace(key="two", images=2)
    rows = {one.key: one for one in (former, shared, with_two_images, row)}
    left = dry_run.without_former(rows, task)
    assert left == {"shared": shared._replace(names=("another study: on",)), "two": with_two_images, task.key: row}


@pytest.mark.slow
def test_a_cell_of_the_papers_study_runs_without_coco_and_is_not_run_twice(repository, tmp_path):
    """At a small size; the full one takes minutes on a CPU and is what the script is for."""
    words = ["experiments/paper/hosts.yaml", "schedule.image_size=[160,96]", "salt.sdr_weight=0.5", "--only", "host=gflv2 salt=on"]
    script = repository / "benchmarks" / "dry_run.py"
    command = [sys.executable, script, *words, "--output", tmp_path]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [row] = json.loads((tmp_path / "dry_run.json").read_text())["rows"]
    assert row["ended"] == "ok" and row["names"] == ["paper_hosts: host=gflv2 salt=on"]
    assert row["memory_gb"] > 0.2 and row["gpu_gb"] > 0.4 and row["gflops"] > 1
    assert {"loss_coarse", "loss_sdr"} <= row["details"]["losses"].keys() and row["details"]["kept_gb"] > 0.005
    assert "paper_hosts: host=gflv2 salt=on | 3 | ok" in (tmp_path / "dry_run.md").read_text()
    again = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0 and "host=gflv2 salt=on: ok" not in again.stdout
    assert [row] == json.loads((tmp_path / "dry_run.json").read_text())["rows"]
