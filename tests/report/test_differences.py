"""What differs between two runs: everything that does, and nothing that does not."""

from __future__ import annotations

import json

import pytest

from salt_lab.report.differences import ABSENT, Runs, differences, facts, runs_of
from salt_lab.report.results import load_results


def told(bench, first: str, second: str) -> dict[str, tuple[str, str]]:
    found = differences(bench.store.record(first), bench.store.record(second))
    return {one.key: (one.first, one.second) for one in found}


def test_two_arms_differ_in_the_operator_and_in_what_came_out_and_in_nothing_else(bench):
    off, on = (bench.done(bench.trial(0, host="atss", salt=salt), 30.0 + salt) for salt in (False, True))
    found = told(bench, off, on)
    assert found["SALT"] == ("off", "on") and found["AP"] == ("30.00", "31.00")
    assert found["salt.points"] == (ABSENT, "9"), "a toggle that only one of them has"
    assert all(key.startswith("salt.") or key in ("SALT", "AP") for key in found), "same host, data, code, machine"


def test_a_run_does_not_differ_from_itself(bench):
    trial = bench.done(bench.trial(0, host="atss", salt=True), 30.0)
    assert told(bench, trial, trial) == {}


def test_the_environment_differs_where_code_machine_or_a_package_does(bench):
    here = {"git_commit": "a" * 40, "packages": {"torch": "2.6", "numpy": "2"}, "machine": {"cpu": "one", "cores": 2}}
    there = {"git_commit": "b" * 40, "packages": {"torch": "2.7", "numpy": "2"}, "machine": {"cpu": "one", "cores": 64}}
    first = bench.done(bench.trial(0, host="atss", salt=True), 30.0, **here)
    second = bench.done(bench.trial(1, host="atss", salt=True), 30.0, **there)
    found = told(bench, first, second)
    assert found["git_commit"] == ("a" * 40, "b" * 40) and found["packages.torch"] == ("2.6", "2.7")
    assert found["machine.cores"] == ("2", "64") and found["seed"] == ("0", "1")
    assert "packages.numpy" not in found and "machine.cpu" not in found


def test_a_failed_run_is_compared_as_far_as_it_came(bench):
    done, failed = bench.done(bench.trial(0, host="atss", salt=True), 30.0), bench.failed(bench.trial(1, host="atss", salt=True))
    found = told(bench, done, failed)
    assert found["state"] == ("done", "failed") and found["AP"] == ("30.00", ABSENT)


def test_paths_are_told_by_their_last_part(bench):
    record = bench.store.record(bench.done(bench.trial(0, host="atss", salt=True), 30.0))
    record.trial["backbone"]["init"] = "/home/somebody/weights.pth"
    assert facts(record)["configuration", "backbone.init"] == "weights.pth"


def test_the_page_gets_what_python_finds_for_every_two_runs(full):
    runs = runs_of(load_results(full.study, full.store), full.store)
    data = json.loads(json.dumps(runs.as_data()))
    assert len(data["runs"]) == 12 and len(set(data["runs"])) == 12
    for i, first in enumerate(runs.facts):
        for j, second in enumerate(runs.facts):
            python = {(key, first.get(key, ABSENT), second.get(key, ABSENT)) for key in {*first, *second}}
            page = {
                (tuple(key), data["texts"][data["rows"][i][at]], data["texts"][data["rows"][j][at]]) for at, key in enumerate(data["keys"])
            }
            assert {one for one in page if one[1] != one[2]} == {one for one in python if one[1] != one[2]}


def test_what_all_runs_share_is_not_in_the_page(full):
    keys = runs_of(load_results(full.study, full.store), full.store).keys()
    assert ("configuration", "seed") in keys and ("environment", "git_commit") not in keys


def test_the_first_two_are_a_baseline_and_its_variant_of_one_seed(full):
    results = load_results(full.study, full.store)
    runs, cell = runs_of(results, full.store), next(cell for cell in full.study.cells if cell.baseline)
    first, second = runs.first_two([(cell.baseline, cell.key)])
    assert (runs.cells[first], runs.cells[second]) == (cell.baseline, cell.key) and runs.seeds[first] == runs.seeds[second]


@pytest.mark.parametrize(("names", "expected"), [((), (0, 0)), (("one",), (0, 0)), (("one", "two"), (0, 1))])
def test_without_a_comparison_the_first_two_are_the_first_two(names, expected):
    none = tuple({} for _ in names)
    chosen = Runs(names, none, tuple("a" for _ in names), tuple(0 for _ in names)).first_two([("b", "c")])
    assert chosen == expected or not names
