"""A tiny trial, really calibrated; and one that really runs out of memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from salt_lab.record.calibration import calibrations, keep_calibration
from salt_lab.record.store import Store
from salt_lab.schedule.cost_known import memory_needs
from salt_lab.spec.trial import Trial
from salt_lab.train import calibrate as calibration
from salt_lab.train.calibrate import calibrate

pytestmark = pytest.mark.integration


def tiny(**schedule: object) -> Trial:
    spec = {
        "host": "atss",
        "salt": True,
        "backbone": {"name": "resnet18", "base_channels": 8},
        "channels": 64,
        "head_convs": 1,
        "data": {"train_images": 24, "val_images": 8, "image_size": 64, "classes": 2},
        "schedule": {"epochs": 2, "batch": 8, "image_size": [64, 64], "optimizer": "adamw", "lr": 1e-3, **schedule},
    }
    return Trial.model_validate(spec)


def test_a_calibration_measures_memory_and_time_and_leaves_no_trial_behind(tmp_path: Path):
    store = Store(tmp_path)
    found = calibrate(tiny(), store, device="cpu", budget_s=0.5)
    assert found.ended == "ok"
    assert (found.train_images, found.val_images, found.steps_per_epoch, found.largest) == (24, 8, 3, (64, 64))
    assert 0.2 < found.memory_gb < 3 and 0.001 < found.step_seconds < 5 and 0.0001 < found.eval_image_seconds < 5
    assert found.steps >= 3 and 0 <= found.details["stolen"] < 1
    assert 0.5 < found.checkpoint_mb < 50
    assert store.trial_ids() == [] and not (tmp_path / "trials").exists()
    keep_calibration(store, found)
    assert calibrations(store) == [found]
    assert len(memory_needs([tiny(), tiny(epochs=9)], store, found.machine)) == 2


@pytest.mark.slow
def test_two_copies_at_once_are_measured_together(tmp_path: Path):
    found = calibrate(tiny(), Store(tmp_path), device="cpu", at_once=2, budget_s=0.5)
    assert found.ended == "ok" and found.at_once == 2


@pytest.mark.slow
def test_a_trial_that_cannot_have_its_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limited = tmp_path / "python"
    limited.write_text(f'#!/bin/sh\nulimit -v 6000000\nexec {sys.executable} "$@"\n')
    limited.chmod(0o755)
    monkeypatch.setattr(calibration.sys, "executable", str(limited))
    found = calibrate(tiny(batch=24, image_size=[2048, 2048]), Store(tmp_path / "runs"), device="cpu", budget_s=0.5)
    assert found.ended == "out of memory" and found.step_seconds is None


@pytest.mark.gpu
def test_on_a_gpu_the_memory_is_what_torch_reserved_and_the_context(tmp_path: Path):
    found = calibrate(tiny(), Store(tmp_path), budget_s=0.5)
    parts = found.details
    assert found.device == "cuda" and found.memory_gb == pytest.approx(parts["reserved_gb"] + parts["context_gb"])
    assert parts["allocated_gb"] <= parts["reserved_gb"] and 0 < parts["context_gb"] < 2
