"""A look at other images: a finished trial's last weights, evaluated on a val split that chose nothing, recorded like a trial.

The new record is the old one's training, copied line by line, and the new evaluation in the place of the old ones; ``Record.look`` says whose
weights they were. Looks lie in a results folder of their own, :attr:`Store.looks`, so nothing takes them for trained trials.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from salt_lab.data import fingerprint, prepare
from salt_lab.data.paths import coco_files
from salt_lab.errors import StoreError
from salt_lab.record.provenance import loaded_code
from salt_lab.record.store import Record, Store
from salt_lab.spec.trial import CocoData, Trial, canonical, trial_id
from salt_lab.train.libraries import importing, load_libraries
from salt_lab.train.probe import check_checkpoint, probe_trial
from salt_lab.train.trial import set_up


def is_look_at(look: Record, source: Record) -> bool:
    """Is ``look`` done, and of the weights that ``source`` ended with? Not those of an earlier training of the same trial."""
    return look.state == "done" and look.look is not None and look.look["trained"] == source.time


def look(source: Record, trial: Trial, trained: Store, looks: Store, *, study: str, launch_id: str) -> Record:
    """Evaluate the last checkpoint of a finished trial on other val images, and keep the result.

    A look at an earlier training of the trial is set aside.

    Args:
        source: the finished trial's record.
        trial: that trial with the other val images.
        trained: the results folder of ``source``.
        looks: where the new record goes.
        study, launch_id: on whose behalf; written to the record.

    Raises:
        StoreError: the checkpoint is not there any more, or the results folder cannot be written.
        WeightsError: the checkpoint does not fit the model that the trial asks for now.
        DataError: the data set cannot be used.
        TrialBusy: another process is looking.
    """
    content = fingerprint(trial.data)
    name = trial_id(trial, content)
    checkpoint = check_checkpoint(trained, source.trial_id, trial.schedule.epochs)
    before = looks.record(name)
    if before.state not in ("new", "running") and not is_look_at(before, source):
        looks.set_aside(name, before.number)
    with looks.lock(name):
        if is_look_at(looks.record(name), source):
            return looks.record(name)
        set_up(None, None, 1, 0)
        started = time.perf_counter()
        try:
            metrics = _evaluate(trial, looks, name, checkpoint)
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(f"{looks.trial_dir(name)}: cannot be written ({reason}). Free space or make the folder writable") from error
        renamed = {"trial_id": name, "trial": canonical(trial), "data_fingerprint": content, "look": _said(source, trial)}
        renamed |= {"study": study, "launch_id": launch_id}
        looks.journal(name).extend(
            _lines(trained.journal(source.trial_id).read(), renamed, trial.schedule.epochs, metrics, time.perf_counter() - started)
        )
    return looks.record(name)


def _evaluate(trial: Trial, looks: Store, name: str, checkpoint: Path) -> dict[str, float | None]:
    """The twelve numbers; detections and probe go into the look's folder."""
    load_libraries()
    with importing():
        from salt_lab.compose import compose
        from salt_lab.models.weights import read_weights
        from salt_lab.train.config_text import text_of
        from salt_lab.train.hooks import finite_or_none
        from salt_lab.train.infer import load_fitting, strip_init
        from salt_lab.train.runner import build_runner, warnings_into
    folder = looks.trial_dir(name)
    folder.mkdir(parents=True, exist_ok=True)
    config = compose(trial, prepare(trial.data, looks.data_dir), folder / "checkpoints")
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


def _said(source: Record, trial: Trial) -> dict[str, Any]:
    """:attr:`Record.look`."""
    assert isinstance(trial.data, CocoData)  # its caller sees to it
    images, code = coco_files(trial.data).val_json.name, loaded_code()[0]
    return {"trial_id": source.trial_id, "trained": source.time, "epoch": trial.schedule.epochs, "images": images, "provenance": code}


def _lines(
    trained: list[dict[str, Any]], renamed: dict[str, Any], last: int, metrics: dict[str, float | None], seconds: float
) -> list[dict[str, Any]]:
    """The journal of the look: the training as it was recorded, under the look's name, then what was measured now."""
    end, now = next(number for number, line in enumerate(trained) if line["event"] == "done"), time.time()
    return [
        *(line | (renamed if line["event"] == "start" else {}) for line in trained[:end] if line["event"] in ("start", "built", "epoch")),
        {"event": "eval", "time": now, "epoch": last, "metrics": metrics},
        trained[end] | {"time": now, "metrics": metrics, "eval_seconds": seconds},
    ]
