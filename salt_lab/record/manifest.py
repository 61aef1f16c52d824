"""``manifest.json`` of a study archive: what is in it, and how to tell that all of it is there, unchanged, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_lab.errors import StoreError
from salt_lab.record.delivered import digest
from salt_lab.record.journal import Journal, write_json

MANIFEST = "manifest.json"
FORMAT, VERSION = "salt-lab study archive", 1
#: Files of a trial that an archive may hold beside its journal.
SIDE_FILES = ("probe.npz", "detections.json.gz", "config.py", "train.log", "uncommitted*.patch")
_FILES = r"(record\.jsonl|probe\.npz|detections\.json\.gz|config\.py|train\.log|uncommitted[^/]*\.patch)"
_TRIAL_FILE = rf"trials/(?P<trial>[^/]+)/(earlier/[1-9]\d*/)?{_FILES}"
_LAUNCH = r"studies/[^/]+/launches/[^/]+\.(json|end)"
_MEMBER = re.compile(rf"{_TRIAL_FILE}|{_LAUNCH}|trials\.parquet|points\.parquet")
_AGAIN = "Copy the archive again, or export it anew: salt-lab export STUDY FOLDER"


def members(folder: Path) -> list[str]:
    """Relative paths of everything in ``folder`` that belongs to an archive, sorted; what others put beside it (a README) does not."""
    found = [path for room in ("trials", "studies") for path in (folder / room).rglob("*") if path.is_file() or path.is_symlink()]
    found += [path for name in ("trials.parquet", "points.parquet") if (path := folder / name).is_file()]
    names = [path.relative_to(folder).as_posix() for path in found]
    return sorted(name for name in names if not Path(name).name.startswith(".") and Path(name).name != "lock")


def write_manifest(folder: Path, content: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """Write the manifest, with sizes and sha256 of ``files``; returns it."""
    listed = {name: {"bytes": (folder / name).stat().st_size, "sha256": digest(folder / name)} for name in files}
    manifest = {"format": FORMAT, "version": VERSION, **content, "files": listed}
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest as it is; its files are not looked at.

    Raises:
        StoreError: names the file and what is wrong: there is none, it is damaged, foreign, or of a later version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        remedy = (
            "A results folder is delivered with salt-lab sync FOLDER" if (folder / "trials").is_dir() else "Name the folder of an export"
        )
        raise StoreError(f"{path}: is not there, so {folder} is no study archive. {remedy}")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(f"{path}: damaged, it is no JSON ({error}). {_AGAIN}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise StoreError(f"{path}: is no manifest of a study archive ('format' is not '{FORMAT}')")
    if found.get("version") != VERSION:
        raise StoreError(f"{path}: version {found.get('version')!r}, and this salt-lab reads {VERSION}: update salt-lab")
    if problem := _malformed(found):
        raise StoreError(f"{path}: damaged: {problem}. {_AGAIN}")
    return found


def verify(folder: Path) -> dict[str, Any]:
    """The manifest, after every file of the archive was read and found as listed. Writes nothing.

    Raises:
        StoreError: names the first file that is missing, changed, not listed, of no archive, or the journal of another trial.
    """
    manifest = read_manifest(folder)
    listed: dict[str, dict[str, Any]] = manifest["files"]
    for name, expected in sorted(listed.items()):
        _verify_file(folder, name, expected)
    if strangers := sorted(set(members(folder)) - set(listed)):
        raise StoreError(f"{folder / strangers[0]}: is not in {MANIFEST}: not of this archive. Remove it, or export anew")
    for trial in manifest["trials"]:
        if f"trials/{trial['trial_id']}/record.jsonl" not in listed:
            raise StoreError(f"{folder / MANIFEST}: trial {trial['trial_id']} has no journal among the files. {_AGAIN}")
    return manifest


def _malformed(manifest: Mapping[str, Any]) -> str | None:
    shapes = {"study": str, "files": dict, "trials": list, "study_file": dict, "counts": dict}
    wrong = [name for name, kind in shapes.items() if not isinstance(manifest.get(name), kind)]
    if wrong:
        return f"'{wrong[0]}' is missing or of another kind"
    if not all(isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for entry in manifest["files"].values()):
        return "'files' lacks sizes or hashes"
    if not all(isinstance(entry, dict) and {"trial_id", "record"} <= entry.keys() for entry in manifest["trials"]):
        return "'trials' lacks ids or record numbers"
    return None


def _verify_file(folder: Path, name: str, expected: Mapping[str, Any]) -> None:
    path, member = folder / name, _MEMBER.fullmatch(name)
    if member is None or ".." in Path(name).parts:
        raise StoreError(f"{folder / MANIFEST}: lists '{name}', which is no file of a study archive. {_AGAIN}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise StoreError(f"{path}: is a link to a file outside of the archive. {_AGAIN}")
    if not path.is_file():
        raise StoreError(f"{path}: listed in {MANIFEST} and not there. {_AGAIN}")
    if path.stat().st_size != expected["bytes"] or digest(path) != expected["sha256"]:
        raise StoreError(f"{path}: damaged: not the file that was exported (its size or sha256 differs from {MANIFEST}). {_AGAIN}")
    if name.endswith("record.jsonl") and any(line.get("trial_id", member["trial"]) != member["trial"] for line in Journal(path).read()):
        raise StoreError(f"{path}: is the journal of another trial. {_AGAIN}")
