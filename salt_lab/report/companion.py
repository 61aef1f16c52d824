"""The companion of a table: one line per trial, so that every number can be traced to the runs that made it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_lab.report.csv_table import csv_text

if TYPE_CHECKING:
    from salt_lab.report.results import StudyResults

_COLUMNS = ("seed", "state", "trial_id", "run_id", "commit", "training_code", "data_fingerprint", "AP")


def companion_path(table: Path) -> Path:
    """``table.runs.csv`` beside ``table.tex``."""
    return table.with_name(f"{table.stem}.runs.csv")


def runs_table(results: StudyResults) -> str:
    """CSV with a row per trial of the study, in its order, whatever its state: ``cell_key``, ``label`` (the cell's name), ``seed``, ``state``,
    ``trial_id``, ``run_id`` (MLflow's; empty before it was delivered), ``commit``, ``training_code``, ``data_fingerprint``, ``AP`` (percent;
    empty unless done)."""
    names = {cell.key: cell.name for cell in results.study.cells}
    rows: list[dict[str, Any]] = [
        {"cell_key": trial["cell"], "label": names[trial["cell"]], **{column: trial[column] for column in _COLUMNS}}
        for trial in results.frame.to_dict("records")
    ]
    return csv_text(rows)
