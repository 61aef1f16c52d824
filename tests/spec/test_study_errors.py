"""Bad input: one line that names file, field, value and what to do next. Each line here is a mistake that somebody will make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from salt_lab.errors import SpecError
from salt_lab.spec import load_study

ON = "base: {salt: true}\n"
CASES = {
    "unknown host": ("base: {host: atts}", "base.host = atts: no host named 'atts'. Did you mean 'atss'?"),
    "unknown host in an axis": ("axes: {host: [atss, atts]}", "axes.host[1] = atts: no host named 'atts'"),
    "unknown toggle": ("base: {salt: {pionts: 9}}", "base.salt.pionts = 9: no key of salt named 'pionts'. Did you mean 'points'?"),
    "unknown dotted toggle": ("axes: {salt.pionts: [9]}", "axes.salt.pionts = [9]: no key of salt named 'pionts'"),
    "unknown key": ("base: {hots: atss}", "base.hots = atss: no key named 'hots'. Did you mean 'host'?"),
    "unknown group": ("base: {slat.points: 9}", "no key named 'slat'. Did you mean 'salt'?"),
    "toggle without its group": ("axes: {sdr_weight: [0]}", "no key named 'sdr_weight'. Did you mean 'salt.sdr_weight'?"),
    "unknown field": ("axis: {host: [atss]}", "no study field named 'axis'. Did you mean 'axes'?"),
    "trial key outside base": ("host: atss", "host = atss: is a key of a trial: write it under base"),
    "K = 3": (ON + "axes: {salt.points: [4, 3]}", "axes.salt.points[1] = 3: a point set needs at least 4 points (one per side)."),
    "K = 3 in a mapping": ("axes: {salt: [false, {enabled: true, points: 3}]}", "axes.salt[1].points = 3: a point set needs at least 4"),
    "K = 3 in a zip": ("zip: {host: [atss, gfl], salt.points: [4, 3]}", "zip.salt.points[1] = 3: a point set"),
    "K = 3 in the second zip": ("zip: [{host: [atss]}, {salt.points: [3]}]", "zip[1].salt.points[0] = 3: a point set"),
    "K = 3 in a case": ("cases: [{host: atss}, {salt.points: 3}]", "cases[1].salt.points = 3: a point set"),
    "K = 3 in a part": (
        "one_at_a_time: {add_one: {inside: {off: {salt.points: 3}, on: {salt.points: 9}}}}",
        "one_at_a_time.add_one.inside.off.salt.points = 3: a point set",
    ),
    "K = 3 varied": ("one_at_a_time: {vary: {salt.points: [5, 3]}}", "one_at_a_time.vary.salt.points[1] = 3: a point set"),
    "K as text": ("base: {salt.points: nine}", "base.salt.points = nine: must be an integer"),
    "negative SDR weight": ("base: {salt.sdr_weight: -1}", "base.salt.sdr_weight = -1: must be at least 0"),
    "negative coarse weight": ("axes: {salt.coarse_weight: [1, -.5]}", "axes.salt.coarse_weight[1] = -0.5: must be at least 0"),
    "seed that is no integer": ("seeds: [0, 1.5]", "seeds[1] = 1.5: a seed is an integer"),
    "seed that is text": ("seeds: [zero]", "seeds[0] = zero: a seed is an integer"),
    "seed that is a truth value": ("seeds: [true]", "seeds[0] = true: a seed is an integer"),
    "negative seed": ("seeds: [-1]", "seeds[0] = -1: a seed is an integer from 0 on"),
    "duplicated seed": ("seeds: [0, 1, 0]", "seeds[2] = 0: is there twice"),
    "seeds not in a list": ("seeds: 3", "seeds = 3: must be a list of integers, e.g. [3]"),
    "no seed": ("seeds: []", "seeds = []: is empty"),
    "seed in the base": ("base: {seed: 3}", "base.seed = 3: training seeds are the study's: write seeds: [3]"),
    "seed as an axis": ("axes: {seed: [0, 1]}", "write seeds: [0, 1]"),
    "seed on top": ("seed: 3", "write seeds: [3]"),
    "empty axis": ("axes: {host: []}", "axes.host = []: is empty: give at least one of its values"),
    "axis without a list": ("axes: {host: atss}", "axes.host = atss: must be a list of values, e.g. [atss]"),
    "axes as a list": ("axes: [host]", 'axes = ["host"]: must be a mapping'),
    "exclude removes everything": ("axes: {host: [atss, gfl]}\nexclude: [{salt: false}]", "removes every one of the 2 cells"),
    "exclude with an unknown host": ("exclude: [{host: atts}]", "exclude[0].host = atts: no host named 'atts'"),
    "exclude with an unknown key": ("exclude: [{hots: atss}]", "exclude[0].hots = atss: no key named 'hots'"),
    "exclude with an unknown operator": ("exclude: [{salt.points: {lte: 4}}]", "exclude[0].salt.points.lte = 4: no operator named 'lte'"),
    "exclude that compares text": ("exclude: [{host: {lt: b}}]", "exclude[0].host.lt = b: lt compares numbers"),
    "exclude without a condition": ("exclude: [{}]", "exclude[0] = {}: is an empty predicate"),
    "exclude that is no list": ("exclude: {host: atss}", "must be a list of predicates"),
    "exclude of a seed": ("exclude: [{seed: 0}]", "exclude[0].seed = 0: seeds are not part of a cell"),
    "baseline in no cell": (
        ON + "axes: {host: [atss, gfl]}\ncompare: {baseline: {salt.enabled: false}}",
        'compare.baseline = {"salt.enabled": false}: is in no cell of the study: add it to the axes or cases',
    ),
    "baseline of one cell missing": (
        "cases: [{host: atss}, {host: atss, salt: true}, {host: gfl, salt: true}]\ncompare: {baseline: {salt: off}}",
        "the cell 'host=gfl salt=on' has no baseline: the same cell with salt=off is not in the study: add that cell, or exclude",
    ),
    "baseline that cannot be built": (
        "axes: {host: [gfl, tood], salt: [off, on]}\nexclude: [{host: tood, salt: on}]\ncompare: {baseline: {host: tood}}",
        "the cell 'host=gfl salt=on' has no baseline: the same cell with host=tood cannot be built (compare.baseline",
    ),
    "baseline with an unknown toggle": (
        "compare: {baseline: {salt.enabeld: off}}",
        "compare.baseline.salt.enabeld = false: no key of salt",
    ),
    "baseline with an impossible value": ("compare: {baseline: {salt.points: 3}}", "compare.baseline.salt.points = 3: a point set"),
    "compare with an unknown field": ("compare: {base: {salt: off}}", "no field of compare named 'base'. Did you mean 'baseline'?"),
    "SALT on a comparison host": (
        "axes: {host: [gfl, tood], salt: [off, on]}",
        "axes.host[1] = tood: tood is a comparison host and has no SALT form; hosts with SALT: atss, ",
    ),
    "YAML that does not close": ("base: {host: atss}\naxes: [", "line 2, column 8: is not valid YAML"),
    "YAML with a tab": ("base:\n\thost: atss", "line 2, column 1: is not valid YAML"),
    "duplicate key": (
        "base: {host: atss}\nseeds: [0]\nbase: {host: gfl}",
        "line 3, column 1: is not valid YAML: the key 'base' is given twice",
    ),
    "duplicate inner key": ("base: {host: atss, host: gfl}", "line 1, column 20: is not valid YAML: the key 'host' is given twice"),
    "alias inside itself": ("axes: &a {host: [*a]}", "refers to itself"),
    "empty file": ("", "the file is empty: a study needs at least a base"),
    "only a comment": ("# nothing yet\n", "the file is empty"),
    "a list": ("- host: atss", "a study is a mapping (name, question, base, axes, ...), not a list"),
    "a text": ("hello", "not a piece of text"),
    "zip of different lengths": (
        "zip: {host: [atss, gfl], salt.points: [9]}",
        "zip: lists of different length: host has 2, salt.points has 1: a zip pairs them one to one.",
    ),
    "key in two axes": ("axes: {salt: [on], salt.enabled: [off]}", "axes.salt.enabled[0] = false: axes.salt[0] sets salt.enabled too"),
    "key in axis and zip": ("axes: {host: [atss]}\nzip: {host: [gfl]}", "zip.host[0] = gfl: axes.host[0] sets host too"),
    "key dotted and nested": ("base: {salt.points: 5, salt: {points: 9}}", "base.salt.points = 9: it is given twice, dotted and nested"),
    "list where one value belongs": ("base: {host: [atss, gfl]}", "to compare several values make it an axis, axes.host."),
    "unknown data": ("base: {data: mrks}", "base.data = mrks: no kind of data named 'mrks'. Did you mean 'marks'?"),
    "data without evaluation": ("base: {data: {train: t, images: i}}", "data.val: is missing: Annotation file for evaluation"),
    "two kinds of data in one": (
        "base: {data: {train: t, val: v, images: i, classes: 3}}",
        "base.data.classes = 3: 'data.classes' is no key of coco",
    ),
    "unknown schedule": ("base: {schedule: 3x}", "base.schedule = 3x: no schedule named '3x'. Choices: 1x, 2x."),
    "milestone after the end": (
        "base: {schedule: {epochs: 6, milestones: [8, 11]}}",
        "base.schedule.milestones = [8, 11]: every milestone must come",
    ),
    "unknown optimizer": (
        "base: {schedule.optimizer: adam}",
        "base.schedule.optimizer = adam: no schedule.optimizer named 'adam'. Did you mean 'adamw'?",
    ),
    "infinite rate": ("base: {schedule.lr: .inf}", "base.schedule.lr = Infinity: must be a finite number"),
    "no rate": ("base: {schedule.lr: 0}", "base.schedule.lr = 0: must be greater than 0 (Peak learning rate)"),
    "half an epoch": ("base: {schedule.epochs: 1.5}", "base.schedule.epochs = 1.5: must be an integer"),
    "size with one side": ("base: {schedule.image_size: [112]}", "base.schedule.image_size = [112]: has the wrong number of entries"),
    "odd channels": ("axes: {channels: [64, 48]}", "axes.channels[1] = 48: channels must be a multiple of 32"),
    "group with a number": ("axes: {salt: [9]}", "axes.salt[0] = 9: salt is a mapping of its fields, or true or false"),
    "case that is no mapping": ("cases: [atss]", "cases[0] = atss: must be a mapping"),
    "case names twice": ("cases: [{name: a, host: atss}, {name: a, host: gfl}]", "two cells are named 'a'"),
    "unknown mode": ("one_at_a_time: {add: {}}", "no mode of one_at_a_time named 'add'"),
    "part without off": ("one_at_a_time: {add_one: {sdr: {on: {salt.sdr_weight: 1}}}}", "must say what off and on are, e.g. sdr: {off:"),
    "part whose sides differ": (
        "one_at_a_time: {add_one: {sdr: {off: {salt.sdr_weight: 0}, on: {salt.points: 9}}}}",
        "off and on must set the same keys",
    ),
    "name that is no folder": ("name: my/study", "name = my/study: a study's name is a folder's name"),
    "question that is no text": ("question: [why]", 'question = ["why"]: must be text'),
}


@pytest.mark.parametrize(("text", "words"), CASES.values(), ids=CASES)
def test_a_wrong_study_says_what_is_wrong_where(refuse: Any, text: str, words: str) -> None:
    assert words in refuse(text)


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_variable_is_named_with_both_remedies(refuse: Any, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("CELLS", raising=False)
    if value is not None:
        monkeypatch.setenv("CELLS", value)
    words = refuse("base: {data: {train: '${CELLS}/t.json', val: v.json, images: i}}")
    assert words == (
        "base.data.train = ${CELLS}/t.json: the environment variable CELLS is not set: export CELLS=..., or override data.train=..."
    )


def test_a_variable_that_nothing_uses_need_not_be_set(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELLS", raising=False)
    text = "base: {data: {train: '${CELLS}/t', val: '${CELLS}/v', images: '${CELLS}'}}"
    assert load(text, "data=marks").cells[0].trial.data.kind == "marks"
    assert load(text, "data.train=/t", "data.val=/v", "data.images=/i").cells[0].trial.data.train == "/t"


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("base: {}")
    with pytest.raises(SpecError, match=r"no study file named '.*quikstart.yaml'. Did you mean '.*quickstart.yaml'\?"):
        load_study(tmp_path / "quikstart.yaml")


def test_a_missing_file_without_neighbours_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"^nowhere/s.yaml: no such file, and no study \(\*.yaml\) in nowhere/: check the path.$"):
        load_study("nowhere/s.yaml")


def test_a_folder_is_no_study_but_may_hold_one(tmp_path: Path) -> None:
    (tmp_path / ".pre-commit-config.yaml").write_text("repos:\n  - repo: x\n    hooks: [{id: base}]")
    with pytest.raises(SpecError, match=r"is a folder, not a study: name a study file"):
        load_study(tmp_path)
    (tmp_path / "s.yaml").write_text("base: {}")
    with pytest.raises(SpecError, match=r"is a folder, not a study: name a file in it, e.g. .*s.yaml."):
        load_study(tmp_path)


@pytest.mark.parametrize("content", [b"\x80\x02\xff", b"base: \0", "base: {host: atss}".encode("utf-16")])
def test_a_binary_file_is_no_study(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.yaml").write_bytes(content)
    with pytest.raises(SpecError, match="is not a text file: a study is YAML in UTF-8"):
        load_study(tmp_path / "s.yaml")
