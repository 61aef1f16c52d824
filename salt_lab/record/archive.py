"""A study to take along whole: journals (the truth), Parquet of trials and of metric points (for others' tools), files, and a manifest.

::

    FOLDER/manifest.json         format, study file, trials with their run ids, code versions, counts, size and sha256 of every file
    FOLDER/trials.parquet        a row per record: cell, seed, state, the 12 numbers (percent), costs, provenance
    FOLDER/points.parquet        a row per metric value: trial_id, record, name, step (epoch), value, time_ms
    FOLDER/trials/<trial_id>/    record.jsonl, probe.npz; detections.json.gz, config.py, train.log, patches where asked; earlier/<n>/ the same
    FOLDER/studies/<name>/       launches

It is a results folder too: ``salt-lab table STUDY --store FOLDER`` reads it. :mod:`salt_lab.record.import_` takes it in elsewhere.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import salt_lab
from salt_lab.errors import StoreError
from salt_lab.record.archive_tables import Cells, RunIds, records_of, write_tables
from salt_lab.record.delivered import ORIGIN, digest
from salt_lab.record.export import export_records
from salt_lab.record.journal import read_json, sync_folders
from salt_lab.record.manifest import MANIFEST, members, read_manifest, write_manifest
from salt_lab.record.store import Store

if TYPE_CHECKING:
    from salt_lab.spec.study import Study


def write_archive(
    store: Store, study: Study, trial_ids: Sequence[str], target: Path, *, detections: bool = False, as_is: bool = False
) -> dict[str, Any]:
    """Write, or bring up to date, the archive of a study.

    Args:
        store: the results folder.
        study: the study.
        trial_ids: its trials, cell by cell and seed by seed; those without a record are left out.
        target: the folder; made where absent.
        detections: also ``detections.json.gz`` of every trial: intervals need them.
        as_is: absolute paths stay as recorded, and config.py, train.log and patches come along: nothing is lost, this machine's folders are told.

    Returns:
        The manifest.

    Raises:
        StoreError: nothing to export; ``target`` holds another study's archive or another record of a trial, or cannot be written.
    """
    if (target / MANIFEST).exists() and (other := read_manifest(target)["study"]) != study.name:
        raise StoreError(f"{target / MANIFEST}: the archive of study '{other}' is there: choose another folder for '{study.name}'")
    if not export_records(store, study.name, trial_ids, target, as_is=as_is):
        raise StoreError(f"{store.root}: has no record of study '{study.name}'; run it first, or name its folder with --store")
    try:
        return _complete(store, study, trial_ids, target, _wanted(detections, as_is), as_is)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(target)
    sync_folders(target)


def _wanted(detections: bool, as_is: bool) -> tuple[str, ...]:
    files = ("probe.npz", *(("detections.json.gz",) if detections else ()))
    return (*files, "config.py", "train.log", "uncommitted*.patch") if as_is else files


def _complete(store: Store, study: Study, trial_ids: Sequence[str], target: Path, patterns: Sequence[str], as_is: bool) -> dict[str, Any]:
    there = Store(target)
    cells = dict(zip(trial_ids, [(cell.key, cell.name, seed) for cell in study.cells for seed in cell.seeds], strict=True))
    known = [trial_id for trial_id in trial_ids if there.journal(trial_id).size()]
    run_ids: RunIds = {}
    for trial_id in known:
        for number, past in records_of(store, trial_id):
            _copy_files(past.trial_dir(trial_id), _folder(there, trial_id, number), patterns)
            run_ids[trial_id, number] = original_run(past.trial_dir(trial_id), study.name)
    counts = write_tables(there, known, cells, run_ids, study.name)
    files = [name for name in members(target) if _is_of(name, study.name, set(known))]
    return write_manifest(target, _content(store, study, there, known, cells, run_ids, counts, as_is), files)


def original_run(folder: Path, study: str) -> str | None:
    """The MLflow run of a record: the one that it had where it was first delivered; None where it never was."""
    origin = (read_json(folder / ORIGIN) or {}).get(study)
    return origin or (read_json(folder / "mlflow.json") or {}).get(study, {}).get("run_id")


def _folder(there: Store, trial_id: str, number: int) -> Path:
    stores = there.earlier(trial_id)
    return stores.get(number, there).trial_dir(trial_id)


def _copy_files(source: Path, target: Path, patterns: Sequence[str]) -> None:
    for path in (path for pattern in patterns for path in sorted(source.glob(pattern))):
        there = target / path.name
        if not there.exists() or digest(there) != digest(path):
            copy_whole(path, there)


def _is_of(name: str, study: str, trials: set[str]) -> bool:
    parts = name.split("/")
    return len(parts) == 1 or (parts[0] == "trials" and parts[1] in trials) or (parts[0] == "studies" and parts[1] == study)


def _content(
    store: Store,
    study: Study,
    there: Store,
    known: Sequence[str],
    cells: Cells,
    run_ids: RunIds,
    counts: dict[str, int],
    as_is: bool,
) -> dict[str, Any]:
    records = {trial_id: there.record(trial_id) for trial_id in known}
    return {
        "study": study.name,
        "made": time.time(),
        "salt_lab": salt_lab.__version__,
        "paths": "as recorded" if as_is else "without folders",
        "study_file": {"name": Path(study.source).name, "text": _text(Path(study.source)), "overrides": list(study.overrides)},
        "code_versions": sorted({code for record in records.values() for code in record.code_versions}),
        "training_codes": sorted({code for record in records.values() for code in record.training_codes}),
        "counts": {**counts, "trials": len(known), "launches": len(store.launches(study.name))},
        "trials": [
            {
                "trial_id": trial_id,
                "record": number,
                "state": records[trial_id].state if number == records[trial_id].number else "set aside",
                **dict(zip(("cell", "name", "seed"), cells[trial_id], strict=True)),
                "run_id": run_id,
            }
            for (trial_id, number), run_id in run_ids.items()
        ],
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
