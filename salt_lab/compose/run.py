"""Patches of everything around the model: data, schedule, evaluation, runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from mmengine.config import Config

from salt_lab.spec.resources import check_shared
from salt_lab.spec.trial import Schedule, Trial

#: replaced whole by :func:`patch_data` and :func:`patch_schedule`; a host's own hooks belong to its own schedule
HOST_RUN_KEYS = (
    "train_pipeline", "test_pipeline", "train_dataloader", "val_dataloader", "test_dataloader", "val_evaluator", "test_evaluator",
    "param_scheduler", "auto_scale_lr", "custom_hooks", "data_root", "dataset_type", "backend_args",
)  # fmt: skip

#: wall time between checkpoints amid an epoch: the most that a killed training loses
CHECKPOINT_MINUTES = 15.0


class Paths(Protocol):
    """What a data set's paths must offer (salt_lab.data.DatasetPaths)."""

    @property
    def train_json(self) -> Path:
        """Annotations for training."""
        ...

    @property
    def val_json(self) -> Path:
        """Annotations for evaluation."""
        ...

    @property
    def train_images(self) -> Path:
        """Folder of the training images."""
        ...

    @property
    def val_images(self) -> Path:
        """Folder of the evaluation images."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        ...


def _pipelines(schedule: Schedule) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    load = dict(type="LoadImageFromFile", backend_args=None)
    resize = dict(type="Resize", scale=tuple(schedule.image_size), keep_ratio=True)
    boxes = dict(type="LoadAnnotations", with_bbox=True)
    flip = dict(type="RandomFlip", prob=schedule.flip)
    meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return [load, boxes, resize, flip, dict(type="PackDetInputs")], [load, resize, boxes, dict(type="PackDetInputs", meta_keys=meta)]


def patch_data(config: Config, trial: Trial, data: Paths, loader_workers: int, world_size: int = 1) -> None:
    """Loaders and evaluator for a COCO-format data set; ``schedule.batch`` is shared out over ``world_size`` workers.

    Raises:
        SpecError: it cannot be shared out equally: the step would have another number of images than the trial says.
    """
    check_shared(trial.schedule.batch, world_size)
    train, test = _pipelines(trial.schedule)
    meta = dict(classes=tuple(data.classes))
    workers = dict(num_workers=loader_workers, persistent_workers=loader_workers > 0)
    common = dict(type="CocoDataset", metainfo=meta, backend_args=None)
    config.train_dataloader = dict(
        batch_size=trial.schedule.batch // world_size,
        sampler=dict(type="DefaultSampler", shuffle=True, seed=trial.seed),
        batch_sampler=dict(type="AspectRatioBatchSampler"),
        dataset=common
        | dict(
            ann_file=str(data.train_json),
            data_prefix=dict(img=str(data.train_images)),
            filter_cfg=dict(filter_empty_gt=True, min_size=1),
            pipeline=train,
        ),
        **workers,
    )
    config.val_dataloader = dict(
        batch_size=max(1, min(16, trial.schedule.batch) // world_size),
        drop_last=False,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=common | dict(ann_file=str(data.val_json), data_prefix=dict(img=str(data.val_images)), test_mode=True, pipeline=test),
        **workers,
    )
    config.val_evaluator = dict(type="LabCocoMetric", ann_file=str(data.val_json))
    config.test_dataloader, config.test_evaluator = config.val_dataloader, config.val_evaluator


def patch_schedule(config: Config, schedule: Schedule) -> None:
    """Optimiser, learning rate, epochs, running mean of the weights, order in memory. The host's own per-parameter settings (FCOS: biases) stay.

    ``lr`` is written as it is used (:attr:`~salt_lab.spec.trial.Schedule.peak_lr`), and ``auto_scale_lr.base_batch_size`` says for how many
    images a step that is: the config, trained alone with ``--auto-scale-lr``, scales from there and never twice.
    """
    kind = dict(sgd=dict(type="SGD", momentum=0.9), adamw=dict(type="AdamW", fused=True))[schedule.optimizer]
    wrapper = dict(
        type="AmpOptimWrapper" if schedule.amp else "OptimWrapper",
        optimizer=kind | dict(lr=schedule.peak_lr, weight_decay=schedule.weight_decay),
        clip_grad=dict(max_norm=schedule.clip_grad, norm_type=2) if schedule.clip_grad else None,
    )
    paramwise = config.get("optim_wrapper", {}).get("paramwise_cfg")
    config.optim_wrapper = wrapper | (dict(paramwise_cfg=paramwise) if paramwise else {})
    config.auto_scale_lr = dict(enable=False, base_batch_size=schedule.batch)
    if hooks := [dict(type=kind, **given) for kind, (_, given) in _own_hooks(schedule).items()]:
        config.custom_hooks = hooks
    warmup = (
        [dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=schedule.warmup_iters)] if schedule.warmup_iters else []
    )
    if schedule.decay == "step":
        decay = dict(type="MultiStepLR", begin=0, end=schedule.epochs, by_epoch=True, milestones=list(schedule.drops), gamma=0.1)
    else:
        decay = dict(type="CosineAnnealingLR", begin=0, end=schedule.epochs, T_max=schedule.epochs, by_epoch=True, eta_min=0.0)
        decay["convert_to_iter_based"] = True
    config.param_scheduler = [*warmup, decay]
    every = schedule.eval_every or schedule.epochs
    config.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=schedule.epochs, val_interval=every)
    config.val_cfg, config.test_cfg = dict(type="ValLoop"), dict(type="TestLoop")


def _own_hooks(schedule: Schedule) -> dict[str, tuple[str, dict[str, Any]]]:
    """The hooks that the schedule asks for: class -> the module that registers it, and its arguments."""
    hooks: dict[str, tuple[str, dict[str, Any]]] = {}
    if schedule.ema is not None:
        hooks["RunningMeanHook"] = ("salt_lab.train.running_mean", dict(momentum=schedule.ema))
    if schedule.memory_format != "contiguous":
        hooks["MemoryFormatHook"] = ("salt_lab.train.memory_format", dict(memory_format=schedule.memory_format))
    return hooks


def patch_runtime(config: Config, trial: Trial, work_dir: Path | None) -> None:
    """Seed, checkpoints (the last two are kept for resuming), imports that register our modules."""
    config.default_scope = "mmdet"
    hooks = [module for module, _ in _own_hooks(trial.schedule).values()]
    config.custom_imports = dict(
        imports=["salt_lab.models", "salt_lab.evaluate.metric", "salt_lab.train.resume", *hooks], allow_failed_imports=False
    )
    config.randomness = dict(seed=trial.seed, deterministic=False)
    config.default_hooks = dict(
        timer=dict(type="IterTimerHook"),
        logger=dict(type="LoggerHook", interval=50),
        param_scheduler=dict(type="ParamSchedulerHook"),
        checkpoint=dict(type="ExactCheckpointHook", minutes=CHECKPOINT_MINUTES),
        sampler_seed=dict(type="DistSamplerSeedHook"),
    )
    config.env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0), dist_cfg=dict(backend="nccl"))
    config.visualizer = dict(type="Visualizer", vis_backends=[])
    config.vis_backends = []
    config.load_from, config.resume = None, False
    if work_dir is not None:
        config.work_dir = str(work_dir)
