"""Taking a study archive in: into a results folder, from where it goes to MLflow as any record does.

The archive is verified and compared with what is there before anything is written. Records are compared line by line, absolute paths apart:
an equal one is left alone, the beginning of one grows, anything else is refused. Doing it twice changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from salt_lab.errors import StoreError
from salt_lab.record.archive import copy_whole, original_run
from salt_lab.record.archive_tables import records_of
from salt_lab.record.aside import EARLIER
from salt_lab.record.delivered import ORIGIN, digest
from salt_lab.record.export import portable
from salt_lab.record.journal import Journal, read_json, write_json, write_whole
from salt_lab.record.manifest import SIDE_FILES, verify
from salt_lab.record.store import Store

Lines = list[dict[str, Any]]


class Imported(NamedTuple):
    """What an import did: the study, its trials; how many records are new, have grown, or were there; files and launches written; ``kept``:
    files that differ from the archive's and were left as they are."""

    study: str
    trial_ids: tuple[str, ...]
    new: int
    grown: int
    same: int
    files: int
    launches: int
    kept: tuple[str, ...]
    study_file: Path | None

    def __str__(self) -> str:
        records = f"{self.new} new, {self.grown} grown, {self.same} there already"
        text = f"{self.study}: {len(self.trial_ids)} trials; records: {records}; {self.files} files, {self.launches} launches written"
        return text + "".join(f"\nkept as it is, the archive has another: {name}" for name in self.kept)


def import_archive(folder: Path, store: Store) -> Imported:
    """Take the archive in ``folder`` into a results folder.

    Raises:
        StoreError: the archive is damaged or foreign (the file is named), or the results folder holds another record of a trial or another
            launch of the same name; nothing was written then. Or the results folder cannot be written.
        TrialBusy: a trial of the archive is being run.
    """
    manifest = verify(folder)
    source, trial_ids = Store(folder), tuple(dict.fromkeys(entry["trial_id"] for entry in manifest["trials"]))
    if store.root == source.root:
        raise StoreError(f"{folder}: is the results folder itself: name another one with --store")
    _check_launches(source, store, manifest)
    for trial_id in trial_ids:
        _compare(source, store, trial_id)
    store.check_writable()
    try:
        return _write(source, store, manifest, trial_ids)
    except OSError as error:
        raise StoreError(
            f"{error.filename or store.root}: cannot be written: {error.strerror}. What is written is whole: import again"
        ) from error


def _compare(source: Store, store: Store, trial_id: str) -> None:
    """Refuse an archive whose records contradict those that are there."""
    store.recover(trial_id)
    ours = _journals(store, trial_id)
    for number, journal in _journals(source, trial_id).items():
        if number in ours:
            _missing(ours[number], journal)
    if store.is_running(trial_id):
        with store.lock(trial_id):  # says by whom
            pass


def _journals(store: Store, trial_id: str) -> dict[int, Journal]:
    return {number: past.journal(trial_id) for number, past in records_of(store, trial_id)}


def _missing(ours: Journal, theirs: Journal) -> Lines:
    """The lines that ours lacks; empty where it has them all, and perhaps more."""
    mine, lines = ours.read(), theirs.read()
    common = min(len(mine), len(lines))
    if portable(mine[:common]) != portable(lines[:common]):
        at = next(i for i in range(common) if portable(mine[i]) != portable(lines[i]))
        raise StoreError(
            f"{theirs.path}: line {at + 1} ('{lines[at]['event']}') differs from {ours.path}: another training of the same trial. Nothing was "
            f"written. Import into another results folder: --store FOLDER"
        )
    return lines[common:]


def _check_launches(source: Store, store: Store, manifest: dict[str, Any]) -> None:
    for launch in source.launches(manifest["study"]):
        there = store.launch(manifest["study"], launch["launch_id"])
        if there is not None and portable(there) != portable(launch):
            raise StoreError(
                f"{source.study_dir(manifest['study'])}: launch {launch['launch_id']} differs from the one in {store.root}. Nothing was written. "
                "Import into another results folder: --store FOLDER"
            )


def _write(source: Store, store: Store, manifest: dict[str, Any], trial_ids: Sequence[str]) -> Imported:
    launches = sum(_write_launch(source, store, launch) for launch in source.launches(manifest["study"]))
    origins = {(entry["trial_id"], entry["record"]): entry.get("run_id") for entry in manifest["trials"]}
    done = {"new": 0, "grown": 0, "same": 0}
    files, kept = 0, []
    for trial_id in trial_ids:
        for number, past in records_of(source, trial_id):
            _make_room(store, trial_id, number)
            with store.lock(trial_id):
                what = _write_record(store, trial_id, number, past.journal(trial_id))
                there = _folder(store, trial_id, number)
                written, left = _write_files(past.trial_dir(trial_id), there, changed=what != "same")
                _remember_origin(there, manifest["study"], origins.get((trial_id, number)))
            done[what] += 1
            files += written
            kept += left
    study_file = _write_study_file(store, manifest)
    return Imported(manifest["study"], tuple(trial_ids), **done, files=files, launches=launches, kept=tuple(kept), study_file=study_file)


def _make_room(store: Store, trial_id: str, number: int) -> None:
    """Set the present record aside where the archive says that another follows it."""
    present = store.record(trial_id)
    if present.state != "new" and present.number < number:
        store.set_aside(trial_id, present.number)


def _folder(store: Store, trial_id: str, number: int) -> Path:
    folder = store.trial_dir(trial_id)
    return folder / EARLIER / str(number) if number in store.earlier(trial_id) else folder


def _write_record(store: Store, trial_id: str, number: int, theirs: Journal) -> str:
    """Write what is missing of one record, the trial's lock held: "new", "grown" or "same"."""
    ours = Journal(_folder(store, trial_id, number) / "record.jsonl")
    before = ours.size()
    if missing := _missing(ours, theirs):
        ours.extend(missing)
    return "same" if not missing else "grown" if before else "new"


def _write_files(source: Path, target: Path, *, changed: bool) -> tuple[int, list[str]]:
    """Copy the record's files: those that are not there; all that differ where the record has just come or grown. Returns how many, and
    which were kept although they differ."""
    written, kept = 0, []
    for path in (path for pattern in SIDE_FILES for path in sorted(source.glob(pattern))):
        there = target / path.name
        if there.exists() and digest(there) == digest(path):
            continue
        if there.exists() and not changed:
            kept.append(str(there))
            continue
        copy_whole(path, there)
        written += 1
    return written, kept


def _remember_origin(folder: Path, study: str, run_id: str | None) -> None:
    if run_id and original_run(folder, study) is None:
        write_json(folder / ORIGIN, {**(read_json(folder / ORIGIN) or {}), study: run_id})


def _write_launch(source: Store, store: Store, launch: dict[str, Any]) -> bool:
    there = store.study_dir(launch["study"]) / "launches" / f"{launch['launch_id']}.json"
    ended = source.launch_ended(launch["study"], launch["launch_id"])
    if ended is not None and not there.with_suffix(".end").exists():
        write_json(there.with_suffix(".end"), {"time": ended})
    if there.exists():
        return False
    write_json(there, launch)
    return True


def _write_study_file(store: Store, manifest: dict[str, Any]) -> Path | None:
    """The study's file into its folder, so that its table can be asked for; None where the archive has none or another is there."""
    name, text = os.path.basename(str(manifest["study_file"].get("name") or "")), manifest["study_file"].get("text")
    if not name or not isinstance(text, str):
        return None
    path = store.study_dir(manifest["study"]) / name
    if not path.exists():
        write_whole(path, text)
    return path if path.read_text(encoding="utf-8") == text else None
