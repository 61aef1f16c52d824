"""mmengine's own ways to a checkpoint (``load_from``, resuming, ``init_cfg=Pretrained``, downloads), led through ours.

mmengine reads a file with ``weights_only`` first and, where that fails, unpickles it whole; downloads it unpickles at once. Checkpoints of
mmdet's model zoo that were saved under NumPy 1 do fail, so every one of them would be run as a program. From here on all of them are read
by :func:`~salt_lab.models.weights_file.read_checkpoint`, which also knows safetensors.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.runner import checkpoint as doors

from salt_lab.models.weights_file import read_checkpoint


def close_doors() -> None:
    """Put our reading in place of mmengine's; doing it again changes nothing."""
    doors._safe_torch_load = _load
    doors.load_url = _download
    doors.CheckpointLoader.register_scheme(("torchvision://", "modelzoo://"), _from_torchvision, force=True)


def _load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Local files; what comes as bytes from an object store is laid down first."""
    if isinstance(file, str | os.PathLike):
        return read_checkpoint(Path(file), map_location=map_location or "cpu")
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".pth") as local:
        local.write(file.read())
        local.flush()
        return read_checkpoint(Path(local.name), map_location=map_location or "cpu")


def _download(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True) -> Any:
    """Into torch's own cache of checkpoints, where torchvision and mmengine look too; a file that is there is not fetched again."""
    from urllib.parse import urlparse

    from torch import hub

    folder = Path(model_dir or Path(hub.get_dir()) / "checkpoints")
    target = folder / Path(urlparse(url).path).name
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        hub.download_url_to_file(url, str(target), progress=progress)
    return read_checkpoint(target, map_location=map_location or "cpu")


def _from_torchvision(filename: str, map_location: Any = None) -> Any:
    """``torchvision://resnet50`` by the list of addresses that mmengine ships, so torchvision need not be installed."""
    import mmengine

    name = filename.partition("://")[2]
    known = mmengine.load(Path(mmengine.__path__[0]) / "hub" / "torchvision_0.12.json")
    address = known[name] if name in known else doors.get_torchvision_models()[name]
    return doors.load_from_http(address, map_location=map_location)
