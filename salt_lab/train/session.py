"""The heavy half of a trial: compose, build, check that the toggles took effect, train, evaluate, tell the recorder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from salt_lab.compose import compose
from salt_lab.data import prepare
from salt_lab.record.recorder import Recorder
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train import cost, flops, speed
from salt_lab.train.checkpoints import last_checkpoint
from salt_lab.train.effective import check_effective, effective
from salt_lab.train.hooks import PlainCheckpointHook, RecordHook, ReseedHook, finite_or_none
from salt_lab.train.libraries import load_libraries
from salt_lab.train.precision import check_precision
from salt_lab.train.runner import build_runner, warnings_into
from salt_lab.train.start import StartFromHook


def train(trial: Trial, store: Store, recorder: Recorder) -> None:
    """Train and evaluate ``trial`` to its end, from its last checkpoint if it has one. ``recorder`` has been told of the start.

    Raises:
        TrialFailed: the built model is not what the trial asks for, or its loss is no number any more.
        DataError: the data set cannot be used.
    """
    load_libraries()
    folder = store.trial_dir(recorder.trial_id)
    config = compose(trial, prepare(trial.data, store.data_dir), folder / "checkpoints", loader_workers=_loader_workers())
    check_precision(config, "schedule.amp = true", "train it on a GPU, or with schedule.amp=false")
    config.val_evaluator.out_file = config.test_evaluator.out_file = str(folder / "detections.json.gz")
    config.dump(folder / "config.py")
    config.resume = last_checkpoint(folder / "checkpoints") is not None
    if trial.weights:
        config.model.backbone.init_cfg = None  # the detector's file brings the backbone: nothing to read or download for it
    with warnings_into(folder / "train.log"):
        runner = build_runner(config, f"{recorder.trial_id}-{recorder.record().attempt}", folder / "train.log")
        hook = RecordHook(recorder, expected_losses(trial))
        for each in (ReseedHook(trial.seed), PlainCheckpointHook(), hook):
            runner.register_hook(each)
        if trial.weights and not config.resume:
            runner.register_hook(StartFromHook(trial.weights))
        _note_what_was_built(runner, trial, recorder)
        runner.train()
        if trial.schedule.epochs not in recorder.record().evals:
            runner.val()  # stopped between the last epoch and its evaluation
    _finish(trial, runner, recorder, hook)
    _prune(folder / "checkpoints")


def expected_losses(trial: Trial) -> frozenset[str]:
    """Names of the added losses that the trial's toggles ask for."""
    if not trial.salt.enabled:
        return frozenset()
    weights = {"loss_coarse": trial.coarse_weight, "loss_sdr": trial.salt.sdr_weight}
    return frozenset(name for name, weight in weights.items() if weight > 0)


def _note_what_was_built(runner: Any, trial: Trial, recorder: Recorder) -> None:
    """Before the first step: read the toggles back, count the cost, and keep both. The loops are built to be asked too."""
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    found = effective(runner)
    check_effective(trial, found)
    longest, shortest = trial.schedule.image_size
    recorder.built(
        effective=found,
        parameters=cost.parameters(runner.model),
        gflops=flops.gflops(runner.model, shortest, longest),
        input_size=(shortest, longest),
    )


def _finish(trial: Trial, runner: Any, recorder: Recorder, hook: RecordHook) -> None:
    kept = recorder.record()
    longest, shortest = trial.schedule.image_size
    recorder.done(
        metrics=finite_or_none(hook.metrics) or kept.evals[trial.schedule.epochs]["metrics"],
        train_seconds=sum(e["seconds"] for e in kept.epochs.values()),
        eval_seconds=hook.eval_seconds,
        peak_memory_mb=cost.peak_memory_mb(),
        epochs=trial.schedule.epochs,
        inference=speed.inference_cost(runner, shortest, longest),
    )


def _loader_workers() -> int:
    """On a GPU images are loaded beside the training; on CPU a second process would only take its core away."""
    return min(4, os.cpu_count() or 1) if torch.cuda.is_available() else 0


def _prune(checkpoints: Path) -> None:
    """Of a finished trial the last checkpoint stays."""
    last = last_checkpoint(checkpoints)
    for path in checkpoints.glob("epoch_*.pth"):
        if last is not None and path.name != last.name:
            path.unlink()
