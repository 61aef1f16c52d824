"""Training from decoded pictures: mmdet's loading and resizing with the work done once and shared **(ours)**.

``LoadDecoded`` and ``ResizeDecoded`` stand where ``LoadImageFromFile`` and ``Resize`` stood. The cache is filled by just those two steps, so
what training sees is the same to the bit, and boxes are still moved by mmdet's own code. The config that a trial leaves behind names the
plain steps: it may be used elsewhere, without the cache.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import salt_lab.models  # noqa: F401  # isort: skip  # first: it puts the portable ops where mmcv comes without compiled ones
import cv2
import mmcv
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log

from salt_lab.data.decoded import DecodedImages, Picture, cache_key, most_bytes, write_decoded
from salt_lab.data.fingerprint import image_names
from salt_lab.data.paths import DatasetPaths
from salt_lab.errors import DataError, StoreError, UserError
from salt_lab.record.lock import TrialBusy, exclusive

#: Names the largest size of a decoded data set, in GiB; 0 = always read the files.
VARIABLE = "SALT_LAB_DECODED_GB"
DEFAULT_GB = 2.0
GIB = 2**30
#: What must stay free on the disk, bytes.
LEAST_FREE = GIB
#: Seconds to wait for another process that is decoding, before the files are read instead.
PATIENCE = 120.0
LOADERS = {"train_dataloader": "train", "val_dataloader": "val", "test_dataloader": "val"}


@TRANSFORMS.register_module()
class LoadDecoded(LoadImageFromFile):
    """A picture as ``Resize`` would leave it, from a cache; one that the cache cannot serve is read from its file, as its parent does.

    Args:
        cache, key: folder of the cache, and what it was made for.
        split: "train" or "val".
        images: the data set's image folder.
        **loading: for ``LoadImageFromFile``.
    """

    def __init__(self, cache: str, key: str, split: str, images: str, **loading: Any) -> None:
        super().__init__(**loading)
        self.cache, self.key, self.split, self.images = Path(cache), key, split, os.path.join(images, "")
        self._decoded: DecodedImages | None = None
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        """A process that this goes to maps the file itself."""
        return self.__dict__ | {"_decoded": None}

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Adds ``img``, ``img_shape`` and ``ori_shape``, and ``decoded`` for :class:`ResizeDecoded`."""
        path = results["img_path"]
        try:
            if self._decoded is None:
                self._decoded = DecodedImages(self.cache, self.key)
            found = self._decoded.read(self.split, path.removeprefix(self.images), Path(path))
        except DataError:  # deleted since the trial began
            found = None
        if found is None:
            self._tell(path)
            return super().transform(results)
        results["img"], original = found
        results["img_shape"] = results["ori_shape"] = original
        results["decoded"] = True
        return results

    def _tell(self, path: str) -> None:
        if not self._told:
            text = f"{self.cache}: cannot serve {path} (changed, damaged or deleted since it was decoded); such files are read directly"
            print_log(text, logger="current", level=logging.WARNING)
            self._told = True


@TRANSFORMS.register_module()
class ResizeDecoded(Resize):
    """``Resize`` that leaves a picture alone which :class:`LoadDecoded` took from the cache, and does all the rest."""

    def _resize_img(self, results: dict[str, Any]) -> None:
        if not results.pop("decoded", False):
            super()._resize_img(results)
            return
        (height, width), (old_height, old_width) = results["img"].shape[:2], results["ori_shape"]
        results["img_shape"], results["keep_ratio"] = (height, width), self.keep_ratio
        results["scale_factor"] = (width / old_width, height / old_height)


def use_decoded(config: Any, paths: DatasetPaths, fingerprint: Callable[[], str], root: Path, room: int | None = None) -> str:
    """Make a composed config's loaders read decoded pictures, which are decoded now unless they are there already.

    Nothing changes where the decoded data set would be too large, its pipeline resizes by chance, or the disk is full or read-only: a cache
    only ever saves time.

    Args:
        config: mmengine Config with train, val and test loaders; changed in place.
        paths: of its data set.
        fingerprint: gives the data set's fingerprint; only called where the size allows a cache.
        root: folder for data (``Store.data_dir``); the cache is ``root/decoded/<key>``.
        room: bytes that a cache which is still to be made may take of a study's disk budget; None = no budget.

    Returns:
        A sentence for the log: what is used, or why not.

    Raises:
        UserError: ``SALT_LAB_DECODED_GB`` is no number of GiB.
    """
    steps = _fixed_steps(config)
    if steps is None:
        return "pictures are read from their files: the pipeline does not resize all of them to one size first"
    splits = {"train": (paths.train_json, paths.train_images), "val": (paths.val_json, paths.val_images)}
    pictures = [Picture(split, name, folder / name) for split, (file, folder) in splits.items() for name in image_names(file)]
    size = most_bytes(len(pictures), *steps[1]["scale"])
    if reason := _too_large(size, root):
        return f"pictures are read from their files: {reason}"
    try:
        made_by = {"steps": steps, "cv2": cv2.__version__, "mmcv": mmcv.__version__, "machine": platform.machine()}
        key = cache_key(fingerprint(), made_by)
        if room is not None and size > room and not (root / "decoded" / key).exists():
            return (
                f"pictures are read from their files: decoded they would take up to {_gib(size)}, and retention.disk_gb leaves {_gib(room)}"
            )
        decoded = _open_or_make(root / "decoded" / key, key, pictures, steps)
    except (OSError, DataError, StoreError, TrialBusy) as error:
        return f"pictures are read from their files: {error}"
    for section, split in _sections(config):
        _replace(section, str(decoded.folder), key, split)
    return f"{len(decoded)} decoded pictures, {decoded.bytes / 2**20:.1f} MiB, shared by all trials: {decoded.folder}"


def _sections(config: Any) -> Iterator[tuple[Any, str]]:
    """The data set of each loader, and its split; a section that two loaders share comes once."""
    seen: set[int] = set()
    for loader, split in LOADERS.items():
        section = config[loader].dataset
        if id(section) not in seen:
            seen.add(id(section))
            yield section, split


def _fixed_steps(config: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The loading and the resizing step, plain, where they are the same in all loaders."""
    found = []
    for section, _ in _sections(config):
        kinds = {step["type"]: dict(step) for step in section.pipeline}
        found.append((kinds.get("LoadImageFromFile"), kinds.get("Resize")))
    load, resize = found[0]
    same = all(each == found[0] for each in found)
    return (load, resize) if same and load and resize and resize.get("keep_ratio") and "scale" in resize else None


def _replace(section: Any, cache: str, key: str, split: str) -> None:
    images = section.data_prefix["img"]
    put = {
        "LoadImageFromFile": dict(type="LoadDecoded", cache=cache, key=key, split=split, images=images),
        "Resize": {"type": "ResizeDecoded"},
    }
    section.pipeline = [dict(step) | put.get(step["type"], {}) for step in section.pipeline]


def _gib(size: int) -> str:
    return f"{size / GIB:.3g} GiB"


def _too_large(size: int, root: Path) -> str | None:
    """Why a cache of ``size`` bytes is not to be made; None = it may be."""
    limit, text = DEFAULT_GB, os.environ.get(VARIABLE)
    if text is not None:
        try:
            limit = float(text)
        except ValueError:
            limit = -1.0
        if not 0 <= limit < float("inf"):
            raise UserError(f"{VARIABLE} = '{text}': must be a number of GiB, 0 or more; 0 reads every picture from its file")
    if size > limit * GIB:
        return f"decoded they would take up to {_gib(size)}, and {VARIABLE} allows {limit:g}"
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    if (free := shutil.disk_usage(place).free) < size + LEAST_FREE:
        return f"decoded they would take up to {_gib(size)}, and {place} has {_gib(free)} free, of which 1 is to stay free"
    return None


def _open_or_make(folder: Path, key: str, pictures: list[Picture], steps: tuple[dict[str, Any], dict[str, Any]]) -> DecodedImages:
    """The cache, made by the first who asks; the others wait for it.

    Raises:
        TrialBusy: another process is still at it after :data:`PATIENCE` seconds.
        OSError, StoreError: it cannot be written.
        DataError: it was not there any more when it was to be opened.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return DecodedImages(folder, key)
        except DataError:  # not there, or damaged
            pass
        try:
            with exclusive(folder.with_name(f"{key}.lock"), "a data set's decoding"):
                return _make(folder, key, pictures, steps)
        except TrialBusy:
            if time.monotonic() > deadline:
                raise


def _make(folder: Path, key: str, pictures: list[Picture], steps: tuple[dict[str, Any], dict[str, Any]]) -> DecodedImages:
    try:
        return DecodedImages(folder, key)  # made while this process waited for the lock
    except DataError:
        write_decoded(folder, key, pictures, decoder(*steps))
        return DecodedImages(folder, key)


def decoder(load: dict[str, Any], resize: dict[str, Any]) -> Callable[[Path], Any]:
    """A function that gives a file's pixels as these two pipeline steps make them, and the picture's height and width before."""
    loading, resizing = TRANSFORMS.build(load), TRANSFORMS.build(resize)

    def decode(path: Path) -> Any:
        results = loading.transform({"img_path": str(path)})
        original = results["ori_shape"]
        return resizing.transform(results)["img"], original

    return decode
