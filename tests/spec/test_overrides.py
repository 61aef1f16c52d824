"""``key=value`` on the command line."""

from __future__ import annotations

from typing import Any

import pytest

GRID = """
base: {salt: true, schedule.epochs: 12}
axes: {host: [atss, gfl], salt.points: [5, 9]}
seeds: [0, 1]
"""


def hosts_and_points(study: Any) -> list[tuple[str, int]]:
    return [(cell.trial.host, cell.trial.salt.points) for cell in study.cells]


def test_a_trial_key_changes_the_base_of_every_cell(load: Any) -> None:
    study = load(GRID, "schedule.epochs=3", "backbone=resnet18", "schedule.lr=1e-3")
    assert {cell.trial.schedule.epochs for cell in study.cells} == {3}
    assert {cell.trial.backbone.name for cell in study.cells} == {"resnet18"}
    assert {cell.trial.schedule.lr for cell in study.cells} == {0.001}
    assert study.overrides == ("schedule.epochs=3", "backbone=resnet18", "schedule.lr=1e-3")


def test_a_group_override_leaves_its_other_fields(load: Any) -> None:
    study = load("base: {backbone: {name: resnet18, base_channels: 16}}", "backbone={frozen_stages: 1}")
    assert study.cells[0].trial.backbone.model_dump(include={"name", "base_channels", "frozen_stages"}) == {
        "name": "resnet18",
        "base_channels": 16,
        "frozen_stages": 1,
    }


def test_an_axis_is_pinned_to_the_value(load: Any) -> None:
    assert hosts_and_points(load(GRID, "host=fcos")) == [("fcos", 5), ("fcos", 9)]
    assert hosts_and_points(load(GRID, "host=gfl", "salt.points=9")) == [("gfl", 9)]


@pytest.mark.parametrize("override", ["salt=true", "salt.enabled=true"])
@pytest.mark.parametrize("axis", ["salt", "salt.enabled"])
def test_an_axis_is_pinned_under_its_short_and_its_long_name(load: Any, axis: str, override: str) -> None:
    study = load(f"axes: {{{axis}: [false, true], host: [atss, gfl]}}", override)
    assert [cell.trial.salt.enabled for cell in study.cells] == [True, True]


def test_study_fields_are_replaced(load: Any) -> None:
    study = load(GRID, "seeds=[5]", "axes.host=[fcos]", "name=mine", "question=Why?", "exclude=[{salt.points: 5}]")
    assert (study.seeds, study.name, study.question) == ((5,), "mine", "Why?")
    assert hosts_and_points(study) == [("fcos", 9)]


def test_an_axis_can_be_added_and_the_comparison_set(load: Any) -> None:
    study = load("base: {host: gfl}", "axes.salt=[off, on]", "compare.baseline.salt=off")
    assert [cell.baseline for cell in study.cells] == [None, study.cells[0].key]
    assert load("axes: {salt: [off, on]}\ncompare: {baseline: {salt: off}}", "salt=on", "compare={}").cells[0].baseline is None


def test_one_own_data_set_replaces_the_embedded_one(load: Any) -> None:
    text = "base: {data: {kind: marks, train_images: 300}}"
    assert load(text, "data.images=/i", "data.val=/v", "data.train=/t").cells[0].trial.data.kind == "coco"
    assert load(text, "data={train: /t, val: /v, images: /i}").cells[0].trial.data.kind == "coco"
    assert load(text, "data.classes=2").cells[0].trial.data.train_images == 300


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("host=atts", "override host=atts: no host named 'atts'. Did you mean 'atss'?"),
        ("salt.points=3", "override salt.points=3: a point set needs at least 4 points (one per side)."),
        ("salt.sdr_weight=-1", "override salt.sdr_weight=-1: must be at least 0"),
        ("backbone={name: resnt18}", "override backbone={name: resnt18}: backbone.name = resnt18: no backbone named 'resnt18'"),
        ("axes.salt.points=[4,3]", "override axes.salt.points=[4,3]: axes.salt.points[1] = 3: a point set"),
        ("seeds=[0,x]", "override seeds=[0,x]: seeds[1] = x: a seed is an integer"),
        ("seed=3", "override seed=3: training seeds are the study's: write seeds: [3]"),
        ("hosst=atss", "override hosst=atss: no key named 'hosst'. Did you mean 'host'?"),
        ("seedz=[1]", "override seedz=[1]: no key named 'seedz'. Did you mean 'seeds'?"),
        ("salt.pionts=5", "override salt.pionts=5: no key of salt named 'pionts'. Did you mean 'points'?"),
        ("axes.hots=[atss]", "override axes.hots=[atss]: no key named 'hots'"),
        ("host", "override host: an override is key=value, e.g. host=atss"),
        ("=atss", "override =atss: an override is key=value"),
        ("seeds=[0,", "override seeds=[0,: the value is not valid YAML"),
        ("name.first=x", "override name.first=x: replace the whole field: name=..."),
        ("host=[atss,fcos]", "override host=[atss,fcos]: must be text"),
        ("compare.baseline.salt=off", 'compare.baseline = {"salt.enabled": false}: is in no cell of the study'),
    ],
)
def test_a_wrong_override_is_quoted(refuse: Any, override: str, words: str) -> None:
    assert refuse(GRID, override).startswith(words)


def test_an_override_given_twice_would_lose_one(refuse: Any) -> None:
    assert "salt.enabled is given twice: keep one" in refuse(GRID, "salt=on", "salt.enabled=off")


@pytest.mark.parametrize(
    ("text", "override", "words"),
    [
        ("cases: [{host: gfl}]", "host=atss", "cases[0].host sets host in the file: replace that with cases=..."),
        ("zip: {host: [gfl], channels: [64]}", "host=atss", "zip.host[0] sets host in the file: replace that with zip=..."),
        ("one_at_a_time: {vary: {salt.points: [5]}}", "salt.points=4", "replace that with one_at_a_time.vary.salt.points=..."),
        (
            "one_at_a_time: {add_one: {sdr: {off: {salt.sdr_weight: 0}, on: {salt.sdr_weight: 1}}}}",
            "salt.sdr_weight=2",
            "replace that with one_at_a_time.add_one.sdr=...",
        ),
        (
            "axes: {schedule: [1x, 2x]}",
            "schedule.lr=0.1",
            "axes.schedule[1] sets schedule.lr in the file: replace that with axes.schedule=...",
        ),
        ("axes: {salt: [off, {enabled: true}]}", "salt.enabled=off", "sets salt.enabled in the file: replace that with axes.salt=..."),
    ],
)
def test_an_override_that_would_have_no_effect_says_why(refuse: Any, text: str, override: str, words: str) -> None:
    said = refuse(text, override)
    assert said.startswith(f"override {override}: would have no effect: ")
    assert words in said


@pytest.mark.parametrize(
    ("text", "override"),
    [
        ("zip: {host: [gfl], channels: [64]}", "zip={host: [atss], channels: [96]}"),
        ("one_at_a_time: {vary: {salt.points: [5]}}", "one_at_a_time.vary.salt.points=[13]"),
        (
            "one_at_a_time: {add_one: {sdr: {off: {salt.sdr_weight: 0}, on: {salt.sdr_weight: 1}}}}",
            "one_at_a_time.add_one.sdr={off: {salt.sdr_weight: 0}, on: {salt.sdr_weight: 2}}",
        ),
    ],
)
def test_the_remedies_that_the_errors_name_work(load: Any, text: str, override: str) -> None:
    text = "base: {salt: true}\n" + text
    assert [cell.key for cell in load(text, override).cells] != [cell.key for cell in load(text).cells]
