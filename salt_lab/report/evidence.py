"""What stands behind a table: which code, which data, when, and what would mislead a reader if it were not said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import pandas as pd

from salt_lab.record.training_code import NOT_RECORDED, made_by_other, other_versions, training_code_version

#: Between the code versions of one trial whose code changed between attempts.
SEVERAL = " then "


@dataclass(frozen=True)
class Evidence:
    """Provenance of the finished trials. ``warnings`` must be shown with the numbers; ``missing`` names the trials that are in no number.

    ``other_code`` is the sentence on trials of other training code than the present, "" where there are none.
    """

    commits: tuple[str, ...]
    codes: tuple[str, ...]
    data: tuple[str, ...]
    last_record: datetime | None
    warnings: tuple[str, ...]
    missing: tuple[str, ...]
    other_code: str = ""


def evidence(frame: pd.DataFrame, names: Mapping[str, str]) -> Evidence:
    """Collect the evidence of a results frame (see StudyResults.frame); ``names`` gives each cell key's readable name.

    Two versions of the package that share their training code are no warning: they give the same numbers.
    """
    done = frame[frame["state"] == "done"]
    codes, data = _different(done, "code"), _different(done, "data_fingerprint")
    warnings = [
        _looked(done),
        _mixed_code(codes, _different(done, "training_code")),
        _mixed("data sets", data, "compare rows of the same data only"),
        _mixed("kinds of machine", _different(done, "machine"), "minutes and memory are not comparable between them"),
        _chosen(frame),
    ]
    last = done["time"].max() if len(done) else float("nan")
    when = None if pd.isna(last) else datetime.fromtimestamp(float(last), tz=timezone.utc)
    shown = tuple(text for text in warnings if text)
    return Evidence(_different(done, "commit"), codes, data, when, shown, _missing(frame, names), _other_code(done))


def _looked(done: pd.DataFrame) -> str:
    """Numbers on images that chose nothing are worth more than others, and costs and curves beside them are the training's."""
    images, count = _different(done, "look"), int(done["look"].notna().sum())
    if not images:
        return ""
    who = "All rows are" if count == len(done) else f"NOT ALL ROWS ARE: {count} of {len(done)} finished trials are"
    return f"{who} looks at {', '.join(images)}: last checkpoints of trials that did not see these images; minutes are the training's."


def _mixed_code(codes: tuple[str, ...], training: tuple[str, ...]) -> str:
    consequence = "a difference between rows may come from the code"
    if NOT_RECORDED in training:  # then only the version of the whole package is known
        return _mixed("code versions", codes, consequence)
    return _mixed("versions of the training code", training, consequence)


def _other_code(done: pd.DataFrame) -> str:
    present = training_code_version()
    versions = [other_versions(str(value).split(SEVERAL), present) for value in done["training_code"].dropna()]
    others = [found for found in versions if found]
    named = [version for found in others for version in found]
    return f"{made_by_other(len(others), len(done), named, present)}." if others else ""


def _different(done: pd.DataFrame, column: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for value in done[column].dropna() for part in str(value).split(SEVERAL)))


def _mixed(what: str, values: tuple[str, ...], consequence: str) -> str:
    return f"WARNING: {len(values)} {what} in one table ({'; '.join(values)}): {consequence}." if len(values) > 1 else ""


def _chosen(frame: pd.DataFrame) -> str:
    """A mean over the seeds that did well at a rung is higher than one over all seeds would be, and so is a delta."""
    states = frame.groupby("cell")["state"].agg(set)
    partly = sum({"done", "stopped"} <= seen for seen in states)
    if not partly:
        return ""
    rows = "1 row has" if partly == 1 else f"{partly} rows have"
    return (
        f"WARNING: {rows} seeds that early stopping ended: means over the seeds that did better (†), too high, and so are their deltas. "
        "To compare, train them to the end: salt-lab run STUDY early_stop=null."
    )


def _missing(frame: pd.DataFrame, names: Mapping[str, str]) -> tuple[str, ...]:
    """A line per trial that was started and is not done; those never started are counted in one line."""
    lines = []
    for trial in frame[~frame["state"].isin(["done", "new"])].itertuples():
        why = f": {trial.reason}" if isinstance(trial.reason, str) and trial.reason else ""
        lines.append(f"{names[trial.cell]} seed {trial.seed} (trial {trial.trial_id}) {trial.state}{why}")
    waiting = int((frame["state"] == "new").sum())
    return (*lines, f"{waiting} of {len(frame)} trials not run yet") if waiting else tuple(lines)
