"""Timing inference: what is inside the clock, and what the clock leaves behind."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from salt_lab.testing.host_contract import build, small
from salt_lab.train.speed import LEAST_REPEATS, inference_cost, latency_ms


class Sleeper(nn.Module):
    """A detector that takes a known time; it notes what it is given."""

    def __init__(self, *milliseconds: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.milliseconds = milliseconds
        self.seen: list[torch.Tensor] = []
        self.modes: list[tuple[bool, bool]] = []

    def test_step(self, batch):
        time.sleep(self.milliseconds[len(self.seen) % len(self.milliseconds)] / 1000)
        self.seen.append(batch["inputs"][0])
        self.modes.append((self.training, torch.is_grad_enabled()))
        batch["data_samples"][0].set_metainfo({"written": len(self.seen)})
        batch["inputs"] = None


def test_the_median_is_that_of_the_timed_runs_and_the_warm_up_is_not_in_it():
    model = Sleeper(60, 60, 4, 4, 4, 4, 4)
    found = latency_ms(model, 8, 8, warmup=2, repeats=5)
    assert found.repeats == 5 and len(model.seen) == 7
    assert 4 <= found.p10 <= found.median <= found.p90 < 40


def test_a_slow_model_is_timed_a_few_times_and_no_more():
    model = Sleeper(30)
    assert latency_ms(model, 8, 8, warmup=5, repeats=100, budget_s=0.02).repeats == LEAST_REPEATS
    assert len(model.seen) == LEAST_REPEATS + 1, "one warm-up used up the budget"


def test_a_picture_is_resized_to_the_stated_size_before_the_clock_starts():
    model = Sleeper(0)
    latency_ms(model, 6, 10, warmup=0, repeats=1, image=torch.full((3, 20, 20), 200, dtype=torch.uint8))
    assert model.seen[0].shape == (3, 6, 10) and model.seen[0].dtype == torch.uint8
    assert (model.seen[0] == 200).all()


def test_inference_is_timed_in_evaluation_mode_without_gradients_and_the_mode_comes_back():
    model = Sleeper(0).train()
    latency_ms(model, 8, 8, warmup=0, repeats=2)
    assert model.modes == [(False, False)] * 2
    assert model.training


def test_a_real_detector_is_timed_from_pixels_to_boxes():
    model = build(small("atss", enabled=True))
    model.bbox_head.test_cfg.score_thr = 0.0  # untrained: all its boxes go through NMS
    found = latency_ms(model, 64, 96, warmup=1, repeats=3)
    assert 0 < found.p10 <= found.median <= found.p90 and found.repeats == 3
    assert model.training


def test_a_trial_times_its_first_validation_picture():
    model, picture = Sleeper(1), torch.full((3, 4, 4), 9, dtype=torch.uint8)
    runner = SimpleNamespace(model=model, val_dataloader=SimpleNamespace(dataset=[{"inputs": picture}]))
    cost = inference_cost(runner, 8, 8, budget_s=0.1)
    assert set(cost) == {"ms", "p10_ms", "p90_ms", "repeats", "threads"} and cost["ms"] >= 1
    assert (model.seen[0] == 9).all()


def test_a_model_that_cannot_be_timed_keeps_its_training_and_says_why():
    said: list[str] = []
    runner = SimpleNamespace(model=nn.Linear(2, 2), val_dataloader=SimpleNamespace(dataset=[]), logger=SimpleNamespace(warning=said.append))
    assert inference_cost(runner, 8, 8) == {}
    assert "not measured: IndexError" in said[0]


@pytest.mark.parametrize("warmup", [0, 1])
def test_what_a_model_writes_into_its_samples_is_not_there_in_the_next_run(warmup):
    class Reader(Sleeper):
        def test_step(self, batch):
            assert "written" not in batch["data_samples"][0].metainfo
            super().test_step(batch)

    assert latency_ms(Reader(0), 8, 8, warmup=warmup, repeats=3).repeats == 3
