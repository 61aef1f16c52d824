"""Calibrations on disk: what makes two trials one kind, and that no measurement is ever lost."""

from __future__ import annotations

from typing import Any

import pytest

from salt_lab.record import Store
from salt_lab.record.calibration import (
    Calibration,
    alike_key,
    calibration_key,
    calibrations,
    cost_key,
    cost_parts,
    keep_calibration,
    machine_kind,
)
from salt_lab.spec.trial import Trial, canonical


def key(workers: int = 1, **changes: Any) -> str:
    return cost_key(cost_parts(Trial.model_validate({"host": "atss", **changes}), "coco-1", workers))


@pytest.mark.parametrize(
    "same",
    [
        {"seed": 3},
        {"schedule": {"epochs": 99, "lr": 0.5, "eval_every": 0}},
        {"data": {"train_images": 7, "val_images": 3, "seed": 5}},
        {"salt": {"enabled": False, "points": 16}},  # without effect
    ],
)
def test_what_changes_no_step_leaves_the_kind_alone(same: dict[str, Any]):
    assert key(**same) == key()


@pytest.mark.parametrize(
    "other",
    [
        {"host": "gfl"},
        {"salt": True},
        {"backbone": {"frozen_stages": 1}},
        {"schedule": {"optimizer": "adamw"}},
        {"schedule": {"ema": 0.001}},
        {"schedule": {"amp": True}},
        {"schedule": {"memory_format": "channels_last"}},
        {"data": {"image_size": 64}},
    ],
)
def test_what_changes_a_step_makes_another_kind(other: dict[str, Any]):
    assert key(**other) != key()


def test_calibrations_from_before_the_order_in_memory_was_a_choice_stay_known():
    parts = cost_parts(Trial.model_validate({"host": "atss"}), "coco-1")
    assert set(parts["schedule"]) == {"image_size", "optimizer", "amp", "ema", "batch"}


def test_a_batch_over_two_workers_is_half_the_batch_of_one():
    assert key(workers=2, schedule={"batch": 16}) == key(schedule={"batch": 8}) != key(schedule={"batch": 16})


def test_files_are_told_apart_by_their_content_and_weights_not_at_all():
    files = {"train": "a.json", "val": "b.json", "images": "i"}
    one = cost_parts(Trial.model_validate({"data": files, "backbone": {"init": "w.pth"}}), "coco-1")
    assert one == cost_parts(Trial.model_validate({"data": files | {"train": "moved/a.json"}, "backbone": {"init": "v.pth"}}), "coco-1")
    assert one != cost_parts(Trial.model_validate({"data": files, "backbone": {"init": "w.pth"}}), "coco-2")


def test_alike_are_trials_that_differ_in_the_operators_toggles_and_not_in_whether_it_is_there():
    nine, sixteen, off = (
        cost_parts(Trial.model_validate({"salt": salt}), "") for salt in ({"enabled": True}, {"enabled": True, "points": 16}, False)
    )
    assert cost_key(nine) != cost_key(sixteen) and alike_key(nine) == alike_key(sixteen) != alike_key(off)


def test_the_kind_survives_a_journal():
    trial = Trial.model_validate({"host": "gfl", "salt": {"enabled": True, "levels": [3, 4]}, "schedule": {"decay": "cosine"}})
    assert cost_parts(Trial.model_validate(canonical(trial)), "") == cost_parts(trial, "")


def test_measurements_are_added_and_none_is_overwritten(tmp_path):
    store, parts = Store(tmp_path), cost_parts(Trial(), "marks-1")
    for number in range(3):
        path = keep_calibration(store, Calibration(parts, "Xeon", "ok", memory_gb=1.0 + number, largest=(64, 96), time=10.0 - number))
    assert path == tmp_path / "calibrations" / f"{calibration_key(parts, 'Xeon')}.jsonl"
    found = calibrations(store)
    assert [one.memory_gb for one in found] == [3.0, 2.0, 1.0]  # oldest first
    assert found[0].parts == parts and found[0].largest == (64, 96) and found[0].ok


def test_the_machine_is_a_part_of_the_name_and_half_a_line_is_passed_over(tmp_path):
    store, parts = Store(tmp_path), cost_parts(Trial(), "marks-1")
    path = keep_calibration(store, Calibration(parts, "Xeon", "ok"))
    assert keep_calibration(store, Calibration(parts, "H200", "out of memory")) != path
    path.write_text(path.read_text() + '{"event": "calibrated", "time": 1.0, "machi')
    path.write_text(path.read_text() + '\n{"event": "calibrated", "time": 1.0}\n')
    assert {one.machine: one.ok for one in calibrations(store)} == {"Xeon": True, "H200": False}


def test_an_empty_folder_has_no_calibrations_and_stays_empty(tmp_path):
    assert calibrations(Store(tmp_path / "runs")) == [] and not (tmp_path / "runs").exists()


def test_the_kind_of_machine_is_its_gpu_or_its_processor():
    assert machine_kind({"gpu": "NVIDIA H200", "cpu": "Xeon", "cores": 16}) == machine_kind({"gpu": "8x NVIDIA H200", "cpu": "EPYC"})
    assert machine_kind({"gpu": None, "cpu": "Xeon", "cores": 2}) == "Xeon, 2 cores"
    assert machine_kind({}) == "unknown"
