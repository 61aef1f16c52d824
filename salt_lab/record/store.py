"""The results folder. Everything recorded stays: nothing in here overwrites or deletes a journal, a launch or a result.

::

    STORE/trials/<trial_id>/record.jsonl, lock, mlflow.json, and what training puts beside them
    STORE/trials/<trial_id>/earlier/<n>/  the same, of records that were set aside when the trial was trained again
    STORE/studies/<name>/launches/<launch_id>.json, <launch_id>.end
    STORE/looks/          a results folder again, of the same trials' weights on other images: nothing is trained there
    STORE/data/, STORE/mlflow.db, STORE/mlflow_artifacts/
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_lab.errors import StoreError
from salt_lab.record import aside
from salt_lab.record.fold import Record, fold
from salt_lab.record.journal import Journal, read_json, write_json
from salt_lab.record.launches import launch_content
from salt_lab.record.lock import TrialBusy, exclusive, is_held
from salt_lab.record.ray_job import in_ray_job

if TYPE_CHECKING:
    from salt_lab.spec.study import Study
    from salt_lab.spec.trial import Trial

__all__ = ["Record", "Store", "TrialBusy", "default_store_root"]

MIN_FREE_MB = 50
LOOKS = "looks"
_CHOOSE = "Choose another results folder: --store FOLDER or $SALT_LAB_STORE"


def default_store_root() -> Path:
    """Where results go when nobody says: $SALT_LAB_STORE, else ``./runs``.

    In a submitted Ray job the working directory is a copy that Ray throws away; results go to ``~/salt_lab_runs`` of the head node then.
    """
    if chosen := os.environ.get("SALT_LAB_STORE"):
        return Path(chosen).expanduser()
    return Path.home() / "salt_lab_runs" if in_ray_job() else Path("runs")


class Store:
    """A results folder. Making one touches no disk; reading makes no folders; writing makes those it needs."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    @property
    def data_dir(self) -> Path:
        """Where the embedded data sets are drawn."""
        return self.root / "data"

    @property
    def looks(self) -> Store:
        """Where looks of this folder's trials are recorded (:mod:`salt_lab.train.look`): a results folder in this one."""
        return Store(self.root / LOOKS)

    @property
    def holds_looks(self) -> bool:
        """Are its records looks? Then nothing is trained here."""
        return self.root.name == LOOKS and (self.root.parent / "trials").is_dir()

    def trial_dir(self, trial_id: str) -> Path:
        """The trial's folder (perhaps not there yet; ``lock`` makes it)."""
        return self.root / "trials" / _component(trial_id, "trial id")

    def study_dir(self, name: str) -> Path:
        """The study's folder (perhaps not there yet)."""
        return self.root / "studies" / _component(name, "study name")

    def journal(self, trial_id: str) -> Journal:
        """The trial's journal."""
        return Journal(self.trial_dir(trial_id) / "record.jsonl")

    def lock(self, trial_id: str) -> contextlib.AbstractContextManager[None]:
        """The right to write the trial's folder, for a ``with`` block; free again when the process ends, however it ends.

        Raises:
            TrialBusy: another process has it.
        """
        return self._locked(trial_id)

    @contextlib.contextmanager
    def _locked(self, trial_id: str) -> Iterator[None]:
        folder = self.trial_dir(trial_id)
        with exclusive(folder / "lock", f"trial {trial_id}"):
            aside.recover(folder)
            yield

    def set_aside(self, trial_id: str, number: int) -> bool:
        """Keep the trial's finished record ``number`` under ``earlier/<number>/``, so that the trial can be trained again.

        The whole folder goes there: journal, config, detections, log, checkpoints. A crash in between loses nothing (:meth:`recover`).

        Returns:
            False where the trial has another record by now: somebody else has set this one aside.

        Raises:
            TrialBusy: another process has the trial.
            StoreError: the folder cannot be written.
        """
        folder = self.trial_dir(trial_id)
        with self.lock(trial_id):
            if max(aside.numbers(folder), default=0) + 1 != number or not self.journal(trial_id).size():
                return False
            try:
                aside.move(folder)
            except OSError as error:
                raise StoreError(f"{folder}: the record cannot be set aside: {error.strerror}. Nothing is lost: run again") from error
        return True

    def recover(self, trial_id: str) -> None:
        """Finish or undo a :meth:`set_aside` that a crash cut off; where another process has the trial, it does so itself."""
        if aside.unfinished(self.trial_dir(trial_id)):
            with contextlib.suppress(TrialBusy), self.lock(trial_id):
                pass

    def earlier(self, trial_id: str) -> dict[int, Store]:
        """The trial's records that were set aside: number, from 1 -> this results folder with that record as the trial's own, to read."""
        return {number: _Earlier(self.root, trial_id, number) for number in aside.numbers(self.trial_dir(trial_id))}

    def is_running(self, trial_id: str) -> bool:
        """Does a living process hold the trial's lock?"""
        return is_held(self.trial_dir(trial_id) / "lock")

    def record(self, trial_id: str, study: str | None = None) -> Record:
        """What the journal says about a trial; state "new" where there is none.

        Args:
            trial_id: the trial.
            study: whose MLflow run ``run_id`` shall name; default the study that started the latest attempt. A trial that two studies
                share has one record and a run in each study's experiment.
        """
        record = fold(trial_id, self.journal(trial_id).read(), alive=lambda: self.is_running(trial_id))
        runs = read_json(self.trial_dir(trial_id) / "mlflow.json") or {}
        run_id = runs.get(study or record.study, {}).get("run_id")
        return replace(record, run_id=run_id, number=self._number(trial_id))

    def _number(self, trial_id: str) -> int:
        return max(aside.numbers(self.trial_dir(trial_id)), default=0) + 1

    def trial_ids(self) -> list[str]:
        """Ids of all trials that have a journal."""
        return sorted(path.parent.name for path in self.root.glob("trials/*/record.jsonl"))

    def study_names(self) -> list[str]:
        """Names of all studies that were launched."""
        return sorted({path.parent.parent.name for path in self.root.glob("studies/*/launches/*.json")})

    def new_launch(
        self,
        study: Study,
        trial_ids: Sequence[str],
        trials: Sequence[Trial] | None = None,
        *,
        set_aside: Mapping[str, int] | None = None,
        reused: Mapping[str, Sequence[str]] | None = None,
        early_stop: Mapping[str, Any] | None = None,
    ) -> str:
        """Write down that ``study`` is being run, with its file's text and its trials' names.

        Args:
            study: the study.
            trial_ids: one per trial.
            trials: the trials, in the order of the ids; None = all of the study, cell by cell and seed by seed.
            set_aside: trial id -> number of the record that this launch has set aside to train the trial again.
            reused: trial id -> versions of other training code that made it, where this launch keeps such a trial.
            early_stop: the rules by which its trials stop themselves (:func:`salt_lab.train.early_stop.launch_rules`); None = none does.

        Returns:
            The launch id, ``<UTC time>-<4 hex digits>``: sorts by time.
        """
        content = launch_content(study, trial_ids, trials, early_stop=early_stop, set_aside=set_aside, reused=reused)
        launch_id = str(content["launch_id"])
        write_json(self.study_dir(study.name) / "launches" / f"{launch_id}.json", content)
        return launch_id

    def launch(self, study_name: str, launch_id: str) -> dict[str, Any] | None:
        """One launch as :meth:`new_launch` wrote it; None where the folder has none of this id."""
        content: dict[str, Any] | None = read_json(self.study_dir(study_name) / "launches" / f"{_component(launch_id, 'launch id')}.json")
        return content

    def launches(self, study_name: str) -> list[dict[str, Any]]:
        """The study's launches, oldest first, as :meth:`new_launch` wrote them."""
        found = [read_json(path) for path in self.study_dir(study_name).glob("launches/*.json")]
        return sorted((launch for launch in found if launch), key=lambda launch: (launch["time"], launch["launch_id"]))

    def end_launch(self, study_name: str, launch_id: str) -> None:
        """Write down that the launch ends now, its trials being as it leaves them. Its first end counts."""
        path = self._launch_end(study_name, launch_id)
        if not path.exists():
            write_json(path, {"time": time.time()})

    def launch_ended(self, study_name: str, launch_id: str) -> float | None:
        """When the launch ended, unix seconds; None while it runs, where it was killed, and for launches from before this was recorded."""
        return (read_json(self._launch_end(study_name, launch_id)) or {}).get("time")

    def _launch_end(self, study_name: str, launch_id: str) -> Path:
        return self.study_dir(study_name) / "launches" / f"{_component(launch_id, 'launch id')}.end"

    def launch_of_job(self, job_id: str) -> dict[str, Any] | None:
        """The newest launch, of any study, that the Ray job ``job_id`` made; None where there is none."""
        made = [launch for name in self.study_names() for launch in self.launches(name) if launch.get("ray_job_id") == job_id]
        return max(made, key=lambda launch: (launch["time"], launch["launch_id"]), default=None)

    def check_writable(self) -> None:
        """Try the folder (it is made where absent) before anything starts.

        Raises:
            StoreError: names the folder, what is wrong and the next step: not writable, a file in the way, disk full.
        """
        for folder in (self.root, self.root / "trials", self.root / "studies"):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _try_writing(folder)
            except (FileExistsError, NotADirectoryError) as error:
                raise StoreError(f"{folder}: a file is in the way of the results folder. Move it, or c{_CHOOSE[1:]}") from error
            except OSError as error:
                raise StoreError(f"{folder}: the results folder cannot be written: {error.strerror}. {_CHOOSE}") from error
        disk = os.statvfs(self.root)
        if (free := disk.f_bavail * disk.f_frsize / 2**20) < MIN_FREE_MB:
            raise StoreError(
                f"{self.root}: the disk is full ({free:.0f} MiB free, at least {MIN_FREE_MB} needed). Free space, or c{_CHOOSE[1:]}"
            )


class _Earlier(Store):
    """A results folder as it was for one trial before its record ``number`` was set aside."""

    def __init__(self, root: Path, trial_id: str, number: int) -> None:
        super().__init__(root)
        self._trial_id, self._its_number = trial_id, number

    def trial_dir(self, trial_id: str) -> Path:
        folder = super().trial_dir(trial_id)
        return folder / aside.EARLIER / str(self._its_number) if trial_id == self._trial_id else folder

    def _number(self, trial_id: str) -> int:
        return self._its_number if trial_id == self._trial_id else super()._number(trial_id)


def _try_writing(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".try-") as file:
        file.write(b"\0" * 4096)
        file.flush()
        os.fsync(file.fileno())


def _component(name: str, what: str) -> str:
    if not re.fullmatch(r"[^/\0]+", name) or name in (".", ".."):
        raise StoreError(f"{what} {name!r} cannot name a folder: it must not be empty, '.', '..' or hold a '/'")
    return name
