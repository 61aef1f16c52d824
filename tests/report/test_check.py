"""Ours against published, within the spread that is reported between two runs."""

from __future__ import annotations

import pytest

from salt_lab.report.check import check_study, stated_noise
from salt_lab.report.published import Coco
from salt_lab.report.results import load_results

HOSTS = """
    question: q
    base: {data: marks, backbone: {name: resnet50, init: host}, schedule: 1x}
    axes: {host: [atss, gfl], salt.enabled: [false, true]}
    seeds: [0]
    compare: {baseline: {salt.enabled: false}}
"""


@pytest.fixture
def bench(make_study, make_bench):
    return make_bench(make_study(HOSTS, "hosts"))


@pytest.fixture
def as_if_on_coco(monkeypatch):
    monkeypatch.setattr("salt_lab.report.check.whole_coco", lambda data: Coco(True, True))


def verdicts(bench, noise=None):
    found = check_study(load_results(bench.study, bench.store), noise)
    return found, {(one.name.split()[0].removeprefix("host="), one.name.endswith("salt=on")): one for one in found.verdicts}


@pytest.mark.parametrize(
    ("ours", "said", "difference"),
    [
        (39.4, "agrees", 0.0),
        (39.06, "agrees", -0.3),  # 39.1 to the published decimal
        (39.04, "lower by 0.4", -0.4),
        (39.74, "agrees", 0.3),
        (41.0, "higher by 1.6", 1.6),
    ],
)
def test_ours_agrees_within_three_tenths_of_the_published_decimal(bench, as_if_on_coco, ours, said, difference):
    bench.done(bench.trial(0, host="atss", salt=False), ours)
    found, by_cell = verdicts(bench)
    one = by_cell["atss", False]
    assert (one.said, one.difference, one.published.id) == (said, difference, "atss")
    assert found.disagrees == (said != "agrees")


def test_the_allowed_spread_is_the_one_that_maintainers_state_unless_another_is_asked_for(bench, as_if_on_coco):
    assert (stated_noise(), stated_noise(same_seed=True)) == (0.3, 0.2)
    bench.done(bench.trial(0, host="atss", salt=False), 38.9)
    assert verdicts(bench)[0].disagrees and not verdicts(bench, noise=0.5)[0].disagrees


def test_a_cell_without_a_published_number_or_a_result_of_its_own_is_no_disagreement(bench, as_if_on_coco):
    bench.done(bench.trial(0, host="atss", salt=True), 12.0)
    found, by_cell = verdicts(bench)
    assert (by_cell["atss", True].said, by_cell["atss", True].why) == ("nothing published", "nothing published of SALT on atss")
    assert by_cell["gfl", False].said == "no result yet" and not found.disagrees


def test_another_data_set_is_never_held_against_coco(bench):
    bench.done(bench.trial(0, host="atss", salt=False), 12.0)
    found, by_cell = verdicts(bench)
    assert {one.said for one in found.verdicts} == {"not run on COCO"} and not found.disagrees
    assert by_cell["atss", False].difference is None


def test_a_mean_over_seeds_that_early_stopping_chose_is_not_compared(make_study, make_bench, as_if_on_coco):
    bench = make_bench(make_study(HOSTS.replace("seeds: [0]", "seeds: [0, 1]"), "hosts"))
    bench.done(bench.trial(0, host="atss", salt=False), 44.0)
    bench.stopped(bench.trial(1, host="atss", salt=False), 5.0)
    assert verdicts(bench)[1]["atss", False].said == "not compared"


def test_the_papers_statement_on_gains_is_shown_beside_ours_and_judges_nothing(bench, as_if_on_coco):
    for salt, ap in ((False, 39.4), (True, 39.5)):
        bench.done(bench.trial(0, host="atss", salt=salt), ap)
    found, _ = verdicts(bench)
    (statement,) = found.statements
    assert "~2 AP is stated" in statement and "no number for any host" in statement and "host=atss salt=on +0.1" in statement
    assert not found.disagrees
