"""Everything that can be known to be wrong before anything starts: results folder, MLflow, weights, data. Cheap checks come first."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Sequence
from pathlib import Path

from salt_lab.data import fingerprint, prepare
from salt_lab.errors import StoreError, WeightsError
from salt_lab.record.store import Store
from salt_lab.record.tracking import check_server, public
from salt_lab.schedule.executor import Job
from salt_lab.spec.trial import CocoData, EmbeddedData, Trial, trial_id

#: First byte of a pickle of protocol 2 and later: torch.save's format before 1.6.
PICKLE = b"\x80"


def check_study(trials: Sequence[Trial], store: Store, mlflow_uri: str | None) -> None:
    """Refuse what cannot be recorded or trained, before a file is drawn or a process started.

    Args:
        trials: All trials of the study.
        store: Where they will be recorded.
        mlflow_uri: Where MLflow is; None = it is not used.

    Raises:
        StoreError: The results folder is not writable, or MLflow does not answer.
        WeightsError: A weights file is missing or damaged.
        DataError: A COCO data set has problems.
    """
    store.check_writable()
    if mlflow_uri is not None:
        check_mlflow(mlflow_uri)
    for init in dict.fromkeys(trial.backbone.init for trial in trials):
        if init not in (None, "host"):
            check_weights(Path(init))
    for data in dict.fromkeys(trial.data for trial in trials):
        if isinstance(data, CocoData):
            prepare(data, store.data_dir)


def check_mlflow(uri: str) -> None:
    """Is MLflow installed, and does its store answer? Does not import it.

    Raises:
        StoreError: One of them is not so.
    """
    if importlib.util.find_spec("mlflow") is None:
        remedy = "pip install mlflow, or run with --no-mlflow and deliver later with salt-lab sync"
        raise StoreError(f"MLflow at '{public(uri)}': mlflow is not installed. {remedy}.")
    check_server(uri)


def check_weights(path: Path) -> None:
    """Is it a whole file of torch.save's, as far as can be told without torch?

    Raises:
        WeightsError: It is missing, unreadable, empty, cut short, or something else (a saved web page, a git-lfs pointer).
    """
    remedy = "Correct backbone.init, or set it to null for random weights"
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError as error:
        raise WeightsError(f"backbone.init = '{path}': the weights file cannot be read ({error.strerror}). {remedy}.") from None
    if not begin:
        raise WeightsError(f"backbone.init = '{path}': the weights file is empty. {remedy}.")
    if begin.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise WeightsError(f"backbone.init = '{path}': the weights file is cut short. Fetch it again.")
    if not begin.startswith((b"PK", PICKLE)):
        raise WeightsError(f"backbone.init = '{path}': not a file of torch.save's (a saved web page?). {remedy}.")


def draw_data(trials: Sequence[Trial], store: Store) -> None:
    """Draw each distinct embedded data set once, here, so that no two trials draw it at the same time."""
    for data in dict.fromkeys(trial.data for trial in trials):
        if isinstance(data, EmbeddedData):
            prepare(data, store.data_dir)


def jobs_of(trials: Sequence[Trial]) -> list[Job]:
    """One job per trial, in order, under the id that its content gives it."""
    prints = {data: fingerprint(data) for data in dict.fromkeys(trial.data for trial in trials)}
    return [Job(trial, trial_id(trial, prints[trial.data])) for trial in trials]
