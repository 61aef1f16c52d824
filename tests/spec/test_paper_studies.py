"""The paper's studies on COCO: they read, expand and are planned where COCO is not, and ask what the paper asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from salt_lab.cli.main import cli
from salt_lab.report.published import PublishedRow, match
from salt_lab.spec import load_study

PAPER = Path(__file__).parents[2] / "experiments" / "paper"
STUDIES = sorted(PAPER.glob("*.yaml"))


@pytest.fixture(autouse=True)
def without_coco(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SALT_LAB_COCO", raising=False)
    monkeypatch.setenv("SALT_LAB_STORE", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


def invoke(*words: object):
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_there_is_one_for_each_of_the_papers_tables() -> None:
    assert [path.stem for path in STUDIES] == ["components", "hosts", "points", "salt_net", "sdr_weight"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_asks_a_question_with_three_seeds_on_eight_gpus_in_the_published_recipe(path: Path) -> None:
    study = load_study(path)
    assert study.name == f"paper_{path.stem}" and "?" in study.question
    assert study.seeds == (0, 1, 2) and study.resources.gpus == 8
    for cell in study.cells:
        assert cell.trial.schedule == load_study(PAPER / "hosts.yaml").cells[0].trial.schedule
        assert (cell.trial.schedule.epochs, cell.trial.schedule.batch, cell.trial.schedule.drops) == (12, 16, (8, 11))
        assert (cell.trial.backbone.name, cell.trial.backbone.init) == ("resnet50", "host")
        assert Path(cell.trial.data.train).name == "instances_train2017.json", "the released 1x config trains on val2017; ours does not"
        assert Path(cell.trial.data.val).name == "instances_val2017.json"
    keys = {cell.key for cell in study.cells}
    assert all(cell.baseline in keys for cell in study.cells if cell.baseline)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_plan_is_printed_where_coco_is_not(path: Path) -> None:
    result = invoke("plan", path)
    assert result.exit_code == 0, result.output
    trials = len(load_study(path).trials())
    assert f"{trials} trials ({trials} new)" in result.output
    assert "The data are not on this machine" in result.output and "instances_train2017.json" in result.output


def test_the_table_and_the_check_are_made_where_coco_is_not() -> None:
    table = invoke("table", PAPER / "salt_net.yaml", "--no-intervals", "--published")
    assert table.exit_code == 0 and "42.5 [SALT-Net]" in table.output and "41.0 [GFLv2]" in table.output
    check = invoke("check", PAPER / "hosts.yaml")
    assert check.exit_code == 0 and "no result yet" in check.output


def test_a_run_says_that_the_data_are_missing_before_anything_starts(tmp_path: Path) -> None:
    result = invoke("run", PAPER / "salt_net.yaml", "--no-mlflow", "--executor", "serial")
    assert result.exit_code == 2
    assert "data.train: annotation file cannot be read" in result.output and "Traceback" not in result.output
    assert not list(tmp_path.glob("runs/trials/*"))


def test_the_folder_comes_from_the_environment_or_is_mmdets_usual_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = load_study(PAPER / "hosts.yaml").cells[0]
    assert usual.trial.data.train == str(tmp_path / "data/coco/annotations/instances_train2017.json")
    monkeypatch.setenv("SALT_LAB_COCO", "/big/coco")
    elsewhere = load_study(PAPER / "hosts.yaml").cells[0]
    assert elsewhere.trial.data.model_dump() == {
        "kind": "coco",
        "train": "/big/coco/annotations/instances_train2017.json",
        "val": "/big/coco/annotations/instances_val2017.json",
        "images": "/big/coco/train2017",
        "val_images": "/big/coco/val2017",
    }


def test_the_gains_have_both_arms_of_every_host_and_a_published_number_where_there_is_one() -> None:
    study = load_study(PAPER / "hosts.yaml")
    arms = {(cell.trial.host, cell.trial.salt.enabled) for cell in study.cells}
    for host in ("fcos", "atss", "gfl", "gflv2", "retinanet", "reppoints"):
        assert {(host, False), (host, True)} <= arms
    rows = {cell.trial.host: match(cell.trial) for cell in study.cells if not cell.trial.salt.enabled}
    numbers = {host: row.metrics["AP"] for host, row in rows.items() if isinstance(row, PublishedRow)}
    assert numbers == {
        "fcos": 38.7, "atss": 39.4, "gfl": 40.2, "gflv2": 41.0, "reppoints": 38.1, "vfnet": 41.6, "fovea": 36.5, "retinanet_9_anchors": 36.5,
    }  # fmt: skip


def test_salt_net_is_compared_with_gflv2_and_the_released_model_has_no_sdr() -> None:
    study = load_study(PAPER / "salt_net.yaml")
    baseline = study.cell("GFLv2")
    assert {cell.baseline for cell in study.cells} == {None, baseline.key}
    released = match(study.cell("SALT-Net as released").trial)
    assert isinstance(released, PublishedRow) and released.id == "salt-net"
    assert isinstance(match(study.cell("SALT-Net with SDR").trial), str)


def test_the_readme_lists_every_study_with_its_number_of_trials() -> None:
    table = (PAPER / "README.md").read_text(encoding="utf-8")
    for path in STUDIES:
        row = next(line for line in table.splitlines() if f"[{path.name}]" in line)
        assert re.search(rf"\| {len(load_study(path).trials())} = ", row), row
