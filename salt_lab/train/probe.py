"""The probe: at the end of a trial, what its detector says of the locations that learn each object of the val images, kept as one small file.

It reads the trained model and changes nothing: random generators, modes, batch norm's statistics and weights are as before. A probe that
fails is a warning in the log and a sentence in its file; the trial stays what it is. What is kept: :class:`~salt_lab.evaluate.probe_data.Probe`.
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from salt_lab.data import prepare
from salt_lab.errors import StoreError
from salt_lab.evaluate.probe_data import PROBE, Probe, save_probe
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train import agree
from salt_lab.train.checkpoints import resumable
from salt_lab.train.hooks import HeartbeatHook
from salt_lab.train.probe_hosts import NoProbe, check_host
from salt_lab.train.probe_images import Kept, joined, probe_batch, read_objects


def probe_trial(runner: Any, folder: Path) -> None:
    """Probe a runner's model as its last evaluation saw it, into ``folder``. All workers of a trial call it; they share the images."""
    model = runner.model.module if hasattr(runner.model, "module") else runner.model
    with _evaluated_weights(runner):
        found = _measured(model, runner.val_dataloader, agree.rank(), agree.how_many(), _heartbeat(runner))
    if isinstance(found, str):
        runner.logger.warning(f"no probe: {found}")
    parts = agree.gathered(found)
    if agree.is_first():
        try:
            save_probe(folder / PROBE, joined(parts))
        except OSError as error:
            runner.logger.warning(f"{folder / PROBE}: the probe cannot be written: {error.strerror or error}")


def _measured(model: Any, loader: Any, *share: Any) -> Kept | str:
    """What :func:`probe_images` finds, or why it finds nothing: any model of mmdet can be a host, and no trial is thrown away for a measure."""
    try:
        return probe_images(model, loader, *share)
    except NoProbe as reason:
        return str(reason)
    except Exception as error:
        return f"not measured: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def probe_images(model: Any, loader: Any, rank: int = 0, workers: int = 1, beat: Callable[[], None] = lambda: None) -> Kept:
    """The positives of every ``workers``-th image with objects of a val loader, from number ``rank`` on.

    Args:
        model: a detector without wrapper. Left as it was, and so are all random generators.
        loader: has the data set (mmdet's ``CocoDataset``, full) and ``batch_size``; it is not iterated, which would draw random numbers.
        rank, workers: this worker, and how many share the images.
        beat: called after every batch.

    Raises:
        NoProbe: this model's positives cannot be asked.
    """
    check_host(model)
    dataset = loader.dataset
    truth = read_objects(Path(dataset.ann_file), dataset.cat2label)
    ids = [dataset.get_data_info(place)["img_id"] for place in range(len(dataset))]
    places = [place for place, image in enumerate(ids) if image in truth][rank::workers]
    size, kept = loader.batch_size or 1, Kept()
    with _undisturbed(model), torch.no_grad():
        for first in range(0, len(places), size):
            batch = places[first : first + size]
            kept.add(probe_batch(model, [dataset[place] for place in batch], [truth[ids[place]] for place in batch]))
            beat()
    return kept


def probe_checkpoint(trial: Trial, store: Store, trial_id: str, device: str | None = None) -> Probe:
    """Make the probe of a finished trial from its last checkpoint, and keep it where the trial's end would have.

    Args:
        trial: as it was trained.
        store, trial_id: where its folder is. Hold the trial's lock.
        device: "cpu", "cuda", ...; None takes a GPU where there is one.

    Raises:
        StoreError: there is no checkpoint of its last epoch any more, or the probe cannot be written.
        WeightsError: the checkpoint does not fit the model that the trial asks for now.
        DataError: the data set cannot be used.
    """
    folder = store.trial_dir(trial_id)
    model, loader = _built(trial, store, check_checkpoint(store, trial_id, trial.schedule.epochs), device)
    probe = joined([_measured(model, loader)])
    try:
        save_probe(folder / PROBE, probe)
    except OSError as error:
        why = error.strerror or error
        raise StoreError(f"{folder / PROBE}: cannot be written ({why}). Free space or make the folder writable") from error
    return probe


def check_checkpoint(store: Store, trial_id: str, epochs: int) -> Path:
    """The checkpoint of a finished trial's last epoch.

    Raises:
        StoreError: it is not there any more, or damaged.
    """
    folder = store.trial_dir(trial_id) / "checkpoints"
    last = resumable(folder)
    if last.path is None or last.epoch < epochs:
        reason = last.note or (f"the last one is {last.path.name}" if last.path else "there is none")
        raise StoreError(f"{folder}: no checkpoint of epoch {epochs} is left ({reason})")
    return last.path


def _built(trial: Trial, store: Store, checkpoint: Path, device: str | None) -> tuple[Any, Any]:
    """The trial's model with a checkpoint's weights (those that were evaluated: with a running mean, the mean), and its val images."""
    from salt_lab.train.libraries import load_libraries

    load_libraries()
    from mmdet.registry import DATASETS, MODELS
    from mmengine.registry import DefaultScope
    from mmengine.utils import import_modules_from_strings

    from salt_lab.compose import compose
    from salt_lab.models.weights import read_weights
    from salt_lab.train.infer import load_fitting, pick_device, strip_init

    config = compose(trial, prepare(trial.data, store.data_dir), checkpoint.parent)
    import_modules_from_strings(**config.get("custom_imports", {}))
    with warnings.catch_warnings(), DefaultScope.overwrite_default_scope("mmdet"):
        warnings.simplefilter("ignore")
        model = MODELS.build(strip_init(config.model)).to(pick_device(device)).eval()
        dataset = DATASETS.build(config.val_dataloader.dataset)
    load_fitting(model, read_weights(checkpoint), str(checkpoint))
    return model, SimpleNamespace(dataset=dataset, batch_size=config.val_dataloader.batch_size)


@contextlib.contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Eval mode inside; afterwards every module's mode and every random generator is as it was."""
    modes = {module: module.training for module in model.modules()}
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  # what libraries draw from
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mmdet warns of its own deprecated names
            model.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextlib.contextmanager
def _evaluated_weights(runner: Any) -> Iterator[None]:
    """The weights that evaluations see: with a running mean that, swapped back afterwards."""
    averaging = [hook for hook in runner.hooks if hasattr(hook, "ema_model")]
    for hook in averaging:
        hook.before_val_epoch(runner)
    try:
        yield
    finally:
        for hook in reversed(averaging):
            hook.after_val_epoch(runner)


def _heartbeat(runner: Any) -> Callable[[], None]:
    return next((hook.beat for hook in runner.hooks if isinstance(hook, HeartbeatHook)), lambda: None)
