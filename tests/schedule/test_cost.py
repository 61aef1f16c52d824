"""Estimates as physics would have them: twice the epochs take twice as long, two slots half; what is not known has no number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from salt_lab.record.calibration import cost_parts
from salt_lab.schedule.cost import (
    ALIKE,
    CALIBRATION,
    RECORD,
    SAFETY,
    Item,
    Known,
    PastErrors,
    estimate_study,
    evaluations,
    past_errors,
    rates_for,
)
from salt_lab.schedule.dispatch import Need
from salt_lab.schedule.simulation import Place, finish_seconds
from salt_lab.spec.trial import Schedule, Trial

HERE = Place("Xeon, 2 cores", slots=1)


def trial(**changes: Any) -> Trial:
    schedule = {"epochs": 10, "batch": 8, "image_size": [96, 96], "eval_every": 2, **changes.pop("schedule", {})}
    data = {"train_images": 800, "val_images": 200, "image_size": 96, **changes.pop("data", {})}
    return Trial.model_validate({"host": "atss", "schedule": schedule, "data": data, **changes})


def known(of: Trial | None = None, **changes: Any) -> Known:
    of = of or trial()
    found = Known(
        cost_parts(of, "marks-0"), HERE.machine, RECORD, epoch_s=10.0, eval_s=2.0, memory_gb=1.0, train_images=800, val_images=200
    )
    return replace(found, **changes)


def items(*trials: Trial) -> list[Item]:
    return [Item(one, f"trial {number}", "cell", "marks-0") for number, one in enumerate(trials)]


def seconds(of: Trial, *what: Known, place: Place = HERE) -> float | None:
    return estimate_study(items(of), what, place).trials[0].seconds


def test_twice_the_epochs_take_twice_the_time():
    once, twice = (seconds(trial(schedule={"epochs": epochs}), known()) for epochs in (10, 20))
    assert once == 10 * 10 + 5 * 2 and twice == 2 * once


def test_twice_the_training_images_take_twice_the_time_of_training_and_none_of_evaluation():
    assert seconds(trial(data={"train_images": 1600}), known()) == 2 * 100 + 10


def test_two_slots_halve_the_time_to_the_end_and_not_the_core_hours():
    four = items(*[trial(seed=seed) for seed in range(4)])
    one, two = (estimate_study(four, [known()], replace(HERE, slots=slots)) for slots in (1, 2))
    assert two.finish_s == one.finish_s / 2 and two.device_hours == one.device_hours == 4 * 110 / 3600


def test_more_slots_than_trials_help_nobody():
    three = {name: Need(None, 60.0) for name in "abc"}
    assert finish_seconds(three, replace(HERE, slots=3)) == finish_seconds(three, replace(HERE, slots=99)) == 60.0


def test_the_longest_trial_starts_first_so_that_nobody_waits_for_it_at_the_end():
    needs = {"short": Need(None, 10.0), "shorter": Need(None, 9.0), "long": Need(None, 19.0)}
    assert finish_seconds(needs, replace(HERE, slots=2)) == 19.0


def test_trials_that_do_not_fit_into_memory_together_run_one_after_the_other():
    place = replace(HERE, slots=2, memory_gb=10.0)
    assert finish_seconds({name: Need(6.0, 60.0) for name in "ab"}, place) == 120.0
    assert finish_seconds({name: Need(4.0, 60.0) for name in "ab"}, place) == 60.0


def test_two_halves_of_a_gpu_share_its_memory_and_two_gpus_do_not():
    half, whole = Place("GPU", 2, gpus=0.5, memory_gb=10.0), Place("GPU", 2, gpus=1, memory_gb=10.0)
    needs = {name: Need(6.0, 60.0) for name in "ab"}
    assert finish_seconds(needs, half) == 120.0 and finish_seconds(needs, whole) == 60.0


def test_a_trial_of_an_unknown_kind_has_no_number_and_neither_has_the_finish():
    found = estimate_study(items(trial(), trial(host="fcos")), [known()], HERE)
    other = found.trials[1]
    assert (other.seconds, other.left, other.memory_gb, other.basis) == (None, None, None, None)
    assert found.finish_s is None and found.unknown == (other,)
    assert found.work_s == 110  # of the one that is known


def test_what_another_kind_of_machine_took_says_nothing():
    assert seconds(trial(), known(machine="NVIDIA H200")) is None


def test_what_another_number_of_threads_took_says_nothing_unless_nobody_wrote_the_number_down():
    assert seconds(trial(), known(threads=2)) is None
    assert seconds(trial(), known(threads=None)) == 110


@pytest.mark.parametrize("change", [{"seed": 7}, {"schedule": {"lr": 0.5, "weight_decay": 0.1, "flip": 0.0}}])
def test_seed_and_learning_rate_cost_nothing(change: dict[str, Any]):
    assert seconds(trial(**change), known()) == 110


@pytest.mark.parametrize(
    "change",
    [{"schedule": {"batch": 16}}, {"schedule": {"image_size": [128, 128]}}, {"channels": 64}, {"salt": True}, {"data": {"classes": 2}}],
)
def test_what_changes_a_step_is_another_kind_of_trial(change: dict[str, Any]):
    assert seconds(trial(**change), known()) is None


def test_its_own_kind_is_the_better_basis_then_an_alike_kind_then_a_calibration():
    nine, sixteen = trial(salt={"enabled": True}), trial(salt={"enabled": True, "points": 16})
    measured = known(nine, basis=CALIBRATION, epoch_s=8.0, alone=True)

    def basis(*what: Known) -> tuple[str, float]:
        rates = rates_for(nine, "marks-0", what, HERE)
        return rates.basis, rates.epoch_s

    assert basis(measured) == (CALIBRATION, 8.0)
    assert basis(measured, known(sixteen, epoch_s=12.0)) == (ALIKE, 12.0)
    assert basis(measured, known(sixteen, epoch_s=12.0), known(nine, epoch_s=9.0)) == (RECORD, 9.0)


def test_one_slow_record_among_three_does_not_move_the_estimate():
    assert seconds(trial(), known(), known(), known(epoch_s=1000.0)) == 110


def test_a_full_machine_is_estimated_from_a_calibration_that_was_made_on_a_full_one():
    alone = known(basis=CALIBRATION, epoch_s=8.0, alone=True, time=2.0)
    crowded = known(basis=CALIBRATION, epoch_s=14.0, alone=False, time=1.0)
    assert rates_for(trial(), "", [alone, crowded], HERE).epoch_s == 8.0
    full = rates_for(trial(), "", [alone, crowded], replace(HERE, slots=2))
    assert full.epoch_s == 14.0 and not full.alone


def test_memory_is_the_most_that_was_ever_seen_with_room_to_spare():
    found = estimate_study(items(trial()), [known(memory_gb=1.0), known(memory_gb=2.0), known(basis=CALIBRATION, memory_gb=1.5)], HERE)
    assert found.trials[0].memory_gb == 2.0 * SAFETY > 2.0


def test_a_trial_that_is_done_costs_nothing_more_and_one_from_a_checkpoint_only_the_rest():
    whole, half, done = items(trial(), trial(), trial())
    found = estimate_study([whole, replace(half, epochs_done=4), replace(done, done=True)], [known()], HERE)
    assert [one.left for one in found.trials] == [110, 6 * 10 + 3 * 2, 0]


def test_evaluations_are_counted_as_mmengine_makes_them():
    assert evaluations(Schedule(epochs=10, eval_every=4)) == 3  # after 4, 8 and 10
    assert evaluations(Schedule(epochs=10, eval_every=0)) == 1
    assert evaluations(Schedule(epochs=10, eval_every=4), until=8) == 2


def test_two_workers_halve_the_time_at_the_same_batch_each_and_take_two_cores():
    place = replace(HERE, workers=2)
    found = estimate_study(items(trial(schedule={"batch": 16})), [known()], place)  # 8 images a worker
    assert found.trials[0].seconds == 55 and found.device_hours == 2 * 55 / 3600


def test_past_errors_are_what_it_took_over_what_was_said():
    errors = past_errors({"a": 10.0, "b": 10.0, "c": 10.0, "never ran": 10.0}, {"a": 10.0, "b": 20.0, "c": 5.0})
    assert errors == PastErrors(3, median=1.0, lowest=0.5, highest=2.0)
    assert "3 trials took 1.00 times (median; 0.50 to 2.00)" in str(errors)
    assert past_errors({"a": 10.0}, {}) is None
