"""What a trial runs on: said short, checked in words, and never part of who the trial is."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from salt_lab.spec.resources import Resources, fault
from salt_lab.spec.trial import canonical


@pytest.mark.parametrize(
    ("text", "workers", "gpus"),
    [
        ("{}", 1, None),
        ("{gpus: 8}", 8, 8),
        ("{gpus: 8.0}", 8, 8),
        ("{workers: 2}", 2, None),
        ("{workers: 2, gpus: 2}", 2, 2),
        ("{workers: 2, gpus: 0}", 2, 0),
        ("{gpus: 0.5}", 1, 0.5),
        ("{gpus: 0}", 1, 0),
    ],
)
def test_gpus_above_one_are_workers_with_one_each_and_a_fraction_is_a_share_of_one(load, text, workers, gpus):
    resources = load(f"resources: {text}").resources
    assert (resources.workers, resources.gpus) == (workers, gpus)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{workers: 1, gpus: 8}", "resources.gpus = 8: each worker has one GPU, so workers = 1 and gpus = 8 do not go together"),
        (
            "{workers: 2, gpus: 0.5}",
            "resources.gpus = 0.5: a share of a GPU is for one worker, and workers = 2: set gpus to 2, or workers to 1",
        ),
        ("{gpus: 1.5}", "resources.gpus = 1.5: must be a whole number above 1: 1 or 2"),
        ("{gpus: -1}", "resources.gpus = -1: must be at least 0 (GPUs of a trial"),
        ("{gpus: true}", "resources.gpus = true: must be a number, not true or false"),
        ("{gpus: .inf}", "resources.gpus = Infinity: must be a finite number"),
        ("{workers: 0}", "resources.workers = 0: must be at least 1 (Processes that train one trial together)"),
        ("{workers: two}", "resources.workers = two: must be an integer"),
        ("{memory_gb: 0}", "resources.memory_gb = 0: must be greater than 0"),
        ("{gpu: 1}", "resources.gpu = 1: no key of resources named 'gpu'. Did you mean 'gpus'?"),
        ("8", "resources = 8: must be a mapping of its fields, e.g. {gpus: 8} or {workers: 2}"),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(refuse, text, words):
    assert refuse(f"resources: {text}").startswith(words)


def test_an_override_sets_one_field_and_resources_change_no_trial(load):
    plain, wide = load("resources: {cpus: 2}"), load("resources: {cpus: 2}", "resources.gpus=4")
    assert (wide.resources.cpus, wide.resources.workers) == (2, 4)
    assert [canonical(trial) for trial in plain.trials()] == [canonical(trial) for trial in wide.trials()]


@pytest.mark.parametrize(
    ("study", "flags", "workers", "gpus"),
    [
        ({"gpus": 8}, {"gpus": 2}, 2, 2),
        ({"gpus": 8}, {"gpus": 0.5}, 1, 0.5),
        ({"gpus": 8}, {"workers": 2}, 2, None),
        ({"workers": 2}, {"gpus": 0}, 2, 0),
        ({"workers": 2, "gpus": 0}, {"workers": 3}, 3, 0),
        ({"workers": 2}, {"cpus": 4}, 2, None),
    ],
)
def test_the_command_line_goes_before_the_study(study, flags, workers, gpus):
    resources = Resources(**study).over(**flags)
    assert (resources.workers, resources.gpus) == (workers, gpus)


def test_flags_that_contradict_each_other_are_refused():
    with pytest.raises(ValidationError) as caught:
        Resources().over(workers=2, gpus=4)
    assert fault(caught.value)[0] == "gpus"


@pytest.mark.parametrize(("gpus", "there", "each", "all_"), [(None, True, 1, 2), (None, False, 0, 0), (0, True, 0, 0), (2, True, 1, 2)])
def test_a_worker_takes_a_gpu_where_there_are_gpus_unless_said_otherwise(gpus, there, each, all_):
    settled = Resources(workers=2, gpus=gpus).settled(there)
    assert (settled.gpus_per_worker, settled.gpus) == (each, all_)
    assert settled.recorded() == {"workers": 2, "cpus": 1, "gpus": all_}
