"""Everything that can be known to be wrong before anything starts: results folder, MLflow, weights, data. Cheap checks come first."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

from salt_lab.data import fingerprint, prepare
from salt_lab.errors import StoreError, WeightsError
from salt_lab.record.store import Store
from salt_lab.record.tracking import check_server, public
from salt_lab.schedule.executor import Job
from salt_lab.spec.trial import CocoData, EmbeddedData, Trial, trial_id
from salt_lab.spec.weights_file import whats_wrong

#: What to do about a file that cannot be used, by the field that names it.
REMEDIES = {
    "backbone.init": "Correct backbone.init, or set it to null for random weights",
    "weights": "Correct weights, or set it to null to start without a whole detector's weights",
}


def check_study(trials: Sequence[Trial], store: Store, mlflow_uri: str | None) -> None:
    """Refuse what cannot be recorded or trained, before a file is drawn or a process started.

    Args:
        trials: All trials of the study.
        store: Where they will be recorded.
        mlflow_uri: Where MLflow is; None = it is not used.

    Raises:
        StoreError: The results folder is not writable or holds looks, or MLflow does not answer.
        SpecError: A host that is not there or cannot be trained here, or a toggle that has no place in it.
        WeightsError: A weights file is missing or damaged.
        DataError: A COCO data set has problems.
    """
    if store.holds_looks:
        raise StoreError(
            f"{store.root}: holds looks at other images; nothing is trained there. Train in {store.root.parent}, then salt-lab look"
        )
    store.check_writable()
    if mlflow_uri is not None:
        check_mlflow(mlflow_uri)
    check_models(trials)
    check_all_weights(trials)
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


def check_models(trials: Iterable[Trial]) -> None:
    """Compose the model section of each distinct model once. Takes mmengine's config reader, half a second, and neither torch nor mmdet.

    Raises:
        SpecError: a host that is not there or cannot be trained here, or a toggle that has no place in it.
    """
    from salt_lab.compose import compose

    models = {(trial.host, trial.quality, trial.backbone, trial.channels, trial.head_convs): trial for trial in trials}
    for trial in models.values():
        compose(trial)


def check_all_weights(trials: Iterable[Trial]) -> None:
    """Look at every weights file that the trials start from, ``weights`` and ``backbone.init``, each once.

    Raises:
        WeightsError: one of them cannot be used; names the field.
    """
    trials = list(trials)
    files = [("weights", trial.weights) for trial in trials]
    files += [("backbone.init", init) for init in (trial.backbone.init for trial in trials) if init != "host"]
    for field, path in dict.fromkeys(files):
        if path is not None:
            check_weights(Path(path), field)


def check_weights(path: Path, field: str = "backbone.init") -> None:
    """Is it a whole weights file that may be read, as far as can be told without torch?

    Args:
        path: the file.
        field: the trial's field that names it.

    Raises:
        WeightsError: It is missing, unreadable, empty, cut short, something else (a saved web page, a git-lfs pointer), or its pickle holds
            classes that only the user's word would let in.
    """
    if (problem := whats_wrong(path)) is not None:
        raise WeightsError(f"{field} = '{path}': {problem}. {REMEDIES[field]}.")


def draw_data(trials: Sequence[Trial], store: Store) -> None:
    """Draw each distinct embedded data set once, here, so that no two trials draw it at the same time."""
    for data in dict.fromkeys(trial.data for trial in trials):
        if isinstance(data, EmbeddedData):
            prepare(data, store.data_dir)


def jobs_of(trials: Sequence[Trial]) -> list[Job]:
    """One job per trial, in order, under the id that its content gives it."""
    prints = {data: fingerprint(data) for data in dict.fromkeys(trial.data for trial in trials)}
    return [Job(trial, trial_id(trial, prints[trial.data])) for trial in trials]
