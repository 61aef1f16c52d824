"""The heavy half of a trial: compose, build, check that the toggles took effect, train, evaluate, tell the recorder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from salt_lab.compose import compose
from salt_lab.data import DatasetPaths, fingerprint, prepare
from salt_lab.record.recorder import Recorder
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train import agree, cost, flops, speed
from salt_lab.train.best import BestHook
from salt_lab.train.checkpoints import clear_the_way, resumable
from salt_lab.train.config_text import text_of
from salt_lab.train.early_stop import Rungs
from salt_lab.train.effective import check_effective, effective
from salt_lab.train.hooks import HeartbeatHook, PlainCheckpointHook, RecordHook, ReseedHook, SharedStatisticsHook, finite_or_none
from salt_lab.train.libraries import load_libraries
from salt_lab.train.memory import forget_peak
from salt_lab.train.precision import check_precision
from salt_lab.train.retention import prune, room_for_pictures, rules_of
from salt_lab.train.rung_hook import RungHook
from salt_lab.train.runner import build_runner, warnings_into
from salt_lab.train.start import StartFromHook
from salt_lab.train.stop import STOP
from salt_lab.train.together import share_out


def train(trial: Trial, store: Store, recorder: Recorder) -> None:
    """Train and evaluate ``trial`` to its end, from its last checkpoint if it has one. ``recorder`` has been told of the start.

    Raises:
        TrialFailed: the built model is not what the trial asks for, or its loss is no number any more.
        DataError: the data set cannot be used.
    """
    load_libraries()
    forget_peak()  # a warm worker has had other trials
    folder = store.trial_dir(recorder.trial_id)
    paths = prepare(trial.data, store.data_dir)
    config = compose(trial, paths, folder / "checkpoints", loader_workers=_loader_workers(), world_size=agree.how_many())
    check_precision(config, "schedule.amp = true", "train it on a GPU, or with schedule.amp=false")
    config.val_evaluator.out_file = config.test_evaluator.out_file = str(folder / "detections.json.gz")
    if agree.is_first():
        (folder / "config.py").write_text(text_of(config.to_dict()), encoding="utf-8")
    share_out(config)
    record = recorder.record()
    rules = rules_of(store, record.study, record.launch_id)
    pictures = _use_decoded(config, trial, paths, store, room_for_pictures(store, record.study, rules))
    found = agree.agreed(resumable(folder / "checkpoints"))
    if agree.is_first():
        clear_the_way(folder / "checkpoints", found)
    config.resume, config.load_from = found.path is not None, str(found.path) if found.path else None
    if trial.weights:
        config.model.backbone.init_cfg = None  # the detector's file brings the backbone: nothing to read or download for it
    with warnings_into(folder / ("train.log" if agree.is_first() else "workers.log")):
        runner = build_runner(config, f"{recorder.trial_id}-{record.attempt}", folder / "train.log")
        runner.logger.info(pictures)
        hook = RecordHook(recorder, expected_losses(trial))
        rungs = RungHook(Rungs.of(store, recorder))
        plain = (ReseedHook(trial.seed, agree.rank()), SharedStatisticsHook(), PlainCheckpointHook(), HeartbeatHook(folder / "heartbeat"))
        for each in (*plain, hook, rungs):
            runner.register_hook(each)
        if trial.weights and not config.resume:
            runner.register_hook(StartFromHook(trial.weights))
        if rules.checkpoints == "best_and_last":
            runner.register_hook(BestHook(recorder))
        _note_what_was_built(runner, trial, recorder)
        with STOP.watching():
            runner.train()
        if rungs.stopped:  # its record says so
            if agree.is_first():
                prune(folder / "checkpoints", rules)
            return
        if agree.agreed(trial.schedule.epochs not in recorder.record().evals):
            runner.val()  # stopped between the last epoch and its evaluation
    peak = max(agree.gathered(cost.peak_memory_mb()))
    _probe(runner, folder)
    if agree.is_first():
        _finish(trial, runner, recorder, hook, peak)
        prune(folder / "checkpoints", rules)


def _use_decoded(config: Any, trial: Trial, paths: DatasetPaths, store: Store, room: int | None) -> str:
    """After the config was written: the decoded pictures are this machine's affair and change no number."""
    from salt_lab.train.loading import use_decoded  # mmdet: only after load_libraries

    return use_decoded(config, paths, lambda: fingerprint(trial.data), store.data_dir, room)


def _probe(runner: Any, folder: Path) -> None:
    """After everything was measured: it reads the model, on all workers, and changes nothing."""
    from salt_lab.train.probe import probe_trial  # mmdet: only after load_libraries

    probe_trial(runner, folder)


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
        gflops=flops.gflops_once(runner.cfg.model, runner.model, shortest, longest) if agree.is_first() else None,
        input_size=(shortest, longest),
    )


def _finish(trial: Trial, runner: Any, recorder: Recorder, hook: RecordHook, peak: float) -> None:
    kept = recorder.record()
    longest, shortest = trial.schedule.image_size
    recorder.done(
        metrics=finite_or_none(hook.metrics) or kept.evals[trial.schedule.epochs]["metrics"],
        train_seconds=sum(e["seconds"] for e in kept.epochs.values()),
        eval_seconds=hook.eval_seconds,
        peak_memory_mb=peak,
        epochs=trial.schedule.epochs,
        inference=speed.inference_cost(runner, shortest, longest),
    )


def _loader_workers() -> int:
    """On a GPU images are loaded beside the training; on CPU a second process would only take its core away."""
    return min(4, max(1, (os.cpu_count() or 1) // agree.how_many())) if torch.cuda.is_available() else 0
