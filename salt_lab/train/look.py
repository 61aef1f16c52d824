"""A look at other images: a finished trial's last weights, evaluated on a val split that it has never seen, recorded as a trial of its own.

The new record has the training of the old one, copied, and says so in its note; only what was measured is new. So whatever reads records (tables,
intervals, reports, MLflow) reads looks.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from salt_lab.data import fingerprint, prepare
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Record, Store
from salt_lab.spec.trial import Trial, canonical, trial_id
from salt_lab.train.libraries import importing, load_libraries
from salt_lab.train.probe import check_checkpoint, probe_trial
from salt_lab.train.trial import set_up


def look(trained: Record, trial: Trial, store: Store) -> Record:
    """Evaluate the last checkpoint of a finished trial on the val split of another one, and keep the result as that one's record.

    Args:
        trained: the finished trial's record.
        trial: equal to it in all but its val images.
        store: holds both.

    Returns:
        The new record, state "done"; the one that was there, where these images were looked at before.

    Raises:
        StoreError: the checkpoint is not there any more, or the results folder cannot be written.
        WeightsError: the checkpoint does not fit the model that the trial asks for now.
        DataError: the data set cannot be used.
        TrialBusy: another process is looking.
    """
    content = fingerprint(trial.data)
    name = trial_id(trial, content)
    checkpoint = check_checkpoint(store, trained.trial_id, trial.schedule.epochs)
    with store.lock(name):
        before = store.record(name)
        if before.state == "done":
            return before
        set_up(None, None, 1, 0)
        started = time.perf_counter()
        metrics = _evaluate(trial, store, name, checkpoint)
        _keep(FolderRecorder(store, name), trained, trial, content, metrics, time.perf_counter() - started)
    return store.record(name)


def _evaluate(trial: Trial, store: Store, name: str, checkpoint: Path) -> dict[str, float | None]:
    """The twelve numbers; detections and probe go into the new trial's folder."""
    load_libraries()
    with importing():
        from salt_lab.compose import compose
        from salt_lab.models.weights import read_weights
        from salt_lab.train.config_text import text_of
        from salt_lab.train.hooks import finite_or_none
        from salt_lab.train.infer import load_fitting, strip_init
        from salt_lab.train.runner import build_runner, warnings_into
    folder = store.trial_dir(name)
    folder.mkdir(parents=True, exist_ok=True)
    config = compose(trial, prepare(trial.data, store.data_dir), folder / "checkpoints")
    config.val_evaluator.out_file = config.test_evaluator.out_file = str(folder / "detections.json.gz")
    (folder / "config.py").write_text(text_of(config.to_dict()), encoding="utf-8")
    config.model = strip_init(config.model)
    log = folder / "train.log"
    with warnings_into(log), tempfile.TemporaryDirectory(prefix="salt-lab-look-") as config.work_dir:  # mmengine leaves a folder there
        runner = build_runner(config, f"{name}-look", log)
        load_fitting(runner.model, read_weights(checkpoint), str(checkpoint))
        metrics = finite_or_none(runner.test())
        probe_trial(runner, folder)
    return metrics


def _keep(recorder: FolderRecorder, trained: Record, trial: Trial, content: str, metrics: dict[str, float | None], seconds: float) -> None:
    """Written when all is measured: a look that fails leaves no record."""
    last = trial.schedule.epochs
    recorder.start(
        trial=canonical(trial),
        study=trained.study or "",
        launch_id=trained.launch_id or "",
        data_fingerprint=content,
        provenance=trained.provenance,
        resources=trained.resources,
        note=f"not trained: trial {trained.trial_id} after epoch {last}, evaluated on other images",
    )
    recorder.built(**{key: trained.built[key] for key in ("effective", "parameters", "gflops", "input_size")})
    for number, epoch in sorted(trained.epochs.items()):
        recorder.epoch(number, **{key: epoch[key] for key in ("losses", "lr", "seconds", "images_per_second", "memory_mb")})
    recorder.eval(last, metrics)
    spent: dict[str, Any] = {key: trained.cost[key] for key in ("train_seconds", "peak_memory_mb", "epochs")}
    inference = {key.removeprefix("inference_"): value for key, value in trained.cost.items() if key.startswith("inference_")}
    recorder.done(metrics=metrics, eval_seconds=seconds, inference=inference, **spent)
