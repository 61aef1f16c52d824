"""The studies of the claim itself: real photos and the curve over the mark's offset. They read, expand and are planned; nothing is trained here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from salt_lab.cli.main import cli
from salt_lab.spec import load_study
from salt_lab.spec.study import Study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
REAL = EXPERIMENTS / "real"
STUDIES = sorted(REAL.glob("*.yaml"))
BCCD = ("bccd", "bccd_parts", "bccd_choices", "bccd_depth", "bccd_sdr")
FOUR = {"fcos", "atss", "gfl", "gflv2"}


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "BCCD": "/data/bccd", "MOBILENET_V2": "/data/mobilenet_v2.pth", "COCO_MINI": "/data/mini", "COCO_MINI_LABELS": "/data/labels",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SALT_LAB_{name}", value)
    monkeypatch.setenv("SALT_LAB_STORE", str(tmp_path / "runs"))


def study(name: str) -> Study:
    return load_study(REAL / f"{name}.yaml")


def invoke(*words: object):
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_there_is_one_for_each_question_of_the_claim() -> None:
    assert [path.stem for path in STUDIES] == [
        "bccd", "bccd_choices", "bccd_depth", "bccd_long", "bccd_parts", "bccd_schedule", "bccd_sdr", "coco_mini", "coco_mini_schedule",
        "mark_offset", "mark_parts", "mark_skip",
    ]  # fmt: skip


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_asks_a_question_and_compares_all_its_cells_with_one_that_it_trains(path: Path) -> None:
    question = load_study(path)
    assert question.name == f"real_{path.stem}" and "?" in question.question
    keys = {cell.key for cell in question.cells}
    assert all(cell.baseline in keys for cell in question.cells if cell.baseline)
    assert 0 < sum(cell.baseline is None for cell in question.cells) < len(question.cells)
    assert len(question.seeds) >= 3 or path.stem.endswith("_schedule")


def test_the_parts_at_the_rim_share_no_salt_and_all_of_it_with_the_curve_over_the_offset() -> None:
    rim = {trial for trial in study("mark_offset").trials() if trial.data.mark_offset == 1.0 and trial.salt.sdr_weight == 0.0}
    parts = study("mark_parts")
    shared = {trial for trial in parts.trials() if trial in rim}
    assert shared == rim and len(shared) == 6
    assert {cell.name for cell in parts.cells if cell.trials()[0] in shared} == {"no SALT", "all on"}


def test_the_long_skip_alone_is_asked_of_the_curves_own_hosts_and_differs_from_the_parts_all_off_in_skip_and_coarse_loss() -> None:
    curve, skip, parts = study("mark_offset"), study("mark_skip"), study("mark_parts")
    without_sdr = {trial for trial in curve.trials() if trial.salt.sdr_weight == 0.0}
    alone = [trial for trial in skip.trials() if trial not in without_sdr]
    assert without_sdr < set(skip.trials()) and len(alone) == 15
    assert {trial for trial in alone if trial.data.mark_offset == 1.0} == set(parts.cell("plain with a long skip").trials())
    all_off = parts.cell("all off").trial.salt
    assert {trial.salt for trial in alone} == {all_off.model_copy(update={"long_skip": "cls", "coarse_weight": 1e-6})}


@pytest.mark.parametrize("name", ["bccd", "coco_mini", "mark_offset"])
def test_both_arms_of_a_comparison_differ_in_the_operator_alone(name: str) -> None:
    asked = study(name)
    for cell in asked.cells:
        if cell.baseline:
            plain = asked.cell(cell.baseline).trial
            assert plain.model_copy(update={"salt": cell.trial.salt}) == cell.trial
            assert (plain.salt.enabled, cell.trial.salt.enabled) == (False, True)


@pytest.mark.parametrize("name", ["bccd", "coco_mini"])
def test_four_hosts_start_from_pretrained_weights_with_and_without_salt(name: str) -> None:
    cells = study(name).cells
    assert {(cell.trial.host, cell.trial.salt.enabled) for cell in cells} == {(host, on) for host in FOUR for on in (False, True)}
    assert {(cell.trial.backbone.name, cell.trial.backbone.init) for cell in cells} == {("mobilenet_v2", "/data/mobilenet_v2.pth")}


@pytest.mark.parametrize("name", ["bccd", "coco_mini"])
def test_the_schedule_is_chosen_on_the_hosts_without_salt_with_a_seed_that_no_comparison_uses(name: str) -> None:
    chosen, compared = study(f"{name}_schedule"), study(name)
    assert {cell.trial.host for cell in chosen.cells} == FOUR and not any(cell.trial.salt.enabled for cell in chosen.cells)
    assert not set(chosen.seeds) & set(compared.seeds)
    assert compared.cells[0].trial.schedule.lr in {cell.trial.schedule.lr for cell in chosen.cells}, (
        "what is compared is one of the candidates"
    )
    assert {cell.trial.data for cell in chosen.cells} == {cell.trial.data for cell in compared.cells}


def test_every_study_of_the_blood_cells_shares_one_schedule_and_one_data_set_so_trials_are_shared() -> None:
    trials = [cell.trial for name in BCCD for cell in study(name).cells]
    assert len({trial.schedule for trial in trials}) == 1 and len({trial.data for trial in trials}) == 1
    full = next(cell.trial for cell in study("bccd").cells if cell.trial.host == "fcos" and cell.trial.salt.enabled)
    assert full in {cell.trial for cell in study("bccd_choices").cells} and full in {cell.trial for cell in study("bccd_parts").cells}


def test_no_study_reads_the_photos_that_are_kept_for_one_last_look() -> None:
    for name in (*BCCD, "bccd_long", "bccd_schedule"):
        assert {(Path(cell.trial.data.train).name, Path(cell.trial.data.val).name) for cell in study(name).cells} == {
            ("train.json", "val.json")
        }


def test_the_choices_are_the_weights_the_point_counts_and_the_skips_that_were_asked_for() -> None:
    salts = [cell.trial.salt for cell in study("bccd_choices").cells]
    assert {salt.sdr_weight for salt in salts} == {0.0, 0.25, 0.5, 1.0, 2.0} and {salt.points for salt in salts} == {4, 9, 16, 25}
    assert {salt.long_skip for salt in salts} == {"none", "cls", "reg", "both"} and len(salts) == 14
    assert {(salt.sdr_kind, salt.sdr_gate, salt.sdr_from_epoch) for salt in salts if salt.sdr_weight} == {
        ("giou", False, 1),
        ("giou", True, 1),
        ("smooth_l1", False, 1),
        ("giou", False, 5),
    }


def test_the_curve_moves_the_mark_alone_and_shares_its_rim_with_the_quickstart() -> None:
    curve = study("mark_offset")
    assert sorted({cell.trial.data.mark_offset for cell in curve.cells}) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert len({cell.trial.data.model_copy(update={"mark_offset": 1.0}) for cell in curve.cells}) == 1
    for cell in curve.cells:
        if cell.baseline:
            assert curve.cell(cell.baseline).trial.data.mark_offset == cell.trial.data.mark_offset
    quick = {cell.trial for cell in load_study(EXPERIMENTS / "quickstart.yaml").cells if cell.trial.host == "atss"}
    assert quick <= {cell.trial for cell in curve.cells}


def test_the_curve_is_planned_with_what_it_costs_where_nothing_was_measured_yet(tmp_path: Path) -> None:
    result = invoke("plan", REAL / "mark_offset.yaml", "--cost", "--store", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert "45 trials (45 new): 45 to train." in result.output and "salt-lab calibrate" in result.output


def test_the_real_data_are_planned_where_they_are(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, labels and weights as the studies' headers say; every trial gets its id."""
    mini, labels = shared / "data" / "coco_mini", tmp_path / "labels"
    files = [mini / "annotations" / f"{split}.json" for split in ("train", "val")]
    assert invoke("data", "select", *files, "--class", "person", "--rest", "thing", "-o", labels).exit_code == 0
    for name, value in {
        "BCCD": shared / "data" / "bccd", "MOBILENET_V2": shared / "data" / "mobilenet_v2_imagenet.pth",
        "COCO_MINI": mini, "COCO_MINI_LABELS": labels,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SALT_LAB_{name}", str(value))
    for name, number in {"bccd": 24, "coco_mini": 24, "bccd_parts": 27, "bccd_choices": 42}.items():
        plan = json.loads(invoke("plan", REAL / f"{name}.yaml", "--json", "--cost").output)
        assert len({trial["trial_id"] for trial in plan["trials"]}) == number and plan["cost"]["unknown"] == number
    checked = invoke("data", "check", REAL / "coco_mini.yaml")
    assert checked.exit_code == 0 and "train 92 images, 829 boxes; val 66 images, 560 boxes; 2 classes: person, thing" in checked.output


def test_a_variable_that_is_not_set_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SALT_LAB_COCO_MINI_LABELS")
    result = invoke("plan", REAL / "coco_mini.yaml")
    assert result.exit_code == 2 and "SALT_LAB_COCO_MINI_LABELS is not set" in result.output


def test_the_readme_lists_every_study_with_its_number_of_trials() -> None:
    text = (REAL / "README.md").read_text(encoding="utf-8")
    for path in STUDIES:
        row = next(line for line in text.splitlines() if f"[{path.name}]" in line)
        assert re.search(rf"\| {len(load_study(path).trials())} = ", row), row
