"""The boxes behind a trial's matches (:mod:`salt_lab.report.matches`): the objects of its val split and its detections."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

from salt_lab.data.paths import coco_files
from salt_lab.errors import DataError, StoreError
from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.ground_truth import GroundTruth, load_truth
from salt_lab.spec.trial import CocoData

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.spec.trial import EmbeddedData

#: The file in a trial's folder, as training writes it.
DETECTIONS = "detections.json.gz"


class Truths:
    """Reads each data set once, however many trials share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, GroundTruth | DataError | StoreError] = {}

    def of(self, data: EmbeddedData | CocoData) -> GroundTruth:
        """The val objects of ``data``; the embedded set is drawn into the results folder where it is not there.

        Raises:
            DataError: the files are not here, or cannot be read.
            StoreError: the embedded set cannot be written.
        """
        key = data.model_dump_json()
        if key not in self._known:
            try:
                self._known[key] = load_truth(_val_json(data, self._store))
            except (DataError, StoreError) as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, GroundTruth):
            return found
        raise found


def _val_json(data: EmbeddedData | CocoData, store: Store) -> Path:
    if isinstance(data, CocoData):
        return coco_files(data).val_json
    from salt_lab.data.marks import generate

    return generate(data, store.data_dir).val_json


def read_detections(folder: Path) -> Detections:
    """The detections of the trial's last evaluation.

    Raises:
        StoreError: there are none, or the file is damaged; names it.
    """
    path = folder / DETECTIONS
    try:
        with gzip.open(path, "rt") as file:
            return Detections.from_rows(json.load(file))
    except FileNotFoundError:
        raise StoreError(f"{path}: no detections here. Copy the trial's folder from the machine that trained it") from None
    except (OSError, EOFError, ValueError, DataError) as error:
        raise StoreError(f"{path}: damaged ({error}). Copy it again from the machine that trained the trial") from error
