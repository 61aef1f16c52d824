"""Early stopping is asked for in words that can only mean one thing, and where a rung cannot be decided the study is refused."""

from __future__ import annotations

import pytest

from salt_lab.spec.trial import canonical

RUN = "base: {schedule: {epochs: 12, eval_every: 3}}\n"


def test_nobody_is_stopped_unless_the_study_asks(load):
    assert load("base: {host: atss}").early_stop is None
    assert load(f"{RUN}early_stop: null").early_stop is None
    assert load(f"{RUN}early_stop: {{rungs: [3]}}", "early_stop=null").early_stop is None


def test_the_short_forms_mean_what_they_say(load):
    rules = load(f"{RUN}early_stop: {{kind: asha, rungs: [3, 6], keep: 1/3, group: salt}}").early_stop
    assert (rules.rungs, rules.keep, rules.min_peers, rules.group) == ((3, 6), 1 / 3, 3, ("salt.enabled",))
    assert str(rules) == "asha at epochs 3, 6: the best 33.3 % go on, among trials of the same salt.enabled, once there are 3 others"


def test_it_changes_no_trial_and_an_override_sets_one_of_its_fields(load):
    plain, stopping = load(RUN), load(f"{RUN}early_stop: {{rungs: [3]}}", "early_stop.keep=0.5")
    assert stopping.early_stop.keep == 0.5
    assert [canonical(trial) for trial in plain.trials()] == [canonical(trial) for trial in stopping.trials()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{rungs: [3, 4]}",
            "early_stop.rungs = [3, 4]: at epoch 4 the cell 'host=atss salt=off' is not evaluated (schedule.eval_every = 3)",
        ),
        ("{rungs: [12]}", "early_stop.rungs = [12]: at epoch 12 the cell 'host=atss salt=off' is at its end (schedule.epochs = 12)"),
        ("{rungs: [6, 3]}", "early_stop.rungs = [6, 3]: must increase, e.g. [3, 6]"),
        ("{rungs: []}", "early_stop.rungs = []: has the wrong number of entries"),
        ("{rungs: [0]}", "early_stop.rungs = [0]: must be at least 1"),
        ("{}", "early_stop.rungs: is missing: Epochs after whose evaluation a trial may be stopped"),
        ("{rungs: [3], keep: 0}", "early_stop.keep = 0: must be greater than 0"),
        ("{rungs: [3], keep: 1.5}", "early_stop.keep = 1.5: must be at most 1"),
        ("{rungs: [3], keep: third}", "early_stop.keep = third: must be a number or a fraction, e.g. 0.34 or 1/3"),
        ("{rungs: [3], keep: 1/0}", "early_stop.keep = 1/0: must be a number or a fraction"),
        ("{rungs: [3], min_peers: 0}", "early_stop.min_peers = 0: must be at least 1"),
        ("{rungs: [3], group: hots}", "early_stop.group = hots: no key of a trial named 'hots'. Did you mean 'host'?"),
        ("{rungs: [3], kind: median}", "early_stop.kind = median: no kind named 'median'. Choices: asha"),
        ("{rung: [3]}", "early_stop.rungs: is missing"),
        ("{rungs: [3], keeps: 1}", "early_stop.keeps = 1: no key of early_stop named 'keeps'. Did you mean 'keep'?"),
        ("[3, 6]", "early_stop = [3, 6]: must be a mapping, e.g. {rungs: [3, 6], keep: 1/3}, or null for none"),
    ],
)
def test_what_cannot_be_decided_is_refused_in_words(refuse, text, words):
    assert refuse(f"{RUN}early_stop: {text}").startswith(words)


def test_a_study_that_is_evaluated_at_its_end_alone_has_no_rungs(refuse):
    words = refuse("base: {schedule: {epochs: 12, eval_every: 0}}\nearly_stop: {rungs: [3]}")
    assert "is not evaluated (schedule.eval_every = 0): set it to a number that divides the rungs" in words


def test_every_cell_must_reach_every_rung_before_its_end(refuse):
    words = refuse("axes: {schedule.epochs: [12, 6]}\nearly_stop: {rungs: [3, 6]}")
    assert "at epoch 6 the cell 'epochs=6' is at its end" in words
