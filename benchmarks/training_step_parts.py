"""Where a training step's time goes: by part of the model, by the clock; by operator, by torch's profiler. Used by ``training_step.py``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile
from training_step_arms import Arm, Step

#: Operators listed.
OPERATORS = 8


def parts_of(arm: Arm, step: Step, data: dict[str, Any]) -> dict[str, float]:
    """Seconds of one step by part; what lies inside another part is counted there alone. The device is waited for around each part."""
    model, optim = step.model, step.optim
    places: dict[str, list[tuple[Any, str]]] = {
        "images": [(model.data_preprocessor, "forward")],
        "backbone": [(model.backbone, "forward")],
        "neck": [(model.neck, "forward")],
        "head": [(model.bbox_head, "forward")],
        "operator": [(model.bbox_head.salt, "forward")] if arm.salt else [],
        "losses": [(model.bbox_head, "loss_by_feat")],
        "targets": [(model.bbox_head, "get_targets")],
        "backward": [(optim, "backward")],
        "optimiser": [(optim, "step"), (optim, "zero_grad")],
    }
    spent = {name: 0.0 for name, found in places.items() if found}
    within: list[str] = []
    with contextlib.ExitStack() as stack:
        for name, found in places.items():
            for owner, method in found:
                stack.enter_context(mock.patch.object(owner, method, _timed(getattr(owner, method), name, spent, within, step.wait)))
        step.wait()
        began = time.perf_counter()
        step.run(arm, data)
        step.wait()
        whole = time.perf_counter() - began
    return {**spent, "rest": whole - sum(spent.values())}


def _timed(call: Callable[..., Any], name: str, spent: dict[str, float], within: list[str], wait: Callable[[], None]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        wait()
        within.append(name)
        began = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            wait()
            seconds = time.perf_counter() - began
            within.pop()
            spent[name] += seconds
            if within:
                spent[within[-1]] -= seconds

    return run


def top_operators(arm: Arm, step: Step, data: dict[str, Any]) -> dict[str, float]:
    """Share of a step's time by operator, greatest first; the time of an operator without that of those it calls."""
    gpu = step.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as seen:
        step.run(arm, data)
        step.wait()
    key = "self_device_time_total" if gpu else "self_cpu_time_total"
    times = {
        event.key: float(getattr(event, key))
        for event in seen.key_averages()
        if not gpu or event.device_type != torch.autograd.DeviceType.CPU
    }
    whole = sum(times.values()) or 1.0
    return {name: value / whole for name, value in sorted(times.items(), key=lambda pair: -pair[1])[:OPERATORS]}
