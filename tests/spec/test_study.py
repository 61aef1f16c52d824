"""What a study's sections expand to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from salt_lab.errors import SpecError

GRID = "axes: {host: [fcos, atss], salt.enabled: [false, true]}\ncompare: {baseline: {salt.enabled: false}}\n"


def names(study: Any) -> list[str]:
    return [cell.name for cell in study.cells]


def test_a_study_without_axes_is_its_base(load: Any) -> None:
    study = load("base: {host: gfl, salt: true}")
    assert names(study) == ["host=gfl salt=on"]
    assert study.cells[0].label == {}
    assert (study.name, study.question, study.seeds, study.source) == ("s", "", (0,), Path("s.yaml"))


def test_axes_make_a_product_in_the_order_of_the_file(load: Any) -> None:
    study = load(GRID)
    assert names(study) == ["host=fcos salt=off", "host=fcos salt=on", "host=atss salt=off", "host=atss salt=on"]
    assert study.cells[1].label == {"host": "fcos", "salt.enabled": True}


def test_each_cell_is_trained_with_each_seed(load: Any) -> None:
    study = load(GRID + "seeds: [3, 5]")
    assert [trial.seed for trial in study.trials()] == [3, 5] * 4
    assert study.cells[0].trial.seed == 3
    assert len({trial.model_copy(update={"seed": 0}) for trial in study.trials()}) == 4


def test_seeds_do_not_change_a_cells_key(load: Any) -> None:
    assert [cell.key for cell in load(GRID).cells] == [cell.key for cell in load(GRID + "seeds: [7]").cells]


def test_base_keys_may_be_dotted_or_nested(load: Any) -> None:
    dotted = load("base: {salt.enabled: true, salt.points: 5, schedule.lr: 1e-3}")
    nested = load("base: {salt: {enabled: true, points: 5}, schedule: {lr: 0.001}}")
    assert dotted.cells[0].trial == nested.cells[0].trial


def test_salt_is_short_for_salt_enabled_and_leaves_the_other_toggles(load: Any) -> None:
    study = load("base: {salt.points: 5}\naxes: {salt: [false, true]}")
    assert names(study) == ["salt=off", "salt=on"]
    assert study.cells[1].trial.salt.points == 5


def test_off_and_on_are_words_for_false_and_true(load: Any) -> None:
    assert names(load("axes: {salt: [off, on]}")) == ["salt=off", "salt=on"]


def test_a_more_specific_key_wins_over_a_preset(load: Any) -> None:
    schedule = load("base: {schedule.epochs: 6, schedule: 1x}").cells[0].trial.schedule
    assert (schedule.epochs, schedule.batch, schedule.drops) == (6, 16, (4, 5))
    assert names(load("axes: {schedule.lr: [0.1, 0.2], schedule: [1x, 2x]}")) == [
        f"epochs={epochs} lr={lr}" for lr in (0.1, 0.2) for epochs in (12, 24)
    ]


def test_a_zip_pairs_its_lists_and_is_one_axis_of_the_product(load: Any) -> None:
    study = load("axes: {salt: [off, on]}\nzip: {host: [atss, gfl], schedule.lr: [0.01, 0.02]}")
    assert [(cell.trial.salt.enabled, cell.trial.host, cell.trial.schedule.lr) for cell in study.cells] == [
        (False, "atss", 0.01),
        (False, "gfl", 0.02),
        (True, "atss", 0.01),
        (True, "gfl", 0.02),
    ]


def test_two_zips_are_two_axes(load: Any) -> None:
    study = load("zip: [{host: [atss, gfl], channels: [64, 128]}, {schedule.epochs: [6, 9], schedule.lr: [0.1, 0.2]}]")
    assert [(cell.trial.channels, cell.trial.schedule.epochs) for cell in study.cells] == [(64, 6), (64, 9), (128, 6), (128, 9)]


def test_cases_alone_are_the_cells_and_keep_their_names(load: Any) -> None:
    study = load("cases: [{name: plain, host: gfl}, {host: gfl, salt: {enabled: true}}]")
    assert names(study) == ["plain", "salt=on"]


def test_cases_come_after_the_product(load: Any) -> None:
    assert names(load("axes: {host: [fcos, atss]}\ncases: [{host: gfl}]")) == ["host=fcos", "host=atss", "host=gfl"]


def test_a_case_that_repeats_a_cell_names_it(load: Any) -> None:
    assert names(load("axes: {host: [fcos, atss]}\ncases: [{host: fcos, name: reference}]")) == ["reference", "host=atss"]


def test_points_without_the_operator_are_one_cell(load: Any) -> None:
    study = load("axes: {salt: [off, on], salt.points: [5, 9]}\ncompare: {baseline: {salt: off}}")
    assert names(study) == ["salt=off", "salt=on points=5", "salt=on points=9"]
    assert study.cells[0].label == {"salt.enabled": False}
    assert [cell.baseline for cell in study.cells] == [None, study.cells[0].key, study.cells[0].key]


def test_each_cell_is_compared_with_its_own_host(load: Any) -> None:
    study = load(GRID)
    keys = [cell.key for cell in study.cells]
    assert [cell.baseline for cell in study.cells] == [None, keys[0], None, keys[2]]
    assert study.compare.baseline == {"salt.enabled": False}


def test_without_compare_nothing_has_a_baseline(load: Any) -> None:
    study = load("axes: {host: [fcos, atss]}")
    assert [cell.baseline for cell in study.cells] == [None, None]
    assert study.compare.baseline == {}


def test_a_baseline_may_be_another_host(load: Any) -> None:
    study = load(
        "axes: {host: [gfl, salt_net], salt: [off, on]}\nexclude: [{host: salt_net, salt: false}]\ncompare: {baseline: {host: gfl, salt: off}}"
    )
    assert [cell.baseline for cell in study.cells] == [None, study.cells[0].key, study.cells[0].key]


POINTS = "base: {salt: true}\naxes: {salt.points: [4, 5, 9, 13], host: [atss, gfl]}\n"


@pytest.mark.parametrize(
    ("predicate", "left"),
    [
        ("{host: gfl}", ["4 atss", "5 atss", "9 atss", "13 atss"]),
        ("{host: gfl, salt.points: 4}", ["4 atss", "5 atss", "5 gfl", "9 atss", "9 gfl", "13 atss", "13 gfl"]),
        ("{salt.points: [4, 5]}", ["9 atss", "9 gfl", "13 atss", "13 gfl"]),
        ("{salt.points: {lt: 9}}", ["9 atss", "9 gfl", "13 atss", "13 gfl"]),
        ("{salt.points: {le: 9}}", ["13 atss", "13 gfl"]),
        ("{salt.points: {gt: 4}}", ["4 atss", "4 gfl"]),
        ("{salt.points: {ge: 5}}", ["4 atss", "4 gfl"]),
        ("{salt.points: {gt: 4, lt: 13}}", ["4 atss", "4 gfl", "13 atss", "13 gfl"]),
        ("{salt.points: {ne: 9}}", ["9 atss", "9 gfl"]),
        ("{salt.points: {in: [4, 5, 9]}}", ["13 atss", "13 gfl"]),
        ("{salt.points: {not_in: [4]}}", ["4 atss", "4 gfl"]),
        ("{salt: {points: {gt: 4}}}", ["4 atss", "4 gfl"]),
        ("{salt: true, host: [gfl], salt.points: {gt: 4}}", ["4 atss", "4 gfl", "5 atss", "9 atss", "13 atss"]),
    ],
)
def test_exclude_takes_out_what_meets_all_its_conditions(load: Any, predicate: str, left: list[str]) -> None:
    study = load(POINTS + f"exclude: [{predicate}]")
    assert [f"{cell.trial.salt.points} {cell.trial.host}" for cell in study.cells] == left


def test_predicates_are_alternatives_and_see_defaults(load: Any) -> None:
    study = load(POINTS + "exclude: [{salt.points: 4}, {host: gfl, schedule: 1x}]")
    assert [cell.trial.salt.points for cell in study.cells] == [5, 9, 13]


def test_exclude_knows_lists_as_values(load: Any) -> None:
    study = load("axes: {schedule.image_size: [[112, 112], [224, 224]]}\nexclude: [{schedule.image_size: [112, 112]}]")
    assert [cell.trial.schedule.image_size for cell in study.cells] == [(224, 224)]


def test_a_field_that_a_cell_does_not_have_meets_no_condition(load: Any) -> None:
    files = "{train: t.json, val: v.json, images: i}"
    study = load(f"axes: {{data: [marks, {files}]}}\nexclude: [{{data.classes: {{gt: 0}}}}]")
    assert [cell.trial.data.kind for cell in study.cells] == ["coco"]


@pytest.mark.parametrize("written", ["true", "cls", "[cls]", "{in: [true]}", "{ne: none}"])
def test_a_predicate_may_write_a_value_in_any_way_that_the_field_takes(load: Any, written: str) -> None:
    study = load(f"base: {{salt: true}}\naxes: {{salt.long_skip: [none, cls]}}\nexclude: [{{salt.long_skip: {written}}}]")
    assert [cell.trial.salt.long_skip for cell in study.cells] == ["none"]


def test_an_sdr_that_silences_the_ground_truth_is_noted(load: Any) -> None:
    sdr = "base: {salt: true, salt.sdr_weight: 0.5}\naxes: {host: [atss, fcos]}"  # their coarse weights: 1 and 0.5
    [note] = load(sdr).notes
    assert "in 'host=fcos': the coarse box learns the refined one" in note
    assert load("base: {salt: true}\naxes: {host: [atss, fcos]}").notes == ()
    assert load("base: {host: fcos, salt: true, salt.sdr_weight: 0.5, salt.sdr_kind: smooth_l1}").notes == (), "smooth L1 blends"
    assert load("base: {host: fcos, salt: true, salt.coarse_weight: 0}").notes == (), "there is no SDR"


def test_vary_changes_one_factor_at_a_time(load: Any) -> None:
    study = load("base: {salt: true}\none_at_a_time: {vary: {salt.points: [5, 9, 13], salt.sdr_weight: [0, 1]}}")
    assert [(cell.trial.salt.points, cell.trial.salt.sdr_weight) for cell in study.cells] == [(9, 0), (5, 0), (13, 0), (9, 1)]
    assert [cell.name for cell in study.cells] == ["base", "points=5", "points=13", "sdr_weight=1"]


PARTS = """
    sdr: {off: {salt.sdr_weight: 0}, on: {salt.sdr_weight: 1}}
    skip: {off: {salt.long_skip: false}, on: {salt.long_skip: true}}
    inside: {off: {salt.points: 4}, on: {salt.points: 9}}
"""


def toggles(study: Any) -> dict[str, tuple[float, bool, int]]:
    return {cell.name: (cell.trial.salt.sdr_weight, cell.trial.salt.long_skip, cell.trial.salt.points) for cell in study.cells}


def test_add_one_adds_each_part_alone(load: Any) -> None:
    assert toggles(load(f"base: {{salt: true}}\none_at_a_time:\n  add_one:{PARTS}")) == {
        "all off": (0, "none", 4),
        "only sdr": (1, "none", 4),
        "only skip": (0, "cls", 4),
        "only inside": (0, "none", 9),
        "all on": (1, "cls", 9),
    }


def test_leave_one_out_removes_each_part_alone(load: Any) -> None:
    assert toggles(load(f"base: {{salt: true}}\none_at_a_time:\n  leave_one_out:{PARTS}")) == {
        "all on": (1, "cls", 9),
        "all but sdr": (0, "cls", 9),
        "all but skip": (1, "none", 9),
        "all but inside": (1, "cls", 4),
    }


def test_both_modes_share_their_full_cell(load: Any) -> None:
    study = load(f"base: {{salt: true}}\none_at_a_time:\n  add_one: &parts{PARTS}\n  leave_one_out: *parts")
    assert len(study.cells) == 5 + 3


def test_paths_take_environment_variables_and_become_absolute(load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CELLS", "/data/cells")
    text = "base: {data: {train: '${CELLS}/t.json', val: v.json, images: '${CELLS}'}, backbone.init: '${CELLS}/w.pth'}"
    trial = load(text).cells[0].trial
    assert (trial.data.train, trial.data.val, trial.data.images) == ("/data/cells/t.json", str(tmp_path / "v.json"), "/data/cells")
    assert trial.backbone.init == "/data/cells/w.pth"


@pytest.mark.parametrize("init", ["host", "torchvision://resnet50"])
def test_what_is_no_path_stays_as_it_is(load: Any, init: str) -> None:
    assert load(f"base: {{backbone.init: '{init}'}}").cells[0].trial.backbone.init == init


def test_data_sets_may_be_an_axis(load: Any) -> None:
    study = load("axes: {data: [marks, {train: a/t.json, val: a/v.json, images: a}, {train: b/t.json, val: b/v.json, images: b}]}")
    assert [cell.trial.data.kind for cell in study.cells] == ["marks", "coco", "coco"]
    assert len(set(names(study))) == 3


def test_a_cell_is_found_by_name_or_key(load: Any) -> None:
    study = load(GRID)
    assert study.cell("host=atss salt=on") is study.cell(study.cells[3].key) is study.cells[3]
    with pytest.raises(SpecError, match="no cell named 'host=atss salt=no'. Did you mean 'host=atss salt=on'?"):
        study.cell("host=atss salt=no")


def test_yaml_aliases_and_merge_keys_work(load: Any) -> None:
    study = load("base: &b {salt: {enabled: true, points: 5}}\ncases: [{<<: *b, host: gfl}, {<<: *b, host: atss}]")
    assert [(cell.trial.host, cell.trial.salt.points) for cell in study.cells] == [("gfl", 5), ("atss", 5)]
