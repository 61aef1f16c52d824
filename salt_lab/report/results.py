"""Records of a study -> one pandas frame, a row per trial. Reads journals only, never configs, checkpoints or logs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from salt_lab.data import fingerprint
from salt_lab.errors import DataError
from salt_lab.record import COCO_NAMES as METRICS
from salt_lab.record import Record, Store
from salt_lab.record.folded import brief_records
from salt_lab.report.evidence import SEVERAL
from salt_lab.spec.trial import Trial, canonical, trial_id, without_folders

if TYPE_CHECKING:
    from salt_lab.spec.study import Cell, Study

__all__ = ["COST", "METRICS", "StudyResults", "label_keys", "load_results", "load_results_from_mlflow"]

COST = ("parameters", "gflops", "train_seconds", "peak_memory_mb", "train_images_per_second", "inference_ms")


@dataclass(frozen=True)
class StudyResults:
    """What the records say about a study.

    ``frame`` has a row per trial, in the study's order, whatever its state. Columns: ``cell`` (key), the study's dotted label keys, ``seed``,
    ``state`` (new | running | interrupted | failed | stopped | done), ``reason``, ``trial_id`` ("" when it cannot be known), ``run_id`` (MLflow,
    or None),
    the twelve :data:`METRICS` (percent; NaN unless done, or where COCO leaves them undefined), ``parameters``, ``gflops``, ``train_seconds``,
    ``peak_memory_mb``, ``train_images_per_second``, ``inference_ms`` (NaN where a record has none), ``input_size`` ("height x width" in pixels,
    of ``gflops`` and ``inference_ms``; None before the model was built), and the evidence: ``commit`` (with uncommitted
    changes), ``code`` (hash of the package's sources; several when it changed between attempts),
    ``training_code`` (the same of the code that decides a result: :mod:`salt_lab.record.training_code`), ``data_fingerprint``, ``look`` (the
    annotation file's name where these are looks at it: :mod:`salt_lab.train.look`; None), ``machine``, ``time`` (unix seconds of the last event).
    """

    study: Study
    frame: pd.DataFrame

    @property
    def label_keys(self) -> tuple[str, ...]:
        """Dotted keys in which the study's cells differ, in order of first appearance."""
        return label_keys(self.study.cells)

    def trials_of(self, cell_key: str) -> pd.DataFrame:
        """The rows of one cell, a row per seed."""
        return self.frame.iloc[self._positions.get(cell_key, [])]

    def rows_of(self, cell_key: str) -> list[dict[str, Any]]:
        """The same as plain mappings, column -> value: made once for all cells, so a thousand cells take no longer than one."""
        return [self._rows[position] for position in self._positions.get(cell_key, [])]

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return self.frame.to_dict("records")

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for position, cell in enumerate(self.frame["cell"]):
            found.setdefault(cell, []).append(position)
        return found


def label_keys(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Union of the cells' label keys, in order of first appearance."""
    return tuple(dict.fromkeys(key for cell in cells for key in cell.label))


def load_results(study: Study, store: Store) -> StudyResults:
    """Read every trial of ``study`` from ``store``; trials never started appear with state ``new``.

    Where the data set or the weights are not on this machine, a trial is found by what its record says was run
    instead of by its id, so a table can be made wherever the records are.
    """
    lookup = _TrialLookup(study.name, lambda: brief_records(store, store.trial_ids()))
    return _results(study, lookup, lambda identities: brief_records(store, identities, study.name))


def load_results_from_mlflow(study: Study, uri: str) -> StudyResults:
    """The same from the study's experiment in MLflow alone, where there is no results folder. ``input_size`` is None: MLflow is not told.

    10,000 runs in an SQLite file take seconds; of a server half a minute.

    Raises:
        StoreError: MLflow cannot be reached, or has no such experiment.
    """
    from salt_lab.record.mlflow_read import mlflow_records

    records = mlflow_records(uri, study.name, params=False)
    return _results(
        study,
        _TrialLookup(study.name, lambda: mlflow_records(uri, study.name).values()),
        lambda ids: (records.get(one, Record(one)) for one in ids),
    )


def _results(study: Study, lookup: _TrialLookup, records_of: Callable[[list[str]], Iterable[Record]]) -> StudyResults:
    trials = [(cell, trial, lookup.id_of(trial)) for cell in study.cells for trial in cell.trials()]
    records = records_of([identity for _, _, identity in trials])
    rows = [_row(cell, trial, record) for (cell, trial, _), record in zip(trials, records, strict=True)]
    frame = pd.DataFrame(rows, columns=_columns(label_keys(study.cells)))
    return StudyResults(study, frame.astype(dict.fromkeys(METRICS + COST + ("time",), "float64")))


def _columns(keys: Sequence[str]) -> list[str]:
    evidence = ("commit", "code", "training_code", "data_fingerprint", "look", "machine", "time")
    return ["cell", *keys, "seed", "state", "reason", "trial_id", "run_id", *METRICS, *COST, "input_size", *evidence]


def _row(cell: Cell, trial: Trial, record: Record) -> dict[str, Any]:
    return {"cell": cell.key, **cell.label, "seed": trial.seed, "trial_id": record.trial_id, **_outcome(record), **_evidence(record)}


def _outcome(record: Record) -> dict[str, Any]:
    """State, numbers and cost. Only a finished trial has numbers: a failed one, or one stopped early, keeps its last evaluation to itself."""
    metrics = (record.metrics or {}) if record.state == "done" else {}
    return {
        "state": record.state,
        "reason": record.reason,
        "run_id": record.run_id,
        **{name: metrics.get(name) for name in METRICS},
        **{name: record.cost.get(name) for name in COST},
        "input_size": " x ".join(str(pixels) for pixels in record.built.get("input_size") or ()) or None,
    }


def _evidence(record: Record) -> dict[str, Any]:
    machine = record.provenance.get("machine") or {}
    known = record.state != "new"
    return {
        "commit": commit_text(record.provenance) if known else None,
        "code": SEVERAL.join(record.code_versions) or None,
        "training_code": SEVERAL.join(record.training_codes) or None,
        "data_fingerprint": record.data_fingerprint,
        "look": record.look["images"] if record.look else None,
        "machine": str(machine.get("gpu") or machine.get("cpu") or "unknown") if known else None,
        "time": record.time,
    }


def commit_text(provenance: Mapping[str, Any]) -> str:
    """The commit behind a record in a few words.

    >>> commit_text({"git_commit": "1a2b3c4d5e6f", "git_dirty": True})
    '1a2b3c4 + uncommitted changes'
    >>> commit_text({"git_commit": None})
    'no git'
    """
    commit = provenance.get("git_commit")
    return f"{str(commit)[:7]}{' + uncommitted changes' if provenance.get('git_dirty') else ''}" if commit else "no git"


class _TrialLookup:
    """Finds a trial's id: by hash, or, where its data or weights are not on this machine, among the study's records."""

    def __init__(self, study: str, everything: Callable[[], Iterable[Record]]) -> None:
        self._study, self._everything = study, everything
        self._fingerprints: dict[str, str | None] = {}
        self._recorded: list[Record] | None = None

    def id_of(self, trial: Trial) -> str:
        """The 12-digit id, or "" when it cannot be computed here and no record is of this trial."""
        data_print = self._fingerprint(trial)
        if data_print is not None and not _weights_are_elsewhere(trial):
            return trial_id(trial, data_print)
        return self._search(trial, data_print)

    def _fingerprint(self, trial: Trial) -> str | None:
        key = trial.data.model_dump_json()
        if key not in self._fingerprints:
            try:
                self._fingerprints[key] = fingerprint(trial.data)
            except DataError:
                self._fingerprints[key] = None
        return self._fingerprints[key]

    def _search(self, trial: Trial, data_print: str | None) -> str:
        """The latest record of this study whose trial reads the same, folders apart; its data must be the same where that can be known."""
        if self._recorded is None:
            self._recorded = sorted(
                (record for record in self._everything() if record.study == self._study), key=lambda record: record.started or 0.0
            )
        wanted = without_folders(canonical(trial))
        found = [r.trial_id for r in self._recorded if without_folders(r.trial) == wanted and data_print in (None, r.data_fingerprint)]
        return found[-1] if found else ""


def _weights_are_elsewhere(trial: Trial) -> bool:
    init = trial.backbone.init
    return init is not None and init != "host" and "://" not in init and not os.path.isfile(init)
