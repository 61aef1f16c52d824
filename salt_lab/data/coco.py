"""Is this COCO data set fit to train and to evaluate on? Every problem at once, each with its file and id, before anything starts.

Errors are what would stop training half-way or silently falsify AP. Warnings are blemishes that training survives, such as the few
boxes without area in genuine COCO (mmdet drops them). The images are looked up in one directory listing, never opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from salt_lab.data.coco_split import Problems, Split, check_split
from salt_lab.data.paths import CocoFiles, DatasetPaths, coco_files
from salt_lab.errors import DataError
from salt_lab.spec.trial import CocoData

LISTED = 10
#: A share of boxes without area up to this is a blemish (genuine COCO train2017 has about 2 in 860 000), above it an error.
EMPTY_BOX_SHARE = 1e-4


class CocoReport(NamedTuple):
    """A data set that can be used. ``warnings`` are whole sentences, each naming file and id."""

    paths: DatasetPaths
    warnings: tuple[str, ...]


def check_coco(data: CocoData) -> DatasetPaths:
    """The paths of ``data``, when it can be used; see :func:`inspect_coco` for the warnings and errors."""
    return inspect_coco(data).paths


def inspect_coco(data: CocoData) -> CocoReport:
    """Check both splits of ``data`` and how they fit together.

    Raises:
        DataError: one error with all problems, of which the first 10 are listed and the rest is counted: files that are missing, not JSON
            or not COCO; ids that are double; annotations of unknown images or categories; boxes outside the image by 1 px or more, or
            without area; missing image files; in val also annotation id 0; train and val with different categories; a split without boxes.
    """
    files, problems = coco_files(data), Problems()
    train = _load("train", files.train_json, problems)
    val = _load("val", files.val_json, problems)
    splits = [
        check_split(content, path, images, is_val, problems)
        for content, path, images, is_val in (
            (train, files.train_json, files.train_images, False),
            (val, files.val_json, files.val_images, True),
        )
        if content is not None
    ]
    for split in splits:
        _judge_empty_boxes(split, problems)
        _check_image_files(split, problems)
    if len(splits) == 2:
        _compare_categories(splits[0], splits[1], problems)
        _look_for_leaks(splits[0], splits[1], problems)
    if problems.errors:
        raise DataError(_one_message(problems.errors))
    return CocoReport(_paths(files, splits[0]), tuple(problems.warnings))


def _load(field: str, path: Path, problems: Problems) -> dict[str, Any] | None:
    """The annotation file's content, or None and a problem."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or error
        problems.error(
            f"{path}: data.{field}: annotation file cannot be read ({reason}). Check the path, or override with data.{field}=PATH"
        )
        return None
    except ValueError as error:
        problems.error(f"{path}: data.{field}: not a JSON file ({error}). Give a COCO annotation file")
        return None
    keys = ("images", "annotations", "categories")
    lacking = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        problems.error(
            f"{path}: data.{field}: not COCO's format: no list under {', '.join(lacking)}. Give a COCO detection annotation file"
        )
        return None
    return dict(content)


def _judge_empty_boxes(split: Split, problems: Problems) -> None:
    say = problems.warn if len(split.empty_boxes) <= EMPTY_BOX_SHARE * split.n_annotations else problems.error
    for sentence in split.empty_boxes:
        say(sentence)


def _check_image_files(split: Split, problems: Problems) -> None:
    """Each listed image must be a file; one listing per folder, so 100 000 images take a fraction of a second."""
    if not split.images.is_dir():
        field = "data.val_images or data.images" if split.is_val else "data.images"
        problems.error(f"{split.images}: image folder of {split.path.name} not found. Check the path, or override {field}")
        return
    listings: dict[str, frozenset[str]] = {}
    missing = [(image_id, name) for image_id, name in split.file_names.items() if not _is_listed(split.images, name, listings)]
    if missing and len(missing) == len(split.file_names):
        example = f"for example '{missing[0][1]}' of image id {missing[0][0]}"
        problems.error(
            f"{split.path}: none of its {len(missing)} images is in {split.images} ({example}). Check data.images and data.val_images"
        )
        return
    for image_id, name in missing:
        problems.error(
            f"{split.path}: image id {image_id}: no file '{name}' in {split.images}. Put it there, or remove the image from the annotations"
        )


def _is_listed(folder: Path, name: str, listings: dict[str, frozenset[str]]) -> bool:
    place, base = os.path.split(os.path.join(folder, name))
    if place not in listings:
        try:
            with os.scandir(place) as entries:
                listings[place] = frozenset(entry.name for entry in entries if entry.is_file())
        except OSError:
            listings[place] = frozenset()
    return base in listings[place]


def _compare_categories(train: Split, val: Split, problems: Problems) -> None:
    """Same ids, same names: a label that means another class in val would make a wrong AP, not an error."""
    if train.categories == val.categories:
        return
    remedy = "Use the same categories, ids and names, in both files"
    for number in sorted(train.categories.keys() | val.categories.keys()):
        in_train, in_val = train.categories.get(number), val.categories.get(number)
        if in_train != in_val:
            names = [f"'{name}'" if name is not None else "missing" for name in (in_train, in_val)]
            problems.error(f"{val.path}: category id {number} is {names[1]}, but {names[0]} in {train.path}. {remedy}")


def shared_images(first: Iterable[str], first_folder: Path, second: Iterable[str], second_folder: Path) -> list[str]:
    """File names that two splits have in common, sorted; none where the splits lie in different folders."""
    return sorted(set(first) & set(second)) if first_folder.resolve() == second_folder.resolve() else []


def _look_for_leaks(train: Split, val: Split, problems: Problems) -> None:
    if both := shared_images(train.file_names.values(), train.images, val.file_names.values(), val.images):
        problems.warn(
            f"{val.path}: {len(both)} of its {len(val.file_names)} images are in {train.path} too, such as '{both[0]}'; their AP is no test"
        )


def _paths(files: CocoFiles, train: Split) -> DatasetPaths:
    classes = tuple(train.categories[number] for number in sorted(train.categories))
    return DatasetPaths(*files, classes)


def _one_message(errors: list[str]) -> str:
    """One problem is one line. Several get a line each, after their number."""
    if len(errors) == 1:
        return errors[0]
    rest = [f"... and {len(errors) - LISTED} more"] if len(errors) > LISTED else []
    return "\n  ".join([f"{len(errors)} problems in the data set:", *errors[:LISTED], *rest])
