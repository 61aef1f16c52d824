"""Single models from mmdet-style configs: train (on one or several workers) and test, as dist_train.sh and dist_test.sh do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salt_lab.errors import DataError, TrialFailed, UserError, did_you_mean
from salt_lab.evaluate.submission import check_submission_name, submission_name
from salt_lab.train.checkpoints import last_checkpoint
from salt_lab.train.precision import check_precision
from salt_lab.train.together import in_worker, join_workers, run_together


def train_config(
    config: str, work_dir: Path | None, gpus: int, overrides: Mapping[str, Any], *, amp: bool = False, scale_lr: bool = False
) -> Path:
    """Train the model of a config file; go on from its last checkpoint if ``work_dir`` has one.

    Args:
        config: mmdet-style config.
        work_dir: where logs and checkpoints go; None takes ``work_dirs/<config name>``.
        gpus: workers, one per GPU, over gloo on a machine without; 0 or 1 trains in this process.
        overrides: dotted config keys -> values, e.g. ``{"train_cfg.max_epochs": 1}``.
        amp: mixed precision (float16), whatever the config says.
        scale_lr: scale the learning rate linearly from the config's ``auto_scale_lr.base_batch_size`` to the images that a step really has.

    Returns:
        The last checkpoint.

    Raises:
        UserError, DataError, WeightsError: the config, its data, its ``load_from`` or the GPUs are not there; said before anything starts.
        TrialFailed: training ended with an error.
    """
    from salt_lab.train.infer import read_config
    from salt_lab.train.start import check_load_from

    folder = work_dir or Path("work_dirs") / Path(config).stem
    settings = read_config(config)
    apply_overrides(settings, config, overrides)
    _set_precision(settings, config, amp)
    _set_lr_rule(settings, config, scale_lr)
    _check_data(settings, config)
    check_load_from(settings, config)
    if gpus > 1 and not in_worker():
        arguments = dict(config=config, work_dir=str(folder), overrides=dict(overrides), amp=amp, scale_lr=scale_lr)
        run_together("salt_lab.train.single:train_worker", arguments, gpus, f"{config}: training")
    else:
        _train_here(settings, folder)
    if (checkpoint := last_checkpoint(folder)) is None:
        raise TrialFailed(f"{folder}: training left no checkpoint; see the log there")
    return checkpoint


def train_worker(work_dir: str, **arguments: Any) -> str:
    """One worker's part of :func:`train_config`; arguments and result fit into JSON."""
    return str(train_config(work_dir=Path(work_dir), gpus=0, **arguments))


def _train_here(settings: Any, folder: Path) -> None:
    from mmengine.dist import barrier
    from mmengine.runner import Runner

    from salt_lab.train.hooks import PlainCheckpointHook
    from salt_lab.train.libraries import load_libraries
    from salt_lab.train.start import take_load_from
    from salt_lab.train.stop import STOP

    load_libraries()
    settings.work_dir = str(folder)
    join_workers(settings)
    last = last_checkpoint(folder)
    settings.resume = last is not None
    hooks = [PlainCheckpointHook(), *take_load_from(settings)]
    settings.load_from = str(last) if last else None  # mmengine would take the one that last_checkpoint names, damaged or not
    runner = Runner.from_cfg(settings)
    for hook in hooks:
        runner.register_hook(hook)
    with STOP.watching():
        runner.train()
    barrier()  # the worker of rank 0 writes the last checkpoint alone


def _set_precision(settings: Any, config: str, amp: bool) -> None:
    """``--amp``, as mmdet's tools/train.py has it."""
    if amp:
        settings.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    said = "--amp" if amp else f"{config}: optim_wrapper.type = AmpOptimWrapper"
    check_precision(settings, said, "leave --amp out here" if amp else "train it on a GPU, or with optim_wrapper.type=OptimWrapper")


def _set_lr_rule(settings: Any, config: str, scale_lr: bool) -> None:
    """``--auto-scale-lr``, as mmdet's tools/train.py has it."""
    if not scale_lr:
        return
    if "base_batch_size" not in (settings.get("auto_scale_lr") or {}):
        raise UserError(
            f"{config}: --auto-scale-lr: the config has no auto_scale_lr.base_batch_size, the images a step that its lr is meant for; "
            "add auto_scale_lr = dict(enable=False, base_batch_size=16) with your number"
        )
    settings.auto_scale_lr.enable = True


def evaluate_config(
    config: str,
    checkpoint: str,
    out: Path | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    gpus: int = 0,
    format_only: bool = False,
) -> dict[str, float]:
    """COCO's twelve numbers, in percent, of a checkpoint on the config's test data.

    Args:
        config: mmdet-style config.
        checkpoint: weights that fit it.
        out: where the detections go as a COCO result list (JSON, gzipped where the name ends in .gz); None writes none.
        overrides: dotted config keys -> values.
        gpus: workers that share the images, one per GPU, over gloo on a machine without; 0 or 1 tests in this process.
        format_only: for images without ground truth (COCO's test-dev): write ``out`` and its zip for COCO's server, and measure nothing.

    Returns:
        The numbers by name; none of them with ``format_only``.

    Raises:
        UserError, DataError, WeightsError: config, data or checkpoint cannot be used.
        TrialFailed: a worker ended with an error.
    """
    from salt_lab.train.infer import read_config

    settings = read_config(config)
    apply_overrides(settings, config, overrides or {})
    _check_data(settings, config, ("test_dataloader",))
    truth = annotation_file(settings.test_dataloader.dataset)
    if format_only:
        example = submission_name(truth, Path(config).stem)
        if out is None:
            raise UserError(f"--format-only writes a result file and nothing else: give its name, --out {example}")
        check_submission_name(out, example)
    else:
        _check_annotated(truth, config)
    if gpus > 1 and not in_worker():
        files = dict(config=config, checkpoint=checkpoint, out=str(out) if out else None)
        arguments = files | dict(overrides=dict(overrides or {}), format_only=format_only)
        return dict(run_together("salt_lab.train.single:evaluate_worker", arguments, gpus, f"{config}: testing"))
    settings.test_evaluator = dict(type="LabCocoMetric", ann_file=str(truth), out_file=str(out) if out else None, format_only=format_only)
    return _evaluate_here(settings, config, checkpoint)


def evaluate_worker(out: str | None, **arguments: Any) -> dict[str, float]:
    """One worker's part of :func:`evaluate_config`; arguments and result fit into JSON."""
    return evaluate_config(out=Path(out) if out else None, **arguments)


def _evaluate_here(settings: Any, config: str, checkpoint: str) -> dict[str, float]:
    from mmengine.model import is_model_wrapper
    from mmengine.runner import Runner

    from salt_lab.models.weights import read_weights
    from salt_lab.train.infer import load_fitting, strip_init
    from salt_lab.train.libraries import load_libraries

    load_libraries()
    state = read_weights(Path(checkpoint))
    settings.model = strip_init(settings.model)
    settings.work_dir = str(Path("work_dirs") / Path(config).stem)
    settings.log_level = "WARNING"
    settings.load_from, settings.resume = None, False
    join_workers(settings)
    runner = Runner.from_cfg(settings)
    load_fitting(runner.model.module if is_model_wrapper(runner.model) else runner.model, state, checkpoint)
    return dict(runner.test())


def annotation_file(dataset: Any) -> Path:
    """Where a data section's annotations lie."""
    return Path(dataset.get("data_root") or "") / dataset.ann_file


def _check_data(settings: Any, config: str, loaders: tuple[str, ...] = ("train_dataloader", "val_dataloader")) -> None:
    """The annotation files must be there before anything is built."""
    for name in loaders:
        if "ann_file" not in settings[name].dataset:
            continue  # a wrapped data set
        path = annotation_file(settings[name].dataset)
        if not path.is_file():
            raise DataError(
                f"{config}: {name}.dataset.ann_file = {path}: no such file; put the data there or override {name}.dataset.data_root=DIR"
            )


def _check_annotated(truth: Path, config: str) -> None:
    """Numbers need ground truth."""
    import json

    try:
        content = json.loads(truth.read_bytes())
    except ValueError as error:
        raise DataError(f"{truth}: not a JSON file ({error}); give a COCO annotation file") from error
    if not content.get("annotations"):
        raise DataError(
            f"{config}: test_dataloader.dataset.ann_file = {truth}: no annotations to measure against; "
            "add --format-only to write a result file for COCO's server instead"
        )


def apply_overrides(settings: Any, config: str, overrides: Mapping[str, Any]) -> None:
    """Set dotted keys that the config has; a key that it does not have is an error."""
    for key, value in overrides.items():
        section, names = settings, key.split(".")
        for depth, name in enumerate(names):
            if not hasattr(section, "keys") or name not in section:
                known = list(section.keys()) if hasattr(section, "keys") else []
                raise UserError(f"{config}: {key}: {did_you_mean('key', '.'.join(names[: depth + 1]), known)}")
            section = section[name] if depth < len(names) - 1 else section
        section[names[-1]] = value
