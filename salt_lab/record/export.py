"""Records to take along: a study's journals and launches without the folders of the machine that made them.

What comes out is a results folder by itself (without weights, detections and logs): ``salt-lab table STUDY --store FOLDER`` makes the same
table from it anywhere, and ``salt-lab sync FOLDER`` delivers it to MLflow. :mod:`salt_lab.record.archive` adds Parquet, files and a manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salt_lab.errors import StoreError
from salt_lab.record.aside import EARLIER
from salt_lab.record.journal import write_whole
from salt_lab.record.store import Store
from salt_lab.spec.trial import without_folders

#: an address with a host (kept), or an absolute path (of which the last part is kept), anywhere in a text
_PATH = re.compile(r"""(\w+://[^\s/]\S*)|(?<![\w.~$})\]>*-])/+(?:[^\s/:'"(),;]+/)*([^\s/:'"(),;]+)/?""")


def portable(value: Any) -> Any:
    """JSON data in whose texts every absolute path has become its last part; a trial's files are named by :func:`without_folders`.

    >>> portable({"reason": "/home/me/cells/val.json: no such file", "see": "https://arxiv.org/abs/2108.12176"})
    {'reason': 'val.json: no such file', 'see': 'https://arxiv.org/abs/2108.12176'}
    """
    if isinstance(value, dict):
        is_trial = isinstance(value.get("trial"), dict)
        return {key: portable(without_folders(inner) if is_trial and key == "trial" else inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    return _PATH.sub(lambda found: found[1] or found[2], value) if isinstance(value, str) else value


def export_records(store: Store, study_name: str, trial_ids: Sequence[str], target: Path, *, as_is: bool = False) -> int:
    """Write the records of ``trial_ids`` and the study's launches into the results folder ``target``.

    A record that is there already may have grown since (it is replaced by the longer one), or have been set aside (it goes to ``earlier``, as
    in the results folder); it is never replaced by another. Records that were set aside are written too.

    Args:
        store: the results folder.
        study_name: the study whose launches are written.
        trial_ids: the trials; those without a record are passed over.
        target: the folder to write into.
        as_is: keep absolute paths as they were recorded.

    Returns:
        Number of trials written or already there.

    Raises:
        StoreError: ``target`` holds another record of the same trial, or cannot be written.
    """
    there, text_of = Store(target), _as_recorded if as_is else _portable_lines
    written = 0
    try:
        for trial_id in trial_ids:
            if not (lines := store.journal(trial_id).read()):
                continue
            written += 1
            earlier = {number: text_of(past.journal(trial_id).read()) for number, past in store.earlier(trial_id).items()}
            _make_room(there, trial_id, earlier)
            for number, past_lines in earlier.items():
                _write(there.trial_dir(trial_id) / EARLIER / str(number) / "record.jsonl", past_lines)
            _write(there.trial_dir(trial_id) / "record.jsonl", text_of(lines))
        for launch in store.launches(study_name):
            path = there.study_dir(study_name) / "launches" / f"{launch['launch_id']}.json"
            _write(path, json.dumps(launch if as_is else portable(launch), indent=1).splitlines())
            if (ended := store.launch_ended(study_name, launch["launch_id"])) is not None:
                _write(path.with_suffix(".end"), json.dumps({"time": ended}, indent=1).splitlines())
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error
    return written


def _as_recorded(lines: Sequence[dict[str, Any]]) -> list[str]:
    return [json.dumps(line) for line in lines]


def _portable_lines(lines: Sequence[dict[str, Any]]) -> list[str]:
    return [json.dumps(portable(line)) for line in lines]


def _make_room(there: Store, trial_id: str, earlier: dict[int, list[str]]) -> None:
    """Set the record in ``there`` aside where it is one of the ``earlier`` ones (or the beginning of one) by now."""
    number = there.record(trial_id).number
    old = _as_recorded(there.journal(trial_id).read())
    if old and number in earlier and old == earlier[number][: len(old)]:
        there.set_aside(trial_id, number)
        (there.trial_dir(trial_id) / "lock").unlink(missing_ok=True)  # nobody runs trials in an exported folder


def _write(path: Path, lines: list[str]) -> None:
    """The whole file at once; what is there must be the beginning of it."""
    there = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if there != lines[: len(there)]:
        raise StoreError(f"{path}: holds another record already; nothing is overwritten: choose an empty folder")
    write_whole(path, "\n".join(lines) + "\n")
