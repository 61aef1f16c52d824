"""What each finished trial's detections found, matched with its ground truth once: the ground that intervals over images stand on.

Two files are needed beside the record, the detections of the last evaluation and the annotations that they were evaluated with. Where one is not
here, or the two do not give the AP that the record says, there is a reason in words instead of an error: a table can be made wherever records are.
Reasons name files as they lie in the results folder, without the machine's own paths, so that they may be printed under a table.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
import os
import tempfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salt_lab.data import fingerprint, prepare
from salt_lab.data.paths import coco_files
from salt_lab.errors import DataError, SaltLabError, StoreError
from salt_lab.evaluate import detections, ground_truth, matching
from salt_lab.evaluate.accumulate import numbers
from salt_lab.evaluate.bootstrap import same_truth
from salt_lab.evaluate.ground_truth import GroundTruth, load_truth
from salt_lab.evaluate.matching import Matches, match
from salt_lab.record import COCO_NAMES, Record
from salt_lab.record.folded import brief_records
from salt_lab.spec.trial import CocoData, EmbeddedData, Trial

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults

#: A record's numbers and those of its files may differ by rounding alone, AP points.
TOLERANCE = 1e-6
DETECTIONS = "detections.json.gz"
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zlib.error)


class Found(dict[str, "Matches | str"]):
    """Trial id -> its matches, or why there are none. ``truths``: trial id -> fingerprint of the annotations that were used."""

    def __init__(self) -> None:
        super().__init__()
        self.truths: dict[str, str] = {}

    def matches(self, trial_id: str) -> Matches | None:
        """The trial's matches, or None."""
        found = self.get(trial_id)
        return None if isinstance(found, str) else found

    def why_not_paired(self, variant: str, baseline: str) -> str:
        """Why these two trials cannot be compared image by image, in words; "" where they can."""
        for trial_id in (variant, baseline):
            found = self.get(trial_id, "not among the study's trials")
            if isinstance(found, str):
                return f"trial {trial_id}: {found}"
        if self.truths[variant] != self.truths[baseline]:
            return f"trials {variant} and {baseline} were evaluated with different annotations: no image-by-image comparison"
        return same_truth(self[variant], self[baseline])  # type: ignore[arg-type]


def matches_of(results: StudyResults, store: Store, only: Collection[str] | None = None) -> Found:
    """Matches of the study's finished trials.

    What was matched once is kept in ``STORE/cache/matches`` under a name that says all it depends on (both files' content and the code that
    matches); the folder may be deleted at any time.

    Args:
        results: the study's records.
        store: the results folder that they are from.
        only: these trials alone; None = all.
    """
    found, reader = Found(), _Reader(store)
    trials = [trial for cell in results.study.cells for trial in cell.trials()]
    ids, states = list(results.frame["trial_id"]), list(results.frame["state"])
    here = [one if one and (store.trial_dir(one) / DETECTIONS).exists() else "" for one in ids]  # without them its record is not needed
    records = brief_records(store, here, results.study.name)
    for trial_id, state, trial, record in zip(ids, states, trials, records, strict=True):
        if not trial_id or trial_id in found or (only is not None and trial_id not in only):
            continue
        if state != "done":
            found[trial_id] = f"the trial is not finished ({state})"
            continue
        try:
            found[trial_id], found.truths[trial_id] = reader.matches(record if record.trial_id else Record(trial_id), trial)
        except SaltLabError as reason:
            found[trial_id] = str(reason)
    return found


@dataclass(frozen=True)
class _Truth:
    """Where annotations lie, and what their content is known by."""

    path: Path
    fingerprint: str


class _Reader:
    """Reads files of one results folder; annotations that several trials share are read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._truths: dict[str, _Truth | str] = {}
        self._loaded: dict[str, GroundTruth] = {}
        self._drawn: tempfile.TemporaryDirectory[str] | None = None

    def matches(self, record: Record, trial: Trial) -> tuple[Matches, str]:
        """The trial's matches and its annotations' fingerprint.

        Raises:
            SaltLabError: why there are none.
        """
        path = self._store.trial_dir(record.trial_id) / DETECTIONS
        try:
            packed = path.read_bytes()
        except OSError:
            raise DataError(
                f"no detections here (trials/{record.trial_id}/{path.name}; exports leave them out): use the results folder that it was trained in"
            ) from None
        truth = self._truth_of(record, trial)
        cached = self._store.root / "cache" / "matches" / f"{_digest(_code(), truth.fingerprint.encode(), packed)}.npz"
        found = _load(cached)
        if found is None:
            found = match(self._load_truth(truth), _rows(packed, record.trial_id))
            _save(cached, found)
        _check_numbers(found, record)
        return found, truth.fingerprint

    def _load_truth(self, truth: _Truth) -> GroundTruth:
        if truth.fingerprint not in self._loaded:
            self._loaded[truth.fingerprint] = load_truth(truth.path)
        return self._loaded[truth.fingerprint]

    def _truth_of(self, record: Record, trial: Trial) -> _Truth:
        """The annotations where the study says that they are, else where the record does."""
        wanted = [trial.data]
        with contextlib.suppress(ValueError):  # a record of a version that knew other fields: the study's word has to do
            wanted.append(Trial.model_validate(record.trial).data)
        reasons = []
        for data in wanted:
            key = f"{data.model_dump_json()} {record.data_fingerprint}"
            if key not in self._truths:
                self._truths[key] = self._find(data, record.data_fingerprint)
            found = self._truths[key]
            if isinstance(found, _Truth):
                return found
            reasons.append(found)
        raise DataError(reasons[0])

    def _find(self, data: EmbeddedData | CocoData, recorded: str | None) -> _Truth | str:
        try:
            return self._coco(data) if isinstance(data, CocoData) else self._embedded(data, recorded)
        except OSError:
            return "its annotations are not on this machine: check data.val, or the variable in it"
        except SaltLabError as error:
            return str(error)

    def _coco(self, data: CocoData) -> _Truth:
        path = coco_files(data).val_json
        return _Truth(path, hashlib.sha256(path.read_bytes()).hexdigest()[:16])

    def _embedded(self, data: EmbeddedData, recorded: str | None) -> _Truth:
        """The embedded set is drawn anew where it is not in the results folder; where that cannot be written, in a temporary one."""
        present = fingerprint(data)
        if recorded not in (None, present):
            raise DataError(
                f"it was trained on the embedded data set {recorded}, which this version does not draw any more (now {present})"
            )
        try:
            return _Truth(prepare(data, self._store.data_dir).val_json, present)
        except StoreError:
            self._drawn = self._drawn or tempfile.TemporaryDirectory(prefix="salt-lab-data-")
            return _Truth(prepare(data, Path(self._drawn.name)).val_json, present)


def _rows(packed: bytes, trial_id: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(gzip.decompress(packed))
        if isinstance(rows, list):
            return rows
    except _UNREADABLE:
        pass
    raise DataError(
        f"its detections cannot be read (trials/{trial_id}/detections.json.gz is damaged): take them from a copy, or train again"
    )


def _check_numbers(found: Matches, record: Record) -> None:
    """The two files must give the recorded numbers, or they are not what the record was made with."""
    here = numbers(found)._asdict()
    for name in COCO_NAMES:
        recorded = (record.metrics or {}).get(name)
        if recorded is not None and not math.isclose(here[name], recorded, rel_tol=0, abs_tol=TOLERANCE):
            raise DataError(
                f"detections and annotations here give {name} {here[name]:.3f}, its record {recorded:.3f}: one of the files is not the recorded one"
            )


@cache
def _code() -> bytes:
    """What decides matches besides the two files."""
    return b"".join(Path(str(module.__file__)).read_bytes() for module in (matching, ground_truth, detections))


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:24]


def _load(path: Path) -> Matches | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Matches(**{field.name: arrays[field.name] for field in fields(Matches)})
    except (*_UNREADABLE, TypeError):
        return None


def _save(path: Path, found: Matches) -> None:
    """A reader never sees half a file; a folder that cannot be written has no cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            np.savez_compressed(file, **_arrays(found))
        os.replace(file.name, path)
    except OSError:
        return


def _arrays(found: Matches) -> Mapping[str, Any]:
    return {field.name: getattr(found, field.name) for field in fields(Matches)}
