"""MLflow's only door: an experiment per study, a parent run per launch, a nested run per trial, fed from the results folder.

One process (the driver) delivers; trials write the folder only. Every delivery asks first what is there and sends what is missing, so a lost
answer, a dead server or a second ``sync`` costs time and nothing else. Runs are found by tag; MLflow's ambient "active run" is never used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from salt_lab.errors import StoreError
from salt_lab.record import mlflow_view, rows
from salt_lab.record.deliver import UNFILED, Deliverer
from salt_lab.record.lock import exclusive
from salt_lab.record.mlflow_read import StoredRun
from salt_lab.record.store import Store
from salt_lab.record.tracking import check_server, public, sqlite_path, tracking_uri, worded

__all__ = ["MlflowRuns", "MlflowStore", "Run", "SyncReport", "check_server", "sync", "tracking_uri"]

#: MLflow as we need it: no telemetry, no minutes of retries against a dead server, no URLs printed into the progress display.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
#: A log_batch takes at most 100 params, 100 tags, 1000 metrics and 1000 of them all.
BATCH, METRIC_BATCH = 100, 800


class MlflowStore(Deliverer):
    """Delivers a results folder to one MLflow store; what it does is said at :class:`~salt_lab.record.deliver.Deliverer`."""

    def __init__(self, store: Store, uri: str | None = None) -> None:
        """Open MLflow (1-7 s: its import, and its tables when the SQLite file is new).

        Args:
            store: the results folder.
            uri: MLflow's tracking URI; default :func:`tracking_uri`.

        Raises:
            StoreError: MLflow is not installed, or its store cannot be opened.
        """
        uri = uri or tracking_uri(store)
        super().__init__(store, uri, MlflowRuns(store.root, uri))


class SyncReport(NamedTuple):
    """What a ``sync`` found (studies, launches, trials with a record) and sent (trials with news, numbers, files); trial -> why it failed."""

    studies: int
    launches: int
    trials: int
    changed: int
    points: int
    artifacts: int
    failures: dict[str, str]

    def __str__(self) -> str:
        found = f"{self.trials} trials of {self.studies} studies ({self.launches} launches): "
        sent = f"{self.changed} had news ({self.points} numbers, {self.artifacts} files sent)" if self.changed else "MLflow had everything"
        return found + sent + "".join(f"\nnot delivered: {name}: {reason}" for name, reason in self.failures.items())


def sync(store: Store, uri: str | None = None, *, study: str | None = None, trial_ids: Sequence[str] = ()) -> SyncReport:
    """Deliver every study, launch and trial of a results folder. Doing it twice changes nothing.

    Args:
        store: the results folder.
        uri: MLflow's tracking URI; default :func:`tracking_uri`.
        study: deliver this study's launches only, and ``trial_ids`` into its experiment.
        trial_ids: see ``study``.

    Raises:
        StoreError: MLflow cannot be reached or opened. What fails later is in the report.
    """
    uri = uri or tracking_uri(store)
    check_server(uri)
    mlflow = MlflowStore(store, uri)
    failures: dict[str, str] = {}
    studies, launches, claimed = [study] if study else store.study_names(), 0, set()
    for name in studies:
        for launch in store.launches(name):
            launches += 1
            claimed |= {(name, trial["trial_id"]) for trial in launch["trials"]}
            try:
                mlflow.open_launch(name, launch["launch_id"])
                complete = mlflow.close_launch()
            except StoreError as error:
                complete, mlflow.last_error = False, str(error)
            if not complete:
                failures[f"{name} {launch['launch_id']}"] = mlflow.last_error or "unknown"
        if store.launches(name) and not mlflow.deliver_report(name):
            failures[f"{name} tables"] = mlflow.last_error or "unknown"
    trial_ids = trial_ids if study else store.trial_ids()
    for trial_id in trial_ids:
        where = study or store.record(trial_id).study or UNFILED
        if (where, trial_id) not in claimed and not mlflow.deliver(trial_id, where):
            failures[trial_id] = mlflow.last_error or "unknown"
    counts = (len(mlflow.sent), mlflow.runs.points_sent, mlflow.artifacts_sent)
    return SyncReport(len(studies), launches, len(trial_ids), *counts, failures)


def deliver_report(store: Store, uri: str, study: str) -> bool:
    """Put the study's tables and pictures beside its latest launch in MLflow. Returns whether that worked; the next ``sync`` tries again."""
    try:
        return not store.launches(study) or MlflowStore(store, uri).deliver_report(study)
    except StoreError:
        return False


@dataclass
class Run:
    """What MLflow has of a run, as far as asked. ``points``: (metric name, step) -> newest value; None until asked for."""

    run_id: str
    status: str
    params: set[str]
    tags: dict[str, str]
    points: dict[tuple[str, int], float] | None = None


class MlflowRuns:
    """Runs in one MLflow store, by tag. ``root`` is the results folder: new experiments keep files there, and a lock in it orders what makes things.

    Attributes:
        points_sent: number of metric values sent.
    """

    def __init__(self, root: Path, uri: str) -> None:
        self._root, self.uri, self.points_sent = root, uri, 0
        self._experiments: dict[str, str] = {}
        self._inside = False
        with self.errors(), self._one_at_a_time():
            self._client = _open_client(uri)

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Whatever MLflow raises in the block becomes a StoreError that names the URI."""
        return worded(self.uri)

    def search(self, study: str, **tags: str) -> list[Run]:
        """The study's runs with these tags (names without the ``salt_lab.`` before them), oldest first."""
        words = " and ".join(f"tags.`salt_lab.{key}` = '{value}'" for key, value in tags.items())
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment(study)], words, order_by=["attributes.start_time ASC"], page_token=token)
            found += page
            if not (token := page.token):
                return [Run(run.info.run_id, run.info.status, set(run.data.params), dict(run.data.tags)) for run in found]

    def find_or_create(self, study: str, name: str, started: float | None, tags: dict[str, str], by: tuple[str, ...]) -> Run:
        """The study's run whose tags ``by`` are those of ``tags``; made, RUNNING since ``started`` (unix seconds), where there is none."""
        with self._one_at_a_time():
            found = self.search(study, **{key: tags[f"salt_lab.{key}"] for key in by})
            found = [run for run in found if rows.record_number(run.tags) == rows.record_number(tags)]
            if found:
                return found[0]
            run = self._client.create_run(self._experiment(study), start_time=_ms(started), tags=tags, run_name=name)
            return Run(run.info.run_id, run.info.status, set(), dict(tags), {})

    def send(self, run: Run, params: dict[str, str], points: list[rows.Point], tags: dict[str, str]) -> bool:
        """Send what the run lacks (params and points are never changed in MLflow, tags are). Returns whether anything was sent."""
        from mlflow.entities import Metric, Param, RunTag

        if points and run.points is None:
            run.points = self._history(run, {point.name for point in points})
        new = rows.missing(points, run.points or {})
        metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in new]
        news = [Param(key, value) for key, value in params.items() if key not in run.params]
        labels = [RunTag(key, value) for key, value in tags.items() if run.tags.get(key) != value]
        while metrics or news or labels:
            self._client.log_batch(run.run_id, metrics=metrics[:METRIC_BATCH], params=news[:BATCH], tags=labels[:BATCH])
            metrics, news, labels = metrics[METRIC_BATCH:], news[BATCH:], labels[BATCH:]
        changed = bool(new) or not set(params) <= run.params or not tags.items() <= run.tags.items()
        run.params |= set(params)
        run.tags |= tags
        if run.points is not None:
            run.points |= {(point.name, point.step): point.value for point in new}
        self.points_sent += len(new)
        return changed

    def send_final(self, run: Run, points: list[rows.Point]) -> bool:
        """Send final numbers that the run lacks or has differently, whatever of its other points is known. Returns whether any was sent."""
        from mlflow.entities import Metric

        new = rows.missing(points, self._history(run, {point.name for point in points}))
        if new:
            self._client.log_batch(run.run_id, metrics=[Metric(point.name, point.value, point.time_ms, point.step) for point in new])
        self.points_sent += len(new)
        return bool(new)

    def set_status(self, run: Run, status: str, ended: float | None) -> None:
        """RUNNING, FINISHED, FAILED or KILLED, since ``ended`` (unix seconds). Nothing is sent where the run has it already."""
        if run.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(run.run_id, status=status)
        else:
            self._client.set_terminated(run.run_id, status, end_time=_ms(ended))
        run.status = status

    def files(self, run: Run) -> dict[str, int]:
        """The run's artifacts: name -> bytes."""
        return {info.path: info.file_size for info in self._client.list_artifacts(run.run_id)}

    def put_file(self, run: Run, path: Path, folder: str | None = None) -> None:
        """Keep a file as the run's artifact, under its name, in this folder of the artifacts."""
        self._client.log_artifact(run.run_id, str(path), folder)

    def rename(self, run: Run, name: str, old: str) -> None:
        """Call a run that is still called ``old`` by ``name``; whatever else somebody called it stays."""
        if run.tags.get("mlflow.runName") == old != name:
            self._client.update_run(run.run_id, name=name)
            run.tags["mlflow.runName"] = name

    def describe(self, study: str, question: str, keys: Sequence[str]) -> None:
        """Give the study's experiment its question and its view of the runs; what somebody changed there by hand stays."""
        identity = self._experiment(study)
        there = self._client.get_experiment(identity).tags
        for key, text in mlflow_view.experiment_tags(question, keys, int(time.time() * 1000)).items():
            if key == mlflow_view.VIEW_TAG and key in there:
                stale = mlflow_view.state_of(there[key]) != mlflow_view.view_state(keys)
            else:
                stale = bool(text) and key not in there
            if stale:
                self._client.set_experiment_tag(identity, key, text)

    def put_text(self, run: Run, text: str, name: str) -> None:
        """Keep a text as the run's artifact ``name``."""
        self._client.log_text(run.run_id, text, name)

    def _history(self, run: Run, names: set[str]) -> dict[tuple[str, int], float]:
        found = [metric for name in sorted(names) for metric in self._client.get_metric_history(run.run_id, name)]
        return {(metric.key, metric.step): metric.value for metric in sorted(found, key=lambda metric: metric.timestamp)}

    def _experiment(self, study: str) -> str:
        if study not in self._experiments:
            with self._one_at_a_time():
                found = self._client.get_experiment_by_name(study)
                if found is not None and found.lifecycle_stage == "deleted":
                    remedy = f"mlflow experiments restore --experiment-id {found.experiment_id}, or give the study another name"
                    raise StoreError(f"MLflow at '{public(self.uri)}': experiment '{study}' was deleted there. Restore it: {remedy}")
                self._experiments[study] = str(found.experiment_id if found else self._client.create_experiment(study, self._artifacts()))
        return self._experiments[study]

    def _artifacts(self) -> str | None:
        """Where a new experiment keeps its files: a server decides itself, an SQLite file's lie beside it."""
        if self.uri.startswith(("http:", "https:", "databricks")):
            return None
        folder = sqlite_path(self.uri).parent if self.uri.startswith("sqlite") else self._root
        return (folder / "mlflow_artifacts").as_uri()

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Two processes that make the tables of one new SQLite file at once break it for good; nor shall two make the same run."""
        if self._inside:
            yield
            return
        with exclusive(self._root / "mlflow.lock", "MLflow's store", wait=True):
            self._inside = True
            try:
                yield
            finally:
                self._inside = False


def stored_runs(uri: str, study: str) -> list[StoredRun] | None:
    """Every run of the study's experiment through MLflow's own client, oldest first; None where there is no such experiment."""
    with worded(uri):
        client = _open_client(uri)
        experiment = client.get_experiment_by_name(study)
        found: list[Any] = []
        token = None
        while experiment is not None:
            page = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"], page_token=token)
            found += [StoredRun.of(run) for run in page]
            if not (token := page.token):
                return found
        return None


def _open_client(uri: str) -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise StoreError(
            "MLflow is not installed: pip install mlflow, or run with --no-mlflow and deliver later: salt-lab sync FOLDER"
        ) from error
    if uri.startswith("sqlite"):
        sqlite_path(uri).parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)  # makes the tables of a new SQLite file, and meets a dead server here
    return client


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
