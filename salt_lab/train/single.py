"""Single models from mmdet-style configs: train (on one or several workers) and test, as dist_train.sh and dist_test.sh do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salt_lab.errors import DataError, TrialFailed, UserError
from salt_lab.train.checkpoints import last_checkpoint


def train_config(config: str, work_dir: Path | None, gpus: int, overrides: Mapping[str, Any]) -> Path:
    """Train the model of a config file; go on from its last checkpoint if ``work_dir`` has one.

    Args:
        config: mmdet-style config.
        work_dir: where logs and checkpoints go; None takes ``work_dirs/<config name>``.
        gpus: workers, one per GPU; 0 or 1 trains in this process.
        overrides: dotted config keys -> values, e.g. ``{"train_cfg.max_epochs": 1}``.

    Returns:
        The last checkpoint.

    Raises:
        UserError, DataError: the config, its data or the GPUs are not there; said before anything starts.
        TrialFailed: training ended with an error.
    """
    from salt_lab.train.infer import read_config

    folder = work_dir or Path("work_dirs") / Path(config).stem
    settings = read_config(config)
    _apply(settings, config, overrides)
    _check_data(settings, config)
    if gpus > 1 and "LOCAL_RANK" not in os.environ:
        _launch(config, folder, gpus, overrides)
    else:
        _train_here(settings, folder)
    if (checkpoint := last_checkpoint(folder)) is None:
        raise TrialFailed(f"{folder}: training left no checkpoint; see the log there")
    return checkpoint


def _train_here(settings: Any, folder: Path) -> None:
    from mmengine.runner import Runner

    from salt_lab.train.hooks import PlainCheckpointHook
    from salt_lab.train.libraries import load_libraries

    load_libraries()
    settings.work_dir = str(folder)
    settings.launcher = "pytorch" if "LOCAL_RANK" in os.environ else "none"
    _several_workers_on_cpu(settings)
    settings.resume = last_checkpoint(folder) is not None
    runner = Runner.from_cfg(settings)
    runner.register_hook(PlainCheckpointHook())
    runner.train()


def _several_workers_on_cpu(settings: Any) -> None:
    """mmengine sets a CUDA device on joining a group and on wrapping the model; without CUDA both are done here, over gloo."""
    import torch

    if "LOCAL_RANK" in os.environ and not torch.cuda.is_available():
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        settings.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)


def _launch(config: str, folder: Path, workers: int, overrides: Mapping[str, Any]) -> None:
    """The same command on each worker, through torchrun with a free port of its own."""
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() < workers:
        raise UserError(f"--gpus {workers}: this machine has {torch.cuda.device_count()}; ask for at most that many")
    pairs = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    command = [*torchrun, "-m", "salt_lab", "train", config, *pairs, "--gpus", str(workers), "--work-dir", str(folder)]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise TrialFailed(f"{config}: training on {workers} workers ended with exit code {code}; see the log above and in {folder}")


def evaluate_config(config: str, checkpoint: str, out: Path | None, overrides: Mapping[str, Any] | None = None) -> dict[str, float]:
    """COCO's twelve numbers, in percent, of a checkpoint on the config's test data.

    Args:
        config: mmdet-style config.
        checkpoint: weights that fit it.
        out: where the detections go as a COCO result list (JSON, gzipped where the name ends in .gz); None writes none.
        overrides: dotted config keys -> values.

    Raises:
        UserError, DataError, WeightsError: config, data or checkpoint cannot be used.
    """
    from mmengine.runner import Runner

    from salt_lab.models.weights import read_weights
    from salt_lab.train.infer import load_fitting, read_config, strip_init
    from salt_lab.train.libraries import load_libraries

    load_libraries()
    state = read_weights(Path(checkpoint))
    settings = read_config(config)
    _apply(settings, config, overrides or {})
    _check_data(settings, config, ("test_dataloader",))
    settings.model = strip_init(settings.model)
    settings.work_dir = str(Path("work_dirs") / Path(config).stem)
    settings.log_level = "WARNING"
    settings.load_from, settings.resume = None, False
    truth = annotation_file(settings.test_dataloader.dataset)
    settings.test_evaluator = dict(type="LabCocoMetric", ann_file=str(truth), out_file=str(out) if out else None)
    runner = Runner.from_cfg(settings)
    load_fitting(runner.model, state, checkpoint)
    return dict(runner.test())


def annotation_file(dataset: Any) -> Path:
    """Where a data section's annotations lie."""
    return Path(dataset.get("data_root") or "") / dataset.ann_file


def _check_data(settings: Any, config: str, loaders: tuple[str, ...] = ("train_dataloader", "val_dataloader")) -> None:
    """The annotation files must be there before anything is built."""
    for name in loaders:
        path = annotation_file(settings[name].dataset)
        if not path.is_file():
            raise DataError(
                f"{config}: {name}.dataset.ann_file = {path}: no such file; put the data there or override {name}.dataset.data_root=DIR"
            )


def _apply(settings: Any, config: str, overrides: Mapping[str, Any]) -> None:
    """Set dotted keys that the config has; a key that it does not have is an error."""
    from salt_lab.errors import did_you_mean

    for key, value in overrides.items():
        section, names = settings, key.split(".")
        for depth, name in enumerate(names):
            if not hasattr(section, "keys") or name not in section:
                known = list(section.keys()) if hasattr(section, "keys") else []
                raise UserError(f"{config}: {key}: {did_you_mean('key', '.'.join(names[: depth + 1]), known)}")
            section = section[name] if depth < len(names) - 1 else section
        section[names[-1]] = value
