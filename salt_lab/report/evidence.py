"""What stands behind a table: which code, which data, when, and what would mislead a reader if it were not said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import pandas as pd

#: Between the code versions of one trial whose code changed between attempts.
SEVERAL = " then "


@dataclass(frozen=True)
class Evidence:
    """Provenance of the finished trials. ``warnings`` must be shown with the numbers; ``missing`` names the trials that are in no number."""

    commits: tuple[str, ...]
    codes: tuple[str, ...]
    data: tuple[str, ...]
    last_record: datetime | None
    warnings: tuple[str, ...]
    missing: tuple[str, ...]


def evidence(frame: pd.DataFrame, names: Mapping[str, str]) -> Evidence:
    """Collect the evidence of a results frame (see StudyResults.frame); ``names`` gives each cell key's readable name."""
    done = frame[frame["state"] == "done"]
    codes, data = _different(done, "code"), _different(done, "data_fingerprint")
    warnings = [
        _mixed("code versions", codes, "a difference between rows may come from the code"),
        _mixed("data sets", data, "compare rows of the same data only"),
        _mixed("kinds of machine", _different(done, "machine"), "minutes and memory are not comparable between them"),
    ]
    last = done["time"].max() if len(done) else float("nan")
    when = None if pd.isna(last) else datetime.fromtimestamp(float(last), tz=timezone.utc)
    return Evidence(_different(done, "commit"), codes, data, when, tuple(text for text in warnings if text), _missing(frame, names))


def _different(done: pd.DataFrame, column: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for value in done[column].dropna() for part in str(value).split(SEVERAL)))


def _mixed(what: str, values: tuple[str, ...], consequence: str) -> str:
    return f"WARNING: {len(values)} {what} in one table ({'; '.join(values)}): {consequence}." if len(values) > 1 else ""


def _missing(frame: pd.DataFrame, names: Mapping[str, str]) -> tuple[str, ...]:
    """A line per trial that was started and is not done; those never started are counted in one line."""
    lines = []
    for trial in frame[~frame["state"].isin(["done", "new"])].itertuples():
        why = f": {trial.reason}" if isinstance(trial.reason, str) and trial.reason else ""
        lines.append(f"{names[trial.cell]} seed {trial.seed} (trial {trial.trial_id}) {trial.state}{why}")
    waiting = int((frame["state"] == "new").sum())
    return (*lines, f"{waiting} of {len(frame)} trials not run yet") if waiting else tuple(lines)
