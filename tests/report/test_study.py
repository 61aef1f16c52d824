"""A study's folder and the notebook: everything from the records alone."""

from __future__ import annotations

import os
import subprocess
import sys

from salt_lab.report import open_study, write_report


def test_the_report_lies_beside_the_studys_launches_and_is_the_same_twice(full):
    files = write_report(full.study, full.store)
    folder = full.store.study_dir("two_hosts")
    tables = ["table.md", "table.csv", "table.tex", "table.html", "table.runs.csv"]
    assert [path.relative_to(folder).as_posix() for path in files[:5]] == tables
    assert {path.parent for path in files[5:]} == {folder / "figures"}
    before = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in write_report(full.study, full.store)] == before
    assert not list(folder.rglob("*.part"))


def test_a_study_is_opened_with_the_store_of_the_environment(full, monkeypatch):
    monkeypatch.setenv("SALT_LAB_STORE", str(full.store.root))
    study, store = open_study(full.study.source)
    assert study.cells == full.study.cells and store.root == full.store.root


def test_a_table_needs_neither_torch_nor_mlflow_nor_ray(full):
    code = (
        "import sys; from salt_lab.report import open_study, load_results, study_table, render\n"
        f"study, store = open_study({str(full.study.source)!r}, {str(full.store.root)!r})\n"
        "print(render(study_table(load_results(study, store))))\n"
        "assert not {'torch', 'ray', 'mlflow', 'mmengine', 'mmdet'} & set(sys.modules), 'a heavy library was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, "MPLBACKEND": "Agg"}
    )
    assert done.returncode == 0, done.stderr
    assert "**34.2** ± 1.8 (3)" in done.stdout
