"""One trial, here and now: its identity, its lock, its record from start to end. What trains is in :mod:`salt_lab.train.session`."""

from __future__ import annotations

import traceback

from salt_lab.data import fingerprint
from salt_lab.errors import SaltLabError, TrialFailed, UserError
from salt_lab.record.provenance import provenance, uncommitted_diff
from salt_lab.record.recorder import FolderRecorder, Recorder
from salt_lab.record.store import Record, Store
from salt_lab.spec.trial import Trial, canonical, trial_id
from salt_lab.train.checkpoints import epoch_of, last_checkpoint

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
            (folder / f"uncommitted-{origin['diff_sha256'][:8]}.patch").write_text(uncommitted_diff())  # each attempt keeps its own
        _set_threads(threads, device)
        recorder.start(
            trial=canonical(trial),
            study=study,
            launch_id=launch_id,
            data_fingerprint=data_fingerprint,
            provenance=origin,
            resumed_epoch=epoch_of(last_checkpoint(folder / "checkpoints")),
        )
        _guarded(trial, store, recorder)
    return store.record(name)


def _guarded(trial: Trial, store: Store, recorder: Recorder) -> None:
    """Run, and see to it that the record says how it ended."""
    try:
        from salt_lab.train.session import train

        train(trial, store, recorder)
    except KeyboardInterrupt as stop:
        recorder.interrupted(str(stop) or "stopped")
        raise
    except SaltLabError as error:
        recorder.failed(str(error), _tail())
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        recorder.failed(reason, _tail())
        raise TrialFailed(f"{reason} (log: {store.trial_dir(recorder.trial_id) / 'train.log'})") from error


def _set_threads(threads: int | None, device: str | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if device == "cpu":
        import mmengine.device.utils as where

        where.DEVICE = "cpu"


def _tail() -> str:
    return "\n".join(traceback.format_exc().splitlines()[-TRACEBACK_LINES:])
