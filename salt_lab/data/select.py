"""Fewer classes of a COCO data set: a small subset teaches one class or a few, not eighty.

The annotation files are written anew beside nothing that exists; ids of images and annotations, crowd flags and areas stay. Images without a box
of a kept class stay too: in evaluation they are what a detector must leave alone (training leaves them out, as mmdet does).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from salt_lab.errors import DataError, did_you_mean


class Selected(NamedTuple):
    """A written file: its class names in label order, images, images with a box, boxes, and boxes that were left out."""

    path: Path
    classes: tuple[str, ...]
    images: int
    with_boxes: int
    boxes: int
    left_out: int


def select_file(
    source: Path, target: Path, keep: Sequence[str] = (), *, supercategories: bool = False, rest: str | None = None
) -> Selected:
    """Write ``source`` with other classes as ``target``.

    Args:
        source: annotation file in COCO's format.
        target: file to write; its folder is made.
        keep: names of classes to keep, in this order of labels; empty = all.
        supercategories: take each class's supercategory as its class first (COCO has 12).
        rest: name of a last class that all the others become; None leaves their boxes out.

    Raises:
        DataError: ``source`` is no COCO annotation file, a name is not in it (the nearest is named), no box is left, or ``target`` exists.
    """
    content = _read(source)
    names = {category["id"]: category["supercategory" if supercategories else "name"] for category in content["categories"]}
    known = list(dict.fromkeys(names.values()))
    for name in keep:
        if name not in known:
            raise DataError(f"{source}: {did_you_mean('class', name, known)}")
    if rest is not None and (not keep or rest in known):
        raise DataError(f"{source}: rest = '{rest}' names what is left beside the classes to keep: name those, and no class of the file")
    classes = [*(keep or known), *([rest] if rest is not None else [])]
    label = {
        number: classes.index(name if name in (keep or known) else rest) + 1 for number, name in names.items() if name in classes or rest
    }
    kept = [{**entry, "category_id": label[entry["category_id"]]} for entry in content["annotations"] if entry["category_id"] in label]
    if not kept:
        raise DataError(f"{source}: no box of {', '.join(classes)}: choose other classes")
    written = {**content, "annotations": kept, "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)]}
    _write(target, written)
    with_boxes = len({entry["image_id"] for entry in kept})
    return Selected(target, tuple(classes), len(content["images"]), with_boxes, len(kept), len(content["annotations"]) - len(kept))


def _read(source: Path) -> dict[str, Any]:
    try:
        content = json.loads(source.read_bytes())
        for key in ("images", "annotations"):
            list(content[key])
        if not all({"id", "name", "supercategory"} <= category.keys() for category in content["categories"]):
            for category in content["categories"]:
                category.setdefault("supercategory", category["name"])
        if not all("category_id" in entry and "image_id" in entry for entry in content["annotations"]):
            raise ValueError("an annotation without category_id or image_id")
        return dict(content)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error}). Check the path") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{source}: no COCO annotation file ({error!r}). Give one with images, annotations and categories") from None


def _write(target: Path, content: dict[str, Any]) -> None:
    """In one step; equal content that is there already is left alone, other content too, with an error."""
    text = json.dumps(content, separators=(",", ":")).encode()
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.exists():
            if target.read_bytes() != text:
                raise DataError(f"{target}: is there already with other content and is left as it is. Choose another folder with -o")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(text)
        scratch.rename(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error}). Choose another folder with -o") from None
