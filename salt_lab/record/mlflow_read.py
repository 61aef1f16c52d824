"""Records out of MLflow, where its database is all that there is: each run of a trial as a :class:`Record`, without its curves.

An SQLite file is read directly and read-only: 10,000 runs take about a second. Servers and other databases are asked through MLflow's own
client, which takes about 3 ms and 35 KB a run. What MLflow is not told (the input size of GFLOPs and inference time) is not known here.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from salt_lab.errors import StoreError
from salt_lab.record import rows
from salt_lab.record.fold import COCO_NAMES, Record
from salt_lab.record.tracking import check_server, sqlite_path
from salt_lab.spec.trial import unflatten

_COSTS = ("parameters", "gflops", *rows.SPENT)
_LIVE = "FROM {table} t JOIN runs r USING (run_uuid) WHERE r.experiment_id = ? AND r.lifecycle_stage = 'active'"


class StoredRun(NamedTuple):
    """A run as MLflow has it: times in unix seconds, metrics with their newest value."""

    run_id: str
    started: float | None
    ended: float | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]

    @classmethod
    def of(cls, run: Any) -> StoredRun:
        """From a run of MLflow's client."""
        info, data = run.info, run.data
        return cls(info.run_id, _seconds(info.start_time), _seconds(info.end_time), data.params, data.tags, data.metrics)


def mlflow_records(uri: str, study: str, *, params: bool = True) -> dict[str, Record]:
    """Trial id -> the latest record of every trial in the study's experiment. Writes nothing.

    Args:
        uri: MLflow's tracking URI.
        study: the experiment's name.
        params: also ``trial`` and ``built.effective``; without them an SQLite file is read twice as fast.

    Raises:
        StoreError: MLflow cannot be reached or read, or has no experiment of the study's name.
    """
    check_server(uri)
    latest: dict[str, Record] = {}
    for run in _sqlite_runs(uri, study, params) if uri.startswith("sqlite") else _client_runs(uri, study):
        if run.tags.get("salt_lab.kind") == "trial" and (trial_id := run.tags.get("salt_lab.trial_id")):
            record = record_of(trial_id, run)
            if trial_id not in latest or latest[trial_id].number <= record.number:
                latest[trial_id] = record
    return latest


def record_of(trial_id: str, run: StoredRun) -> Record:
    """A trial's run as its record: everything but ``epochs``, ``evals``, ``rungs`` and what MLflow is not told."""
    tags = {name.removeprefix("salt_lab."): text for name, text in run.tags.items() if name.startswith("salt_lab.")}
    done = tags.get("state") == "done"
    return Record(
        trial_id,
        state=tags.get("state", "interrupted"),
        trial=_trial({name: text for name, text in run.params.items() if not name.startswith("effective.")}),
        study=tags.get("study"),
        launch_id=tags.get("launch_id"),
        attempt=int(tags.get("attempt", 1)),
        metrics={name: run.metrics.get(name) for name in COCO_NAMES} if done else None,
        built={"effective": {name[10:]: _value(text) for name, text in run.params.items() if name.startswith("effective.")}},
        cost={name: run.metrics[name] for name in _COSTS if name in run.metrics},
        provenance=_provenance(tags),
        reason=tags.get("reason") or None,
        run_id=run.run_id,
        data_fingerprint=tags.get("data_fingerprint"),
        code_versions=_versions(tags, "code_version"),
        training_codes=_versions(tags, "training_code"),
        number=rows.record_number(run.tags),
        started=run.started,
        time=run.ended or run.started,
    )


def _provenance(tags: Mapping[str, str]) -> dict[str, Any]:
    known = {
        key: _value(tags[key]) if key == "git_dirty" else tags[key] for key in ("git_commit", "git_dirty", "diff_sha256") if key in tags
    }
    parts = {
        part: {key.split(".", 1)[1]: text for key, text in tags.items() if key.startswith(f"{name}.")}
        for name, part in (("package", "packages"), ("machine", "machine"))
    }
    return {**known, **parts, "python": tags.get("python")}


def _versions(tags: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(tags[name].split(", ")) if tags.get(name) else ()


def _trial(params: Mapping[str, str]) -> dict[str, Any]:
    return unflatten({name: _value(text) for name, text in params.items()})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _sqlite_runs(uri: str, study: str, params: bool = True) -> Iterable[StoredRun]:
    """Straight from the tables that MLflow 2 and 3 have: its client makes a million objects of 10,000 runs, in half a minute."""
    path = sqlite_path(uri)
    if not path.is_file():
        raise StoreError(f"MLflow at '{uri}': {path} is not there. Deliver the records first: salt-lab sync FOLDER --mlflow-uri {uri}")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT experiment_id FROM experiments WHERE name = ?", (study,)).fetchone()
            if found is None:
                raise _no_experiment(uri, study)
            return _assembled(database, found[0], ("params", "tags", "latest_metrics") if params else ("tags", "latest_metrics"))
    except sqlite3.Error as error:
        raise StoreError(f"MLflow at '{uri}': {path} cannot be read ({error}). Is it MLflow's database, of version 2 or 3?") from error


def _assembled(database: sqlite3.Connection, experiment: int, tables: Sequence[str]) -> list[StoredRun]:
    columns = "SELECT run_uuid, start_time, end_time FROM runs WHERE experiment_id = ? AND lifecycle_stage = 'active' ORDER BY start_time"
    runs = {run: StoredRun(run, _seconds(start), _seconds(end), {}, {}, {}) for run, start, end in database.execute(columns, (experiment,))}
    for table in tables:
        what = table.removeprefix("latest_")
        only = " AND NOT t.is_nan" if what == "metrics" else ""
        query = f"SELECT t.run_uuid, t.key, t.value {_LIVE.format(table=table)}{only}"
        for run, key, value in database.execute(query, (experiment,)):
            getattr(runs[run], what)[key] = value
    return list(runs.values())


def _client_runs(uri: str, study: str) -> Iterable[StoredRun]:
    from salt_lab.record.mlflow_store import stored_runs

    found = stored_runs(uri, study)
    if found is None:
        raise _no_experiment(uri, study)
    return found


def _no_experiment(uri: str, study: str) -> StoreError:
    from salt_lab.record.tracking import public

    return StoreError(f"MLflow at '{public(uri)}': has no experiment '{study}'. Deliver the study first: salt-lab sync FOLDER")


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
