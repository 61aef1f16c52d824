"""The published schema is the one that the types give, and it knows right from wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from salt_lab.spec import study_schema
from salt_lab.spec.overrides import FIELDS
from salt_lab.spec.reading import parse_yaml
from salt_lab.spec.schema import schema_text

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
STUDIES = sorted(EXPERIMENTS.glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(study_schema())


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = json.loads((EXPERIMENTS / "study.schema.json").read_text(encoding="utf-8"))
    assert committed == json.loads(schema_text()), "run: salt-lab schema > experiments/study.schema.json"


def test_the_schema_is_a_schema_and_knows_every_field() -> None:
    Draft202012Validator.check_schema(study_schema())
    assert set(study_schema()["properties"]) == set(FIELDS)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_study_meets_the_schema_and_names_it_for_editors(validator: Draft202012Validator, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=study.schema.json\n")
    validator.validate(parse_yaml(text))


RIGHT = [
    "base: {salt: true, backbone: resnet18, data: marks, schedule: 1x}",
    "base: {salt: {points: 5}, salt.sdr_weight: 0, data: {train: a, val: b, images: c}}",
    "axes: {salt: [true, {points: 5}], schedule.image_size: [[112, 112]], salt.coarse_weight: [null, 1]}",
    "zip: [{host: [atss]}, {salt.points: [5]}]",
    "zip: {host: [atss]}",
    "cases: [{name: plain, host: atss}]",
    "exclude: [{host: [atss, gfl], salt.points: {lt: 9, ne: 5}}, {salt: false}]",
    "one_at_a_time: {vary: {salt.points: [5]}, add_one: {sdr: {off: {salt.sdr_weight: 0}, on: {salt.sdr_weight: 1}}}}",
    "compare: {baseline: {salt.enabled: false}}\nseeds: [0, 1]",
]
WRONG = [
    "base: {host: atts}",
    "base: {salt: {pionts: 9}}",
    "base: {salt.pionts: 9}",
    "base: {seed: 1}",
    "axes: {salt.points: [3]}",
    "axes: {salt.points: 9}",
    "axes: {host: []}",
    "base: {salt.sdr_weight: -1}",
    "base: {channels: 48}",
    "seeds: [0, 0]",
    "seeds: [a]",
    "seeds: []",
    "axis: {}",
    "exclude: [{}]",
    "exclude: [{salt.points: {lte: 5}}]",
    "one_at_a_time: {add_one: {sdr: {on: {salt.sdr_weight: 0}}}}",
    "compare: {base: {}}",
    "name: a/b",
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_the_lab_accepts_has_no_red_line(validator: Draft202012Validator, load: Any, text: str) -> None:
    validator.validate(parse_yaml(text))
    if not text.startswith(("exclude", "compare")):
        load(text)


@pytest.mark.parametrize("text", WRONG)
def test_what_the_lab_refuses_has_a_red_line(validator: Draft202012Validator, refuse: Any, text: str) -> None:
    assert not validator.is_valid(parse_yaml(text))
    refuse(text)
