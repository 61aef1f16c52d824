"""The embedded data set on disk: drawn once from its parameters, in COCO's format, no download.

It is made for SALT's question: an object's extent is shown by its outline, its class by a small mark that lies off its centre
(``mark_offset``), so classification and localisation have to look at different places. Sizes and contrasts were chosen on a plain
ATSS alone (ResNet-18 of 16 base channels, FPN and head of 64, two convolutions per tower, AdamW 2e-3, batch 8, 800 images of 96 px, 10
epochs, one seed), which learns the boxes within 5 epochs and then, more slowly, the classes: 57 AP (AP50 67) with marks of radius
6-8.5 px and contrast 45 as here, 37 AP (42, hardly any class) with 4.5-8.5 px and contrast 75. Saturated: 91 AP with 8-9 px (12 epochs).

Layout of ``root/<fingerprint>/``::

    manifest.json   generator version, parameters, sha256 of both annotation files; written last
    train.json      val.json      COCO annotations; each has the extra key "mark": [x, y], the class mark's centre in pixels
    train/000001.png ...          val/000001.png ...
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_lab.data.fingerprint import GENERATOR_VERSION, fingerprint, parameters
from salt_lab.data.paths import DatasetPaths
from salt_lab.errors import StoreError
from salt_lab.spec.trial import EmbeddedData

if TYPE_CHECKING:
    from salt_lab.data.shapes import Pixels

__all__ = ["GENERATOR_VERSION", "generate", "image_and_annotations"]
SPLITS = ("train", "val")


def generate(spec: EmbeddedData, root: Path) -> DatasetPaths:
    """Draw the data set into ``root/<fingerprint>`` unless it is already there, whole and of this version.

    It appears in one step (temporary folder, then rename), so any number of processes may ask for it at once.

    Raises:
        StoreError: ``root`` cannot be written.
    """
    target = root / fingerprint(spec)
    if not _is_complete(target, spec):
        try:
            root.mkdir(parents=True, exist_ok=True)
            _draw_and_rename(spec, root, target)
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(
                f"{target}: cannot write the embedded data set ({reason}). Choose a writable folder with --store FOLDER"
            ) from error
    return DatasetPaths(target / "train.json", target / "val.json", target / "train", target / "val", _classes(spec))


def image_and_annotations(spec: EmbeddedData, split: int, index: int) -> tuple[Pixels, list[dict[str, Any]]]:
    """One image, (size, size, 3) uint8 RGB, and its COCO annotations without ids. ``split`` 0 is train, 1 is val; ``index`` from 0."""
    from salt_lab.data.render import render
    from salt_lab.data.scene import Draws, draw_scene

    scene = draw_scene(spec, split, index)
    annotations = []
    for thing in scene.things:
        outline, mark = thing.outline, thing.mark
        box = [outline.x, outline.y, outline.w, outline.h]
        label = _classes(spec).index(mark.kind) + 1
        annotations.append({"category_id": label, "bbox": box, "area": outline.w * outline.h, "iscrowd": 0, "mark": [mark.x, mark.y]})
    return render(scene, Draws(spec.seed, split, index, 1)), annotations


def _classes(spec: EmbeddedData) -> tuple[str, ...]:
    from salt_lab.data.shapes import MARKS

    return MARKS[: spec.classes]


def _is_complete(folder: Path, spec: EmbeddedData) -> bool:
    """Manifest, annotation hashes and the images' number and non-zero sizes agree; takes milliseconds."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        counts = {"train": spec.train_images, "val": spec.val_images}
        same = manifest.get("parameters") == parameters(spec)
        return same and all(
            _hash(folder / f"{split}.json") == manifest[split] and _images(folder / split) == counts[split] for split in SPLITS
        )
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _images(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.name.endswith(".png") and entry.stat().st_size > 0 for entry in entries)


def _draw_and_rename(spec: EmbeddedData, root: Path, target: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=root))
    try:
        whole = scratch / "whole"
        whole.mkdir()
        _draw(spec, whole)
        _move_into_place(spec, whole, target, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _move_into_place(spec: EmbeddedData, whole: Path, target: Path, scratch: Path) -> None:
    """Rename; where another process was faster its equal copy stays, and a damaged copy makes way."""
    for attempt in range(5):
        try:
            os.rename(whole, target)
            return
        except OSError:
            if _is_complete(target, spec):
                return
            if not target.exists() or attempt == 4:
                raise
        try:
            os.rename(target, scratch / f"damaged{attempt}")
        except FileNotFoundError:  # another process has just moved it away
            continue


def _draw(spec: EmbeddedData, folder: Path) -> None:
    counts = {"train": spec.train_images, "val": spec.val_images}
    manifest: dict[str, Any] = {"parameters": parameters(spec)}
    for number, split in enumerate(SPLITS):
        (folder / split).mkdir()
        content = _draw_split(spec, number, counts[split], folder / split)
        (folder / f"{split}.json").write_text(json.dumps(content, separators=(",", ":")))
        manifest[split] = _hash(folder / f"{split}.json")
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _draw_split(spec: EmbeddedData, split: int, count: int, folder: Path) -> dict[str, Any]:
    """Draw the images of a split and return its COCO annotation file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        pixels, found = image_and_annotations(spec, split, index)
        name = f"{index + 1:06d}.png"
        _write_png(folder / name, pixels)
        images.append({"id": index + 1, "file_name": name, "width": spec.image_size, "height": spec.image_size})
        annotations += [{"id": len(annotations) + place, "image_id": index + 1, **entry} for place, entry in enumerate(found, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(_classes(spec), 1)]
    info = {"description": "SALT lab embedded data set (marks)", "version": str(GENERATOR_VERSION)}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _write_png(path: Path, pixels: Pixels) -> None:
    import cv2

    done, encoded = cv2.imencode(".png", pixels[:, :, ::-1])
    if not done:
        raise OSError(f"OpenCV could not encode {path.name}")
    path.write_bytes(encoded.tobytes())
