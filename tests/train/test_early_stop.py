"""Who is stopped at a rung: a fair rule, the same for equal journals, and no trial without company."""

from __future__ import annotations

import itertools
import random

import pytest

from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.early_stop import EarlyStop
from salt_lab.spec.study import load_study
from salt_lab.train.early_stop import Rungs, judge, launch_rules, nothing_left

THIRD = EarlyStop(rungs=(3, 6), keep=1 / 3)
STUDY = """
base: {salt: true, schedule: {epochs: 9}}
axes: {host: [atss, gfl], salt.points: [5, 9, 12]}
seeds: [0, 1]
early_stop: {rungs: [3], keep: 1/3}
"""


def others(*aps):
    return {f"{i:012x}": ap for i, ap in enumerate(aps)}


def test_the_trials_below_the_best_third_are_stopped_and_the_threshold_is_the_last_place():
    verdict = judge(3, 20.0, others(30.0, 25.0, 22.0, 10.0, 5.0), THIRD)
    assert verdict.stop and (verdict.places, verdict.threshold) == (2, 25.0)
    assert verdict.reason == "early stopping at epoch 3: AP 20.0, needed 25.0 to be among the best 2 of 6"
    assert not judge(3, 25.0, others(30.0, 20.0, 22.0, 10.0, 5.0), THIRD).stop


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_those_compared_is_never_stopped_in_whatever_order_they_come(seed):
    draw = random.Random(seed)
    aps = [draw.uniform(0, 50) for _ in range(30)]
    rules = EarlyStop(rungs=(3,), keep=0.05, min_peers=1)
    for i, ap in enumerate(aps):
        stopped = judge(3, ap, others(*aps[:i]), rules).stop
        assert not (stopped and ap == max(aps[: i + 1]))


def test_with_fewer_than_min_peers_others_nobody_is_stopped_however_bad():
    verdict = judge(3, 0.0, others(90.0, 80.0), THIRD)
    assert not verdict.stop and verdict.threshold is None
    assert judge(3, 0.0, others(90.0, 80.0, 70.0), THIRD).stop


def test_keeping_all_stops_nobody():
    rules = EarlyStop(rungs=(3,), keep=1, min_peers=1)
    for aps in itertools.permutations((0.0, 1.0, 2.0, 3.0)):
        assert not judge(3, aps[0], others(*aps[1:]), rules).stop


def test_equals_share_their_fate():
    assert not judge(3, 10.0, others(10.0, 10.0, 10.0, 10.0), THIRD).stop


def test_places_are_rounded_up_and_not_by_a_rounding_error():
    assert [judge(3, 1.0, others(*[0.0] * n), EarlyStop(rungs=(3,), keep="1/3")).places for n in (3, 5, 6, 8)] == [2, 2, 3, 3]
    assert judge(3, 1.0, others(*[0.0] * 9), EarlyStop(rungs=(3,), keep=0.1)).places == 1


def test_the_order_of_the_others_changes_nothing():
    aps = others(30.0, 25.0, 22.0, 10.0)
    verdict = judge(3, 21.0, aps, THIRD)
    again = judge(3, 21.0, dict(reversed(aps.items())), THIRD)
    assert verdict == again and list(verdict.peers) == list(again.peers)


def test_a_worse_trial_is_stopped_wherever_a_better_one_is():
    company = others(30.0, 25.0, 22.0, 10.0, 5.0)
    stopped = [judge(3, ap, company, THIRD).stop for ap in range(40)]
    assert stopped == sorted(stopped, reverse=True)


class Lab:
    """A study in a results folder, its trials told to reach a rung one by one."""

    def __init__(self, tmp_path, text=STUDY):
        (tmp_path / "s.yaml").write_text(text)
        self.store, self.study = Store(tmp_path / "runs"), load_study(tmp_path / "s.yaml")
        self.ids = [f"{i:012x}" for i in range(len(self.study.trials()))]
        self.launch = self.store.new_launch(self.study, self.ids, early_stop=launch_rules(self.study, self.ids))

    def start(self, i, launch=None, *, resumed_epoch=0, data="marks-1", study=None, **trial):
        plain = self.study.trials()[i].model_dump(mode="json") | trial
        recorder = FolderRecorder(self.store, self.ids[i])
        words = {"study": study or "s", "launch_id": launch or self.launch, "data_fingerprint": data, "provenance": {}}
        recorder.start(trial=plain, resumed_epoch=resumed_epoch, **words)
        return recorder

    def reach(self, i, ap, epoch=3, **start):
        """Trial ``i`` is evaluated at ``epoch``; is it to stop?"""
        recorder = self.start(i, **start)
        recorder.eval(epoch, {"AP": ap})
        rungs = Rungs.of(self.store, recorder)
        return rungs is not None and rungs.after_evaluation(epoch)


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def test_a_stop_is_written_with_the_rung_the_ap_the_threshold_and_the_others_aps(lab):
    assert [lab.reach(i, ap) for i, ap in enumerate((10.0, 20.0, 30.0, 5.0))] == [False, False, False, True]
    record = lab.store.record(lab.ids[3])
    assert record.state == "stopped" and "AP 5.0, needed 20.0 to be among the best 2 of 4" in record.reason
    evidence = {key: record.stopped[key] for key in ("epoch", "ap", "threshold", "places", "peers")}
    assert evidence == {
        "epoch": 3,
        "ap": 5.0,
        "threshold": 20.0,
        "places": 2,
        "peers": dict(zip(lab.ids, (10.0, 20.0, 30.0), strict=False)),
    }


def test_going_on_is_written_too_so_that_every_decision_can_be_checked(lab):
    lab.reach(0, 10.0)
    lab.reach(1, 20.0)
    passed = lab.store.record(lab.ids[1]).rungs[3]
    assert (passed["threshold"], passed["peers"]) == (None, {lab.ids[0]: 10.0})


def test_equal_journals_give_equal_decisions(lab, tmp_path):
    (tmp_path / "twin").mkdir()
    twin = Lab(tmp_path / "twin")
    draw = random.Random(1)
    aps = [draw.uniform(0, 50) for _ in lab.ids]
    told = [[one.reach(i, ap) for i, ap in enumerate(aps)] for one in (lab, twin)]
    assert told[0] == told[1] and any(told[0]) and not all(told[0])


def test_between_rungs_nothing_is_decided(lab):
    for i in range(4):
        assert not lab.reach(i, float(-i), epoch=2)
    assert not lab.store.record(lab.ids[3]).rungs


def test_a_trial_without_an_ap_is_neither_stopped_nor_compared_with(lab):
    for i in range(3):
        lab.reach(i, 50.0)
    assert not lab.reach(3, None)
    lab.reach(4, 10.0)
    assert lab.ids[3] not in lab.store.record(lab.ids[4]).stopped["peers"]


def test_who_was_stopped_or_failed_later_still_counts_for_those_who_come_after(lab):
    for i, ap in enumerate((50.0, 40.0, 30.0, 5.0)):
        lab.reach(i, ap)
    FolderRecorder(lab.store, lab.ids[0]).failed("out of memory")
    lab.reach(4, 4.0)
    assert set(lab.store.record(lab.ids[4]).stopped["peers"]) == set(lab.ids[:4])


def test_trials_compete_within_their_study_alone(lab):
    stranger = FolderRecorder(lab.store, "f" * 12)
    stranger.start(trial=lab.study.trials()[0].model_dump(mode="json"), study="t", launch_id="x", data_fingerprint="marks-1", provenance={})
    stranger.eval(3, {"AP": 99.0})
    lab.reach(0, 1.0)
    assert not lab.store.record(lab.ids[0]).rungs[3]["peers"]


def test_an_ap_is_compared_with_aps_on_the_same_data_in_schedules_of_the_same_length(lab):
    lab.reach(0, 90.0, data="marks-2")
    lab.reach(1, 90.0, schedule={"epochs": 90})
    lab.reach(2, 1.0)
    assert not lab.store.record(lab.ids[2]).rungs[3]["peers"]


def test_in_groups_trials_of_one_host_compete(tmp_path):
    lab = Lab(tmp_path, STUDY.replace("keep: 1/3", "keep: 1/3, group: host"))
    assert not any(lab.reach(i, 90.0) for i in range(6))
    assert not any(lab.reach(i, 1.0) for i in range(6, 9)), "they are of the other host"
    assert not lab.reach(9, 1.0) and lab.reach(10, 0.5)


def test_a_baseline_is_compared_with_and_never_stopped(tmp_path):
    text = STUDY.replace("salt.points: [5, 9, 12]", "salt.enabled: [false, true]") + "compare: {baseline: {salt.enabled: false}}\n"
    lab = Lab(tmp_path, text)
    off = [i for i, trial in enumerate(lab.study.trials()) if not trial.salt.enabled]
    on = [i for i, trial in enumerate(lab.study.trials()) if trial.salt.enabled]
    assert not any(lab.reach(i, ap) for i, ap in zip((*on[:3], *off), (50.0, 60.0, 70.0, 3.0, 2.0, 1.0, 0.0), strict=True))
    assert lab.store.record(lab.ids[off[-1]]).rungs[3]["threshold"] == 50.0
    assert lab.reach(on[3], 2.5) and lab.ids[off[0]] in lab.store.record(lab.ids[on[3]]).stopped["peers"]


def test_a_process_killed_between_evaluation_and_decision_decides_when_it_resumes(lab):
    for i, ap in enumerate((50.0, 40.0, 30.0)):
        lab.reach(i, ap)
    lab.start(3).eval(3, {"AP": 1.0})
    again = lab.start(3, resumed_epoch=3)
    assert Rungs.of(lab.store, again).on_resuming(3)
    assert lab.store.record(lab.ids[3]).state == "stopped"


def test_a_rung_is_decided_once(lab):
    lab.reach(0, 1.0)
    for i in range(1, 4):
        lab.reach(i, 50.0)
    again = lab.start(0, resumed_epoch=3)
    assert not Rungs.of(lab.store, again).on_resuming(3)
    assert lab.store.record(lab.ids[0]).stopped is None


def test_a_launch_without_early_stopping_stops_nobody_and_takes_up_those_that_were(lab):
    for i, ap in enumerate((50.0, 40.0, 30.0, 1.0)):
        lab.reach(i, ap)
    assert nothing_left(lab.store, lab.ids[3], "s", lab.launch)
    free = lab.store.new_launch(lab.study, lab.ids)
    assert not nothing_left(lab.store, lab.ids[3], "s", free)
    assert not lab.reach(4, 0.0, launch=free)
    assert Rungs.of(lab.store, lab.start(3, launch=free, resumed_epoch=3)) is None


def test_what_another_study_stopped_is_not_stopped_for_this_one(lab):
    for i, ap in enumerate((50.0, 40.0, 30.0, 1.0)):
        lab.reach(i, ap)
    record = lab.store.record(lab.ids[3])
    assert record.is_final("s", early_stopping=True) and not record.is_final("t", early_stopping=True)
