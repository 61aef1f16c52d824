"""COCO 2017 as its authors publish it: the archives, and whether a folder holds it whole.

cocodataset.org publishes no checksums. Sizes and SHA-256 sums are those with which TensorFlow Datasets guards its own downloads from the same
addresses (``tensorflow_datasets/url_checksums/coco.txt`` of github.com/tensorflow/datasets, commit b5b3b545); a mirror has to match them too.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from salt_lab.errors import DataError

#: COCO's own server; its certificate names another host, so it is plain http, and the checksums say whether the bytes are right.
ADDRESS = "http://images.cocodataset.org"
IMAGE = ".jpg"


@dataclass(frozen=True)
class Archive:
    """One zip file. ``folder`` is the one folder that it holds; ``unpacked`` about its size on disk, bytes."""

    path: str
    size: int
    sha256: str
    folder: str
    unpacked: int

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.rsplit("/", 1)[-1]


class Split(NamedTuple):
    """A split: its folder of images, its annotation file, and how many images both have."""

    folder: str
    annotations: str
    images: int


@dataclass(frozen=True)
class Release:
    """What a whole copy consists of, in the order in which it is fetched: the smallest first, so that trouble shows early."""

    archives: tuple[Archive, ...]
    splits: tuple[Split, ...]
    categories: int


COCO_2017 = Release(
    archives=(
        Archive(
            "annotations/annotations_trainval2017.zip",
            252_907_541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            "annotations",
            830_000_000,
        ),
        Archive(
            "zips/val2017.zip", 815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05", "val2017", 830_000_000
        ),
        Archive(
            "zips/train2017.zip",
            19_336_861_798,
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            "train2017",
            19_600_000_000,
        ),
    ),
    splits=(
        Split("train2017", "annotations/instances_train2017.json", 118_287),
        Split("val2017", "annotations/instances_val2017.json", 5_000),
    ),
    categories=80,
)


class CopyReport(NamedTuple):
    """A whole copy: images of each split, boxes of each split, and how many images were opened."""

    images: dict[str, int]
    boxes: dict[str, int]
    opened: int


def absent(root: Path, release: Release = COCO_2017) -> list[Archive]:
    """The archives whose folder is not under ``root`` yet.

    Raises:
        DataError: a folder of theirs is there but not whole. Nothing of a user's is ever overwritten or added to.
    """
    found = []
    for archive in release.archives:
        folder = root / archive.folder
        if not os.path.lexists(folder):
            found.append(archive)
        elif problem := _incomplete(root, archive, release):
            raise DataError(f"{folder}: {problem}. It is left as it is: move it away and run again, or choose another folder with --root")
    return found


def _incomplete(root: Path, archive: Archive, release: Release) -> str:
    """What the folder of ``archive`` lacks, by names and numbers alone; empty when it is whole."""
    if not (root / archive.folder).is_dir():
        return "is not a folder"
    lists = [split.annotations for split in release.splits if split.annotations.startswith(f"{archive.folder}/")]
    lacking = [name for name in lists if not (root / name).is_file()]
    if lacking:
        return f"has no {', '.join(name.rsplit('/', 1)[-1] for name in lacking)}"
    for split in release.splits:
        if split.folder == archive.folder and (number := len(image_files(root / split.folder))) != split.images:
            return f"has {number} images; the release has {split.images}"
    return ""


def image_files(folder: Path) -> set[str]:
    """Names of the images in ``folder`` that are not empty."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.endswith(IMAGE) and entry.is_file() and entry.stat().st_size > 0}


def check_copy(root: Path, release: Release = COCO_2017, *, samples: int = 50, seed: int = 0) -> CopyReport:
    """Is ``root`` a whole copy? Counts of images, annotation files and categories, every listed image, and ``samples`` images a split opened.

    Args:
        root: with ``annotations/``, ``train2017/`` and ``val2017/``.
        release: what it should hold.
        samples: images of each split that are decoded and held against the width and height of the annotation file; drawn by ``seed``.
        seed: of that draw.

    Raises:
        DataError: one error that lists every problem with its file.
    """
    problems: list[str] = []
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder. Name the one that holds {_folders(release)}, or fetch COCO: salt-lab data coco --root {root}"
        )
    for archive in release.archives:
        if problem := _incomplete(root, archive, release) if (root / archive.folder).exists() else "is missing":
            problems.append(f"{root / archive.folder}: {problem}")
    boxes: dict[str, int] = {}
    for split in release.splits:
        if (root / split.folder).is_dir() and (root / split.annotations).is_file():
            boxes[split.folder] = _check_split(root, split, release.categories, samples, random.Random(seed), problems)
    if problems:
        raise DataError(_all(root, problems))
    opened = sum(min(samples, split.images) for split in release.splits)
    return CopyReport({split.folder: split.images for split in release.splits}, boxes, opened)


def _folders(release: Release) -> str:
    return ", ".join(f"{archive.folder}/" for archive in release.archives)


def _all(root: Path, problems: Sequence[str]) -> str:
    shown = "\n  ".join(problems[:10]) + (f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else "")
    lead = f"{len(problems)} problems in the copy:\n  " if len(problems) > 1 else ""
    return f"{lead}{shown}\nMove what is damaged away and fetch it again: salt-lab data coco --root {root}"


def _check_split(root: Path, split: Split, categories: int, samples: int, draw: random.Random, problems: list[str]) -> int:
    """Note what is wrong with a split; returns its number of annotations."""
    file, folder = root / split.annotations, root / split.folder
    try:
        content = json.loads(file.read_bytes())
        images: list[dict[str, Any]] = content["images"]
        boxes, names = len(content["annotations"]), {image["file_name"] for image in images}
        found = len(content["categories"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        problems.append(f"{file}: cannot be read as a COCO annotation file ({error})")
        return 0
    if len(images) != split.images or found != categories:
        problems.append(f"{file}: lists {len(images)} images and {found} categories; the release has {split.images} and {categories}")
    if missing := sorted(names - image_files(folder)):
        problems.append(f"{folder}: {len(missing)} of the images that {file.name} lists are missing or empty, such as {missing[0]}")
    here = [image for image in images if image["file_name"] not in missing]
    for image in draw.sample(here, min(samples, len(here))):
        problems += _cannot_open(folder, image)
    return boxes


def _cannot_open(folder: Path, image: dict[str, Any]) -> list[str]:
    import cv2

    path = folder / image["file_name"]
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        return [f"{path}: not a readable image"]
    height, width = pixels.shape[:2]
    if (width, height) != (image["width"], image["height"]):
        return [f"{path}: is {width} x {height}; the annotation file says {image['width']} x {image['height']}"]
    return []
