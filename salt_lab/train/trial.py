"""One trial, here and now: compose, build, check that the toggles took effect, train, evaluate, record. Resumes where it was stopped."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

from salt_lab.data import fingerprint, prepare
from salt_lab.errors import SaltLabError, TrialFailed, UserError
from salt_lab.record.provenance import provenance, uncommitted_diff
from salt_lab.record.recorder import FolderRecorder, Recorder
from salt_lab.record.store import Record, Store
from salt_lab.spec.trial import Trial, canonical, trial_id

TRACEBACK_LINES = 25


def run_trial(
    trial: Trial, store: Store, *, study: str, launch_id: str, threads: int | None = None, device: str | None = None, gpus: int = 0
) -> Record:
    """Train and evaluate ``trial``, unless its record says that it is done; go on from its last checkpoint if it has one.

    Args:
        trial: what to run.
        store: where its folder lies: record, config, log, checkpoints, detections.
        study, launch_id: on whose behalf; written to the record.
        threads: CPU threads of this process; None leaves torch's choice.
        device: "cpu" to leave a GPU alone; None takes what is there.
        gpus: GPUs given to this trial. More than one needs ``salt-lab train --gpus N`` for now.

    Returns:
        The trial's record, state "done".

    Raises:
        TrialFailed: it ended with an error; the record says so too.
        TrialBusy: another process is training it.
        KeyboardInterrupt: it was stopped; the record says "interrupted".
    """
    if gpus > 1:
        raise UserError(
            f"gpus = {gpus}: a trial of a study runs on one GPU; use salt-lab train STUDY --cell NAME --gpus {gpus} for several"
        )
    data_fingerprint = fingerprint(trial.data)
    name = trial_id(trial, data_fingerprint)
    if (record := store.record(name)).state == "done":
        return record
    with store.lock(name):
        recorder = FolderRecorder(store, name)
        folder = store.trial_dir(name)
        origin = provenance()
        if origin["diff_sha256"]:
            (folder / "uncommitted.patch").write_text(uncommitted_diff())
        _set_threads(threads, device)
        recorder.start(
            trial=canonical(trial),
            study=study,
            launch_id=launch_id,
            data_fingerprint=data_fingerprint,
            provenance=origin,
            resumed_epoch=_resumed_epoch(folder / "checkpoints"),
        )
        _guarded(trial, store, folder, recorder)
    return store.record(name)


def _guarded(trial: Trial, store: Store, folder: Path, recorder: Recorder) -> None:
    """Run, and see to it that the record says how it ended."""
    try:
        _train(trial, store, folder, recorder)
    except KeyboardInterrupt as stop:
        recorder.interrupted(str(stop) or "stopped")
        raise
    except SaltLabError as error:
        recorder.failed(str(error), _tail())
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        recorder.failed(reason, _tail())
        raise TrialFailed(f"{reason} (log: {folder / 'train.log'})") from error


def _train(trial: Trial, store: Store, folder: Path, recorder: Recorder) -> None:
    from salt_lab.train.libraries import load_libraries

    load_libraries()
    from salt_lab.compose import compose
    from salt_lab.train import cost
    from salt_lab.train.effective import check_effective, effective
    from salt_lab.train.hooks import PlainCheckpointHook, RecordHook, ReseedHook, finite_or_none
    from salt_lab.train.runner import build_runner, warnings_into

    data = prepare(trial.data, store.data_dir)
    config = compose(trial, data, folder / "checkpoints", loader_workers=_loader_workers())
    config.val_evaluator.out_file = config.test_evaluator.out_file = str(folder / "detections.json.gz")
    config.dump(folder / "config.py")
    with warnings_into(folder / "train.log"):
        config.resume = (folder / "checkpoints" / "last_checkpoint").is_file()
        runner = build_runner(config, f"{recorder.trial_id}-{recorder.record().attempt}", folder / "train.log")
        hook = RecordHook(recorder, expected_losses(trial))
        runner.register_hook(ReseedHook(trial.seed))
        runner.register_hook(PlainCheckpointHook())
        runner.register_hook(hook)
        _note_what_was_built(runner, trial, recorder, effective, check_effective, cost)
        runner.train()
        if trial.schedule.epochs not in recorder.record().evals:
            runner.val()  # stopped between the last epoch and its evaluation
    kept = recorder.record()
    recorder.done(
        metrics=finite_or_none(hook.metrics) or kept.evals[trial.schedule.epochs]["metrics"],
        train_seconds=sum(e["seconds"] for e in kept.epochs.values()),
        eval_seconds=hook.eval_seconds,
        peak_memory_mb=cost.peak_memory_mb(),
        epochs=trial.schedule.epochs,
    )
    _prune(folder / "checkpoints")


def _note_what_was_built(runner: Any, trial: Trial, recorder: Recorder, effective: Any, check: Any, cost: Any) -> None:
    """Before the first step: read the toggles back, count the cost, and keep both. The loops are built to be asked too."""
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    found = effective(runner)
    check(trial, found)
    longest, shortest = trial.schedule.image_size
    recorder.built(
        effective=found,
        parameters=cost.parameters(runner.model),
        gflops=cost.gflops(runner.model, shortest, longest),
        input_size=(shortest, longest),
    )


def expected_losses(trial: Trial) -> frozenset[str]:
    """Names of the added losses that the trial's toggles ask for."""
    if not trial.salt.enabled:
        return frozenset()
    weights = {"loss_coarse": trial.coarse_weight, "loss_sdr": trial.salt.sdr_weight}
    return frozenset(name for name, weight in weights.items() if weight > 0)


def _loader_workers() -> int:
    """On a GPU images are loaded beside the training; on CPU a second process would only take its core away."""
    import torch

    return min(4, os.cpu_count() or 1) if torch.cuda.is_available() else 0


def _set_threads(threads: int | None, device: str | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if device == "cpu":
        import mmengine.device.utils as where

        where.DEVICE = "cpu"


def _resumed_epoch(checkpoints: Path) -> int:
    """Epoch of the last complete checkpoint; 0 = none."""
    pointer = checkpoints / "last_checkpoint"
    if not pointer.is_file():
        return 0
    stem = Path(pointer.read_text().strip()).stem
    return int(stem.rpartition("_")[2]) if stem.rpartition("_")[2].isdigit() else 0


def _prune(checkpoints: Path) -> None:
    """Of a finished trial the last checkpoint stays."""
    last = Path((checkpoints / "last_checkpoint").read_text().strip()).name
    for path in checkpoints.glob("epoch_*.pth"):
        if path.name != last:
            path.unlink()


def _tail() -> str:
    return "\n".join(traceback.format_exc().splitlines()[-TRACEBACK_LINES:])
