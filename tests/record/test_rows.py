"""What MLflow is told about a record."""

from __future__ import annotations

import re

import pytest

from salt_lab.record import COCO_NAMES, mlflow_view, rows
from salt_lab.testing.recorder_contract import DONE


@pytest.fixture
def finished(lab):
    lab.train(0, lab.launch())
    return lab.store.record(lab.ids[0])


def test_the_twelve_numbers_are_metrics_by_epoch_under_their_own_names_without_the_undefined(finished):
    found = {(point.name, point.step): point.value for point in rows.points(finished)}
    assert found["AP", 1] == 10.0 and found["AP", 2] == 20.0
    assert {name for name, step in found if step == 2} >= set(COCO_NAMES) - {"APl"}
    assert not any(name == "APl" for name, _ in found)
    assert found["loss/loss_cls", 2] == 0.5 and found["lr", 1] == 0.01


def test_costs_are_metrics(finished):
    found = {point.name: point.value for point in rows.points(finished)}
    assert (found["parameters"], found["gflops"], found["train_seconds"], found["peak_memory_mb"]) == (1234, 1.5, 12.5, 300.0)


def test_speed_and_inference_time_are_metrics_of_the_finished_trial_alone(lab):
    recorder = lab.begin(0, lab.launch(), range(1, 3))
    assert "train_images_per_second" not in {point.name for point in rows.points(lab.store.record(lab.ids[0]))}
    recorder.done(**DONE, inference={"ms": 20.0, "p10_ms": 19.0, "p90_ms": 25.0, "repeats": 20, "threads": 2})
    found = {point.name: (point.value, point.step) for point in rows.points(lab.store.record(lab.ids[0]))}
    assert (found["train_images_per_second"], found["inference_ms"]) == ((50.0, 2), (20.0, 2))
    assert (found["inference_p10_ms"], found["inference_p90_ms"]) == ((19.0, 2), (25.0, 2))


def test_a_step_has_one_point_and_the_finished_trials_numbers_win(lab):
    recorder = lab.begin(0, lab.launch(), range(1, 3))
    lab.finish(recorder, ap=21.0)  # not what the last evaluation said
    points = rows.points(lab.store.record(lab.ids[0]))
    assert len({(point.name, point.step) for point in points}) == len(points)
    assert [point.value for point in points if point.name == "AP"] == [10.0, 21.0]


def test_toggles_are_parameters_under_dotted_names_and_never_too_long(finished):
    params = rows.params(finished)
    assert (params["host"], params["salt.enabled"], params["effective.salt.points"]) == ("atss", "false", "9")
    finished.trial["host"] = "x" * 9000
    assert len(rows.params(finished)["host"]) == 6000


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("host=atss salt=off seed=0", "atss, seed 0"),
        ("host=atss salt=on points=5 seed=12", "atss + SALT, points=5, seed 12"),
        ("points=5 seed=1", "atss + SALT, points=5, seed 1"),
        ("with five points seed=1", "with five points, seed 1"),
        ("aaaaaaaaaaaa", "aaaaaaaaaaaa"),
    ],
)
def test_a_run_is_called_as_a_person_would_call_it(name, said):
    assert mlflow_view.run_name({"host": "atss", "salt": {"enabled": "off" not in name}}, name) == said


def test_a_gain_is_known_when_both_are_done(lab):
    launch = lab.launch()
    lab.finish(lab.begin(0, launch, range(1, 3)), ap=20.0)
    variant, baseline = lab.begin(1, launch, range(1, 3)), lab.store.record(lab.ids[0])
    assert rows.delta(lab.store.record(lab.ids[1]), baseline) == []
    lab.finish(variant, ap=21.5)
    (point,) = rows.delta(lab.store.record(lab.ids[1]), baseline)
    assert (point.name, point.value, point.step, point.final) == ("delta_AP", 1.5, 2, True)


def test_provenance_is_tags(finished):
    tags = rows.tags(finished, "does_salt_help")
    assert tags["salt_lab.git_commit"] == tags["mlflow.source.git.commit"] == "1a2b3c4d"
    assert (tags["salt_lab.git_dirty"], tags["salt_lab.diff_sha256"], tags["salt_lab.code_version"]) == ("true", "d1ff", "c0de")
    assert (tags["salt_lab.package.torch"], tags["salt_lab.machine.cpu"]) == ("2.13.0", "Test CPU")
    assert (tags["salt_lab.trial_id"], tags["salt_lab.data_fingerprint"]) == ("a" * 12, "marks-0123456789ab")


def test_names_that_mlflow_refuses_are_made_ones_that_it_takes():
    assert re.fullmatch(r"[\w\-. :/]+", rows.clean_name("AP@[.5:.95] (%)"))
    assert rows.clean_name("loss/loss_cls.0") == "loss/loss_cls.0"


def test_a_point_that_is_there_is_not_sent_again_unless_the_final_number_says_otherwise():
    curve, final = rows.Point("AP", 10.0, 1, 1), rows.Point("AP", 20.0, 2, 2, final=True)
    assert rows.missing([curve, final], {}) == [curve, final]
    assert rows.missing([curve, final], {("AP", 1): 9.0, ("AP", 2): 20.0}) == []
    assert rows.missing([curve, final], {("AP", 1): 9.0, ("AP", 2): 19.0}) == [final]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["done", "done"], "FINISHED"),
        (["done", "failed", "interrupted"], "FAILED"),
        (["done", "interrupted"], "KILLED"),
        (["done", "new"], "KILLED"),
        (["done", "stopped"], "FINISHED"),
        (["stopped", "failed"], "FAILED"),
        (["failed", "running"], "RUNNING"),
        ([], "FINISHED"),
    ],
)
def test_a_launch_is_as_its_worst_trial(states, status):
    assert rows.launch_status(states) == status


def test_a_trial_stopped_early_is_no_finished_run_and_its_tag_says_why(lab):
    recorder = lab.begin(0, lab.launch(), range(1, 3))
    recorder.stopped(2, reason="too low", ap=20.0, threshold=30.0, places=1, peers={lab.ids[1]: 30.0})
    record = lab.store.record(lab.ids[0])
    tags = rows.tags(record, "does_salt_help")
    assert rows.STATUS[record.state] == "KILLED"
    assert (tags["salt_lab.state"], tags["salt_lab.reason"]) == ("stopped", "too low")
    assert not any(point.final and point.name == "AP" for point in rows.points(record)), "an AP of a rung is no final AP"


def test_the_rules_of_early_stopping_are_a_parameter_of_the_launch_that_has_them(lab):
    plain = lab.store.launches("does_salt_help") or [lab.store.launch("does_salt_help", lab.launch())]
    assert "early_stop" not in rows.launch_params(plain[0])
    launch = lab.store.launch("does_salt_help", lab.store.new_launch(lab.study, lab.ids, early_stop={"rungs": [3]}))
    assert rows.launch_params(launch)["early_stop"] == '{"rungs": [3]}'


def test_what_a_later_launch_did_is_not_an_earlier_launchs(lab):
    first = lab.launch()
    lab.begin(0, first, range(1, 2)).interrupted("Ctrl-C")
    second = lab.launch()
    lab.train(0, second)
    launches, lines = lab.store.launches("does_salt_help"), lab.store.journal(lab.ids[0]).read()
    assert rows.lines_in_launch(lines, launches[0])[-1]["event"] == "interrupted"
    assert rows.lines_in_launch(lines, launches[1])[-1]["event"] == "done"
    third = {"launch_id": "later", "time": lines[-1]["time"] + 1}
    assert rows.lines_in_launch(lines, third)[-1]["event"] == "done"
