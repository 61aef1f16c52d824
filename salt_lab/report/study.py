"""Everything that a study's folder shows: its table in every format, the runs behind it, and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from salt_lab.record.journal import write_whole
from salt_lab.record.store import Store, default_store_root
from salt_lab.report.companion import companion_path, runs_table
from salt_lab.report.figures import save_figures
from salt_lab.report.results import load_results
from salt_lab.report.table import render, study_table
from salt_lab.spec.study import Study, load_study


def open_study(path: str | Path, store: str | Path | None = None, overrides: Sequence[str] = ()) -> tuple[Study, Store]:
    """A study file and the results folder that holds its records (default: ``$SALT_LAB_STORE``, else ``./runs``).

    Raises SpecError when the study cannot be read.
    """
    return load_study(Path(path), overrides), Store(Path(store) if store else default_store_root())


def write_report(study: Study, store: Store) -> list[Path]:
    """Write the study's tables (md, csv, tex, html; table.runs.csv: a line per trial) and figures into ``STORE/studies/<name>/``.

    From the records alone; returns the files written.

    Raises StoreError where the folder cannot be written.
    """
    results = load_results(study, store)
    table, folder = study_table(results), store.study_dir(study.name)
    folder.mkdir(parents=True, exist_ok=True)
    formats = {"md": "md", "csv": "csv", "tex": "latex", "html": "html"}
    files = [_write(folder / f"table.{suffix}", render(table, form)) for suffix, form in formats.items()]
    files.append(_write(companion_path(folder / "table"), runs_table(results)))
    return files + save_figures(results, store, folder / "figures")


def _write(path: Path, text: str) -> Path:
    write_whole(path, text)
    return path
