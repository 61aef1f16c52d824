"""Execute the notebooks of ``analysis/`` on a results folder, each in a kernel of its own, and fail where a cell fails. Nothing is written.

python benchmarks/run_notebooks.py --store RESULTS [--study STUDY.yaml] [analysis/power.ipynb ...]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ANALYSIS = Path(__file__).parents[1] / "analysis"


def execute(path: Path, store: Path, study: Path | None = None, seconds: int = 300) -> nbformat.NotebookNode:
    """Run a notebook as on a fresh clone, with ``store`` as $SALT_LAB_STORE and, where it is given, another ``study``; returns it with its outputs.

    Raises CellExecutionError where a cell fails.
    """
    book = nbformat.read(path, as_version=4)
    for cell in book.cells if study else ():
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += f"\nSTUDY = {str(study.resolve())!r}"
    environment = {**os.environ, "SALT_LAB_STORE": str(store.resolve()), "MPLBACKEND": "agg"}
    client = NotebookClient(book, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": str(ANALYSIS)}})
    return client.execute(env=environment)


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Execute the notebooks of analysis/ on a results folder.")
    parser.add_argument("--store", type=Path, required=True, help="results folder with a finished study")
    parser.add_argument("--study", type=Path, help="study file; default: the one that the notebook names")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    wanted = parser.parse_args()
    failed = 0
    for path in wanted.notebooks or sorted(ANALYSIS.glob("*.ipynb")):
        begin = time.monotonic()
        try:
            execute(path, wanted.store, wanted.study)
        except CellExecutionError as error:
            failed += 1
            print(f"{path.name}: {error}", file=sys.stderr)
        else:
            print(f"{path.name}: {time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
