"""The results folder. Everything recorded stays: nothing in here overwrites or deletes a journal, a launch or a result.

::

    STORE/trials/<trial_id>/record.jsonl, lock, mlflow.json, and what training puts beside them
    STORE/studies/<name>/launches/<launch_id>.json
    STORE/data/, STORE/mlflow.db, STORE/mlflow_artifacts/
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_lab.errors import StoreError
from salt_lab.record.fold import Record, fold
from salt_lab.record.journal import Journal, read_json, write_json
from salt_lab.record.lock import TrialBusy, exclusive, is_held
from salt_lab.record.provenance import provenance

if TYPE_CHECKING:
    from salt_lab.spec.study import Study
    from salt_lab.spec.trial import Trial

__all__ = ["Record", "Store", "TrialBusy", "default_store_root"]

MIN_FREE_MB = 50
_CHOOSE = "Choose another results folder: --store FOLDER or $SALT_LAB_STORE"


def default_store_root() -> Path:
    """Where results go when nobody says: $SALT_LAB_STORE, else ``./runs``.

    In a submitted Ray job the working directory is a copy that Ray throws away; results go to ``~/salt_lab_runs`` of the head node then.
    """
    if chosen := os.environ.get("SALT_LAB_STORE"):
        return Path(chosen).expanduser()
    return Path.home() / "salt_lab_runs" if _in_ray_job() else Path("runs")


def _in_ray_job() -> bool:
    return "RAY_JOB_ID" in os.environ or "runtime_resources" in Path.cwd().parts


class Store:
    """A results folder. Making one touches no disk; reading makes no folders; writing makes those it needs."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    @property
    def data_dir(self) -> Path:
        """Where the embedded data sets are drawn."""
        return self.root / "data"

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
        return exclusive(self.trial_dir(trial_id) / "lock", f"trial {trial_id}")

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
        return Record(**{**vars(record), "run_id": run_id})

    def trial_ids(self) -> list[str]:
        """Ids of all trials that have a journal."""
        return sorted(path.parent.name for path in self.root.glob("trials/*/record.jsonl"))

    def study_names(self) -> list[str]:
        """Names of all studies that were launched."""
        return sorted({path.parent.parent.name for path in self.root.glob("studies/*/launches/*.json")})

    def new_launch(self, study: Study, trial_ids: Sequence[str], trials: Sequence[Trial] | None = None) -> str:
        """Write down that ``study`` is being run, with its file's text and its trials' names.

        Args:
            study: the study.
            trial_ids: one per trial.
            trials: the trials, in the order of the ids; None = all of the study, cell by cell and seed by seed.

        Returns:
            The launch id, ``<UTC time>-<4 hex digits>``: sorts by time.
        """
        launch_id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        code = provenance()
        content = {
            "launch_id": launch_id,
            "time": time.time(),
            "study": study.name,
            "question": study.question,
            "source": Path(study.source).name,
            "study_yaml": _text(Path(study.source)),
            **{key: code[key] for key in ("code_version", "git_commit", "git_dirty", "diff_sha256")},
            "overrides": list(study.overrides),
            "trials": _launch_trials(study, trial_ids, study.trials() if trials is None else trials),
        }
        write_json(self.study_dir(study.name) / "launches" / f"{launch_id}.json", content)
        return launch_id

    def launches(self, study_name: str) -> list[dict[str, Any]]:
        """The study's launches, oldest first, as :meth:`new_launch` wrote them."""
        found = [read_json(path) for path in self.study_dir(study_name).glob("launches/*.json")]
        return sorted((launch for launch in found if launch), key=lambda launch: (launch["time"], launch["launch_id"]))

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


def _try_writing(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".try-") as file:
        file.write(b"\0" * 4096)
        file.flush()
        os.fsync(file.fileno())


def _component(name: str, what: str) -> str:
    if not re.fullmatch(r"[^/\0]+", name) or name in (".", ".."):
        raise StoreError(f"{what} {name!r} cannot name a folder: it must not be empty, '.', '..' or hold a '/'")
    return name


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _launch_trials(study: Study, trial_ids: Sequence[str], trials: Sequence[Trial]) -> list[dict[str, Any]]:
    if len(trials) != len(trial_ids):
        raise ValueError(f"study '{study.name}': {len(trial_ids)} ids for {len(trials)} trials; give 'trials' where it is not all of them")
    owner = {trial: cell for cell in study.cells for trial in cell.trials()}
    return [
        {"trial_id": trial_id, "name": f"{cell.name} seed={trial.seed}", "cell": cell.key, "seed": trial.seed, "label": cell.label}
        for trial_id, trial, cell in ((trial_id, trial, owner[trial]) for trial_id, trial in zip(trial_ids, trials, strict=True))
    ]
