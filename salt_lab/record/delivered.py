"""What was delivered where: ``mlflow.json`` in the trial's folder. A memory that saves questions, never the truth: delete it and only
time is lost."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from salt_lab.record.journal import read_json, write_json
from salt_lab.record.tracking import public

#: ``origin.json`` beside an imported journal: study -> MLflow run id that the record had where it came from.
ORIGIN = "origin.json"


class Delivered:
    """Per study: the MLflow store, the run, how much of the journal it has seen and in which state, and the artifacts' digests."""

    def __init__(self, trial_dir: Path, study: str, uri: str, run_id: str) -> None:
        self._path = trial_dir / "mlflow.json"
        self._study = study
        self._key = {"uri": public(uri), "run_id": run_id}

    def seen(self) -> str | None:
        """The journal's size and the state at the last delivery to this run; None where there was none."""
        return self._entry().get("seen")

    def artifacts(self) -> dict[str, str]:
        """Artifact name -> sha256 of what was delivered to this run."""
        return self._entry().get("artifacts", {})

    def remember(self, **news: Any) -> None:
        """Add to what is remembered of this run; another store's or run's memory gives way."""
        everything = read_json(self._path) or {}
        if (entry := {**self._entry(), **self._key, **news}) != everything.get(self._study):
            write_json(self._path, {**everything, self._study: entry})

    def _entry(self) -> dict[str, Any]:
        entry = (read_json(self._path) or {}).get(self._study, {})
        return entry if all(entry.get(key) == value for key, value in self._key.items()) else {}


def digest(path: Path) -> str:
    """sha256 of a file, hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
