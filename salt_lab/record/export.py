"""Records to take along: a study's journals and launches without the folders of the machine that made them.

What comes out is a results folder by itself (without weights, detections and logs): ``salt-lab table STUDY --store FOLDER`` makes the same
table from it anywhere, and ``salt-lab sync FOLDER`` delivers it to MLflow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salt_lab.errors import StoreError
from salt_lab.record.store import Store


def without_folders(value: Any) -> Any:
    """JSON data in which every absolute path has become its last part; everything else is as it was.

    >>> without_folders({"data": {"train": "/home/me/bccd/train.json", "kind": "coco"}})
    {'data': {'train': 'train.json', 'kind': 'coco'}}
    """
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    if isinstance(value, str) and value.startswith("/") and "\n" not in value:
        return os.path.basename(value.rstrip("/"))
    return value


def export_records(store: Store, study_name: str, trial_ids: Sequence[str], target: Path) -> int:
    """Write the records of ``trial_ids`` and the study's launches into the results folder ``target``.

    A record that is there already may have grown since (it is replaced by the longer one); it is never replaced by another.

    Returns:
        Number of trials written or already there.

    Raises:
        StoreError: ``target`` holds another record of the same trial, or cannot be written.
    """
    there = Store(target)
    written = 0
    try:
        for trial_id in trial_ids:
            lines = [json.dumps(without_folders(line)) for line in store.journal(trial_id).read()]
            if lines:
                _write(there.trial_dir(trial_id) / "record.jsonl", lines)
                written += 1
        for launch in store.launches(study_name):
            path = there.study_dir(study_name) / "launches" / f"{launch['launch_id']}.json"
            _write(path, json.dumps(without_folders(launch), indent=1).splitlines())
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error
    return written


def _write(path: Path, lines: list[str]) -> None:
    """The whole file at once; what is there must be the beginning of it."""
    if path.exists() and path.read_text().splitlines() != lines[: len(path.read_text().splitlines())]:
        raise StoreError(f"{path}: holds another record already; nothing is overwritten: choose an empty folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("\n".join(lines) + "\n")
    os.replace(part, path)
