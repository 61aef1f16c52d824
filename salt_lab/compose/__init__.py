"""The one translator: a trial becomes an mmengine Config, as the host's own config plus one patch per toggle."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from salt_lab.compose.anyhost import check_trainable, host_imports, kept_hooks
from salt_lab.compose.hosts import host_of, mmdet_config
from salt_lab.compose.model import patch_backbone, patch_classes, patch_convs, patch_for_data, patch_head, patch_salt, patch_width
from salt_lab.compose.run import HOST_RUN_KEYS, Paths, patch_data, patch_runtime, patch_schedule
from salt_lab.spec.trial import Trial

__all__ = ["compose"]


def compose(
    trial: Trial, data: Paths | None = None, work_dir: Path | None = None, *, loader_workers: int = 0, world_size: int = 1
) -> Config:
    """The full configuration of ``trial``.

    Args:
        trial: what to run.
        data: where its data lie; None leaves the host's own COCO section (80 classes) in place, as for reading the model alone.
        work_dir: where checkpoints go.
        loader_workers: processes that load images, per worker.
        world_size: workers that share ``trial.schedule.batch``.

    Raises:
        SpecError: unknown host, one that cannot be trained on boxes, or a toggle that has no place in it.
    """
    config = mmdet_config(host_of(trial).config)
    check_trainable(config, trial.host)
    imports, hooks = host_imports(config), kept_hooks(config)
    for patch in (patch_head, patch_backbone, patch_width, patch_convs, patch_salt):
        patch(config.model, trial)
    if data is not None:
        for key in HOST_RUN_KEYS:
            config.pop(key, None)
        patch_for_data(config)
        patch_classes(config, trial, data.classes)
        patch_data(config, trial, data, loader_workers, world_size)
        patch_schedule(config, trial.schedule)
        if hooks := [*hooks, *config.get("custom_hooks", [])]:
            config.custom_hooks = hooks
    patch_runtime(config, trial, work_dir)
    config.custom_imports.imports = [*imports, *config.custom_imports.imports]
    return config
