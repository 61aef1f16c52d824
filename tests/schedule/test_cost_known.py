"""What a results folder knows about costs: the committed records of real studies serve as the example."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from salt_lab.record.calibration import Calibration, cost_parts, keep_calibration
from salt_lab.record.fold import Record
from salt_lab.record.store import Store
from salt_lab.schedule.cost import SAFETY
from salt_lab.schedule.cost_known import (
    cost_of,
    errors_of_past_estimates,
    keep_estimate,
    known_costs,
    known_from_record,
    memory_needs,
    needs_of,
    place_here,
)
from salt_lab.schedule.dispatch import Need
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.launch import run_study
from salt_lab.schedule.preflight import jobs_of
from salt_lab.schedule.simulation import Place
from salt_lab.spec.study import Study, load_study

FAKE = "salt_lab.testing.fake_trial:fake_trial"
MACHINE = "Intel(R) Xeon(R) Processor, 2 cores"


@pytest.fixture(scope="module")
def quickstart(repository: Path) -> tuple[Study, Store]:
    return load_study(repository / "experiments" / "quickstart.yaml"), Store(repository / "benchmarks" / "results" / "quickstart")


def calibration(study: Study, **changes: object) -> Calibration:
    parts = cost_parts(study.trials()[0], "marks-0")
    return Calibration(parts, place_here(study).machine, **{"ended": "ok", "memory_gb": 3.0, "threads": 1, **changes})  # type: ignore[arg-type]


def test_a_study_is_estimated_from_its_own_records_as_it_was(quickstart: tuple[Study, Store]):
    study, store = quickstart
    found = cost_of(study, jobs_of(study.trials()), store, Place(MACHINE, slots=2))
    assert not found.unknown and found.work_s == 0  # all are done
    for one in found.trials:
        record = store.record(one.item.trial_id)
        assert one.seconds == pytest.approx(record.time - record.started, rel=0.001)


def test_another_seed_of_a_recorded_cell_is_known_and_another_host_is_not(quickstart: tuple[Study, Store], repository: Path):
    _, store = quickstart
    more = load_study(repository / "experiments" / "quickstart.yaml", ["seeds=[1]", "axes.host=[atss,retinanet]"])
    found = cost_of(more, jobs_of(more.trials()), store, Place(MACHINE))
    assert [one.basis for one in found.trials] == ["record", "record", None, None]
    assert found.trials[1].left > found.trials[0].left > 60  # SALT takes longer


def test_a_needs_memory_that_is_more_than_its_records_took(quickstart: tuple[Study, Store]):
    study, store = quickstart
    needs = memory_needs(study.trials(), store, MACHINE)
    for job in jobs_of(study.trials()):
        assert needs[job.trial_id] == pytest.approx(SAFETY * store.record(job.trial_id).cost["peak_memory_mb"] / 1024)
    assert memory_needs(study.trials(), store, "NVIDIA H200") == {}


def test_memory_comes_from_a_calibration_too_even_from_one_that_ran_out_of_it(quickstart: tuple[Study, Store], tmp_path: Path):
    study, store = quickstart[0], Store(tmp_path)
    keep_calibration(store, calibration(study, ended="out of memory"))
    here = place_here(study).machine
    assert memory_needs(study.trials(), store, here) == {jobs_of(study.trials())[0].trial_id: pytest.approx(3.0 * SAFETY)}
    assert cost_of(study, jobs_of(study.trials()), store, place_here(study)).trials[0].seconds is None


def test_the_dispatcher_is_told_what_is_known_and_the_users_own_word_comes_first(quickstart: tuple[Study, Store], repository: Path):
    _, store = quickstart
    more = load_study(repository / "experiments" / "quickstart.yaml", ["seeds=[1]", "axes.host=[atss,retinanet]"])
    jobs = jobs_of(more.trials())
    known, _, unknown, _ = map(needs_of(more, store, Place(MACHINE)), jobs)
    assert 0.9 < known.memory_gb < 1.2 and known.seconds > 60
    assert unknown == Need(None, None)
    asked = replace(more, resources=more.resources.model_copy(update={"memory_gb": 7.0}))
    assert {needs_of(asked, store, Place(MACHINE))(job).memory_gb for job in jobs} == {7.0}


def test_what_failed_for_another_reason_is_no_basis_for_anything(quickstart: tuple[Study, Store], tmp_path: Path):
    keep_calibration(Store(tmp_path), calibration(quickstart[0], ended="SpecError: no"))
    assert known_costs(Store(tmp_path)) == []


def test_a_record_that_cannot_be_read_any_more_is_passed_over():
    assert known_from_record(Record("a", state="done", trial={"host": "gone"}, cost={"epochs": 1, "train_seconds": 1.0})) is None
    assert known_from_record(Record("a", state="failed")) is None


def test_a_launch_keeps_its_estimate_and_later_knows_how_far_it_was_off(tmp_path: Path):
    source = tmp_path / "tiny.yaml"
    source.write_text("base: {host: atss, data: {train_images: 4}, schedule: {epochs: 3}}\nseeds: [0, 1]\n")
    study, store = load_study(source), Store(tmp_path / "runs")
    times = {"step_seconds": 10.0, "steps_per_epoch": 1, "train_images": 4, "val_images": 200, "eval_image_seconds": 0.0}
    keep_calibration(store, calibration(study, **times))
    run_study(study, store, SerialExecutor(trial_fn=FAKE))
    errors = errors_of_past_estimates(study.name, store)["calibration"]
    assert errors.trials == 2 and 0 < errors.lowest <= errors.highest < 1  # half a minute was said, and a fake epoch sleeps for 20 ms


def test_a_launch_without_a_basis_keeps_that_it_had_none(tmp_path: Path):
    source = tmp_path / "tiny.yaml"
    source.write_text("base: {host: atss, data: {train_images: 4}, schedule: {epochs: 3}}\n")
    study, store = load_study(source), Store(tmp_path / "runs")
    found = keep_estimate(study, jobs_of(study.trials()), store, "launch")
    assert found is not None and found.finish_s is None
    assert errors_of_past_estimates(study.name, store) == {}
    text = (store.study_dir(study.name) / "estimates.jsonl").read_text()
    assert '"seconds": null' in text and '"launch_id": "launch"' in text


def test_an_estimate_that_cannot_be_kept_stands_in_no_launchs_way(tmp_path: Path):
    source = tmp_path / "tiny.yaml"
    source.write_text("base: {host: atss}\n")
    (tmp_path / "runs").write_text("a file where the results folder should be")
    study = load_study(source)
    assert keep_estimate(study, jobs_of(study.trials()), Store(tmp_path / "runs"), "launch") is None
