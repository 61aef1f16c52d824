"""What goes from the results folder to MLflow, and when: the rules. How MLflow is spoken to stands in :mod:`salt_lab.record.mlflow_store`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from salt_lab.errors import StoreError
from salt_lab.record import mlflow_view, rows
from salt_lab.record.delivered import ORIGIN, Delivered, digest
from salt_lab.record.fold import Record, fold
from salt_lab.record.journal import read_json
from salt_lab.record.pairs import baselines
from salt_lab.record.store import Store
from salt_lab.record.tracking import brief, public

if TYPE_CHECKING:
    from salt_lab.record.mlflow_store import MlflowRuns, Run

#: The experiment of trials that no study claims.
UNFILED = "unfiled"
#: Changes when MLflow is to be told more of a record than before: then every run is looked at once more. Nothing is sent twice.
FORM = "2"
SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
_log = logging.getLogger(__name__)


class Deliverer:
    """Delivers a results folder, trial by trial, whenever asked.

    ``deliver``, ``deliver_artifacts`` and ``close_launch`` never raise for MLflow's sake: they return False, ``last_error`` says why, and the
    next delivery catches up. After a failure MLflow is left alone for a while (5 s, doubling to 60 s): a dead server costs no training time.

    Attributes:
        sent: (study, trial id) of every trial of which something was sent.
        artifacts_sent: number of files sent.
        last_error: why the latest delivery that failed did.
    """

    def __init__(self, store: Store, uri: str, runs: MlflowRuns) -> None:
        self.store, self.uri, self.runs = store, uri, runs
        self.sent: set[tuple[str, str]] = set()
        self.artifacts_sent = 0
        self.last_error: str | None = None
        self._launch: tuple[str, str] | None = None
        self._launches: dict[str, dict[str, dict[str, Any]]] = {}
        self._baselines: dict[str, dict[str, str]] = {}
        self._variants: dict[str, dict[str, list[str]]] = {}
        self._parents: dict[str, Run] = {}
        self._trials: dict[tuple[str, str, int], Run] = {}
        self._seen: dict[tuple[str, str, int], str] = {}
        self._quiet_until, self._pause = 0.0, 0.0

    def open_launch(self, study_name: str, launch_id: str) -> str:
        """Make the study's experiment and the launch's parent run (found again where they are there), as the folder describes them.

        Returns:
            The parent's run id.

        Raises:
            StoreError: MLflow refuses, or the folder has no such launch.
        """
        self._launch = (study_name, launch_id)
        launches = self._read_launches(study_name)
        if launch_id not in launches:
            raise StoreError(
                f"{self.store.study_dir(study_name)}: no launch '{launch_id}' there. Launches: {', '.join(launches) or 'none'}"
            )
        with self.runs.errors():
            if not any(study == study_name for study, *_ in self._trials):
                found = reversed(self.runs.search(study_name, kind="trial"))
                self._trials |= {(study_name, run.tags["salt_lab.trial_id"], rows.record_number(run.tags)): run for run in found}
            labels = [trial.get("label") or {} for launch in launches.values() for trial in launch["trials"]]
            self.runs.describe(study_name, str(launches[launch_id].get("question") or ""), mlflow_view.toggles(labels))
            return self._parent(study_name, launch_id).run_id

    def deliver(self, trial_id: str, study: str | None = None) -> bool:
        """Send what the trial's journal has and MLflow has not; when the trial has ended also its status and artifacts.

        A trial that was trained again has a run for each of its records; those that were set aside are delivered as well.

        Args:
            trial_id: the trial.
            study: the experiment to deliver to; default the open launch's study, else the one that ran the trial.

        Returns:
            True when MLflow is up to date (nothing to send included).
        """
        return self._guarded(lambda: self._for_every_record(self._deliver, trial_id, study))

    def deliver_artifacts(self, trial_id: str, study: str | None = None) -> bool:
        """Send the trial's files that MLflow lacks or has differently. Returns like :meth:`deliver`, which does this at a trial's end."""
        return self._guarded(lambda: self._for_every_record(self._deliver_artifacts, trial_id, study))

    def close_launch(self) -> bool:
        """Deliver every trial of the open launch once more, then its status: FINISHED, FAILED, KILLED (trials are missing) or RUNNING.

        Returns:
            True when MLflow has everything.
        """
        if self._launch is None:
            raise ValueError("no launch is open: call open_launch first")
        study, launch_id = self._launch
        launch = self._launches[study][launch_id]
        trials = [trial["trial_id"] for trial in launch["trials"]]
        self._quiet_until = 0.0
        answers = [self.deliver(trial_id) and self.deliver_artifacts(trial_id) for trial_id in trials]
        records = [self._record_in(launch, trial_id) for trial_id in trials]
        status = rows.launch_status([record.state for record in records])
        ended = max([launch["time"], *(record.time for record in records if record.time)])
        return self._guarded(lambda: self.runs.set_status(self._parent(study, launch_id), status, ended)) and all(answers)

    def _study_of(self, trial_id: str, study: str | None) -> str:
        return study or (self._launch[0] if self._launch else None) or self.store.record(trial_id).study or UNFILED

    def _for_every_record(self, send: Callable[[str, str, Store], None], trial_id: str, study: str | None) -> None:
        where = self._study_of(trial_id, study)
        for store in (*self.store.earlier(trial_id).values(), self.store):
            send(trial_id, where, store)

    def _deliver(self, trial_id: str, study: str, store: Store) -> None:
        size, record = store.journal(trial_id).size(), store.record(trial_id)
        seen = f"{size} {record.state} {FORM}" + (" superseded" if store is not self.store else "")
        key = (study, trial_id, record.number)
        if record.state == "new" or self._seen.get(key) == seen:
            return
        run = self._trial_run(study, record)
        memory = Delivered(store.trial_dir(trial_id), study, self.uri, run.run_id)
        if memory.seen() != seen:
            superseded = {"salt_lab.superseded": "true"} if store is not self.store else {}
            if self.runs.send(run, rows.params(record), rows.points(record), {**self._tags(study, record), **superseded}):
                self.sent.add((study, trial_id))
            self.runs.set_status(run, rows.STATUS[record.state], record.time)
            self.runs.rename(run, *self._names(study, record))
            if record.state == "done" and store is self.store:
                self._deliver_deltas(study, trial_id)
            memory.remember()
        if record.state != "running":
            self._deliver_artifacts(trial_id, study, store)
        memory.remember(seen=seen)
        self._seen[key] = seen

    def _deliver_deltas(self, study: str, trial_id: str) -> None:
        """``delta_AP`` of a trial that is done, and of those whose baseline it is: whichever is done last brings it."""
        to_baseline = self._baselines.get(study, {})
        mine = [trial_id] if trial_id in to_baseline else []
        for variant in mine + self._variants.get(study, {}).get(trial_id, []):
            record = self.store.record(variant)
            points = rows.delta(record, self.store.record(to_baseline[variant]))
            if points and self.runs.send_final(self._trial_run(study, record), points):
                self.sent.add((study, variant))

    def deliver_report(self, study: str) -> bool:
        """Send the tables and pictures in the study's folder that MLflow lacks or has differently, to the latest launch's run, where one
        opens them beside the runs. Returns like :meth:`deliver`."""
        return self._guarded(lambda: self._deliver_report(study))

    def _deliver_report(self, study: str) -> None:
        latest = list(self._read_launches(study))[-1]
        run, folder = self._parent(study, latest), self.store.study_dir(study)
        memory = Delivered(folder, study, self.uri, run.run_id)
        files = {path: digest(path) for pattern in rows.REPORT for path in sorted(folder.glob(pattern))}
        for path, found in files.items():
            if memory.artifacts().get(path.name) != found:
                self.runs.put_file(run, path, "study")
                self.artifacts_sent += 1
        if files:
            memory.remember(artifacts={path.name: found for path, found in files.items()})

    def _deliver_artifacts(self, trial_id: str, study: str, store: Store) -> None:
        record = store.record(trial_id)
        if record.state == "new":
            return
        run, folder = self._trial_run(study, record), store.trial_dir(trial_id)
        memory = Delivered(folder, study, self.uri, run.run_id)
        remembered = memory.artifacts()
        files = {path.name: digest(path) for pattern in rows.ARTIFACTS for path in folder.glob(pattern)}
        news = sorted(name for name, found in files.items() if remembered.get(name) != found)
        there = self.runs.files(run) if news and not remembered else {}
        for name in news:
            if there.get(name) != (folder / name).stat().st_size:
                self.runs.put_file(run, folder / name)
                self.artifacts_sent += 1
                self.sent.add((study, trial_id))
        memory.remember(artifacts=files)

    def _trial_run(self, study: str, record: Record) -> Run:
        key = (study, record.trial_id, record.number)
        if key not in self._trials:
            tags, (name, _) = self._tags(study, record), self._names(study, record)
            self._trials[key] = self.runs.find_or_create(study, name, record.started, tags, ("kind", "trial_id"))
        return self._trials[key]

    def _tags(self, study: str, record: Record) -> dict[str, str]:
        launch = self._launch_of(study, record)
        parent = {"mlflow.parentRunId": self._parent(study, launch["launch_id"]).run_id} if launch else {}
        return {**rows.tags(record, study), **parent, **self._origin(study, record)}

    def _origin(self, study: str, record: Record) -> dict[str, str]:
        """The run id that an imported record had where it came from: MLflow chooses its run ids itself."""
        folder = self.store.earlier(record.trial_id).get(record.number, self.store).trial_dir(record.trial_id)
        origin = (read_json(folder / ORIGIN) or {}).get(study)
        return {"salt_lab.original_run_id": origin} if origin else {}

    def _names(self, study: str, record: Record) -> tuple[str, str]:
        """What a trial's run is called, and what it was called before names were for people."""
        launch = self._launch_of(study, record) or {"trials": []}
        old = next((trial["name"] for trial in launch["trials"] if trial["trial_id"] == record.trial_id), record.trial_id)
        again = f" (record {record.number})" if record.number > 1 else ""
        return mlflow_view.run_name(record.trial, old) + again, f"{old}{again}"

    def _read_launches(self, study: str) -> dict[str, dict[str, Any]]:
        found = {launch["launch_id"]: launch for launch in self.store.launches(study)}
        if study not in self._baselines or found.keys() != self._launches[study].keys():
            self._baselines[study], self._variants[study] = baselines(found.values()), {}
            for variant, baseline in self._baselines[study].items():
                self._variants[study].setdefault(baseline, []).append(variant)
        self._launches[study] = found
        return found

    def _launch_of(self, study: str, record: Record) -> dict[str, Any] | None:
        """The study's launch that ran the trial; for a trial that another study ran, the first launch that asked for it."""
        launches = self._launches.get(study, {})
        if record.launch_id not in launches:
            launches = self._read_launches(study)
        asked = [launch for launch in launches.values() if any(trial["trial_id"] == record.trial_id for trial in launch["trials"])]
        return next((launch for launch in asked if launch["launch_id"] == record.launch_id), asked[0] if asked else None)

    def _parent(self, study: str, launch_id: str) -> Run:
        if launch_id not in self._parents:
            launch = self._launches[study][launch_id]
            tags = rows.launch_tags(launch)
            run = self.runs.find_or_create(study, f"launch {launch_id}", launch["time"], tags, ("kind", "launch_id"))
            self.runs.send(run, rows.launch_params(launch), [], tags)
            if launch["study_yaml"] and launch["source"] not in self.runs.files(run):
                self.runs.put_text(run, launch["study_yaml"], launch["source"])
            self._parents[launch_id] = run
        return self._parents[launch_id]

    def _record_in(self, launch: dict[str, Any], trial_id: str) -> Record:
        """The trial as the launch left it."""
        stores = [*self.store.earlier(trial_id).values(), self.store]
        journals = [store.journal(trial_id).read() for store in stores]
        at = rows.record_in_launch(journals, launch, trial_id)
        mine = rows.lines_in_launch(journals[at], launch, self.store.launch_ended(launch["study"], launch["launch_id"]))
        latest = len(mine) == len(journals[at])
        return fold(trial_id, mine, alive=lambda: latest and stores[at].is_running(trial_id))

    def _guarded(self, action: Callable[[], None]) -> bool:
        if time.monotonic() < self._quiet_until:
            return False
        try:
            action()
        except Exception as error:
            self.last_error = brief(error, self.uri)
            if not self._pause:
                _log.warning(
                    "MLflow at '%s' took no delivery; the records are safe and will be sent later: %s", public(self.uri), self.last_error
                )
            self._forget()
            return False
        self._pause = 0.0
        return True

    def _forget(self) -> None:
        """After a failure nobody knows what arrived: leave MLflow alone for a while, then ask it again."""
        self._pause = min(max(2 * self._pause, SHORTEST_PAUSE), LONGEST_PAUSE)
        self._quiet_until = time.monotonic() + self._pause
        self._trials.clear()
        self._parents.clear()
