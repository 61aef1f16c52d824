"""The notebooks of ``analysis/``: clean in git, and they run on records."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from salt_lab.errors import StoreError
from salt_lab.report import load_results
from salt_lab.report.notebook import need_results, two_runs

NOTEBOOKS = sorted((Path(__file__).parents[2] / "analysis").glob("*.ipynb"))


def read(path: Path) -> dict[str, Any]:
    book: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return book


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def code(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def test_there_is_a_notebook_for_each_question():
    assert {path.stem for path in NOTEBOOKS} == {"study", "compare_runs", "paper_tables", "power"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    book = read(path)
    assert (book["nbformat"], book["nbformat_minor"]) >= (4, 5)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code(path))
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_first_what_it_reads_and_has_no_logic_of_its_own(path):
    first, *others = code(path)
    assert first["metadata"]["tags"] == ["parameters"]
    assert "STUDY = " in source(first) and 'os.environ.get("SALT_LAB_STORE", "../runs")' in source(first)
    lines = [line for cell in others for line in source(cell).splitlines()]
    assert not [line for line in lines if re.match(r"\s*(def|class|if|while|try|with|lambda)\b", line)]
    imported = [line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))]
    assert set(imported) <= {"IPython", "pandas", "salt_lab"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run_in_order_on_records(path, full, monkeypatch, capsys):
    pytest.importorskip("IPython")
    monkeypatch.setenv("SALT_LAB_STORE", str(full.store.root))
    space: dict[str, Any] = {}
    for cell in code(path):
        exec(compile(source(cell), path.name, "exec"), space)
        if "parameters" in cell["metadata"].get("tags", []):
            space["STUDY"] = str(full.study.source)
    assert len(space["results"].frame) == 12


@pytest.mark.slow
def test_a_notebook_runs_in_a_kernel_and_says_what_to_run_where_nothing_is_done(full, tmp_path):
    pytest.importorskip("nbclient")
    from nbclient.exceptions import CellExecutionError

    from benchmarks.run_notebooks import execute

    power = next(path for path in NOTEBOOKS if path.stem == "power")
    book = execute(power, full.store.root, full.study.source)
    assert any("StudyPower" in str(cell.get("outputs")) for cell in book.cells)
    with pytest.raises(CellExecutionError, match=r"no trial of study 'two_hosts' is done there. Run it: salt-lab run"):
        execute(power, tmp_path / "nothing", full.study.source)


def test_two_runs_are_the_variants_and_its_baselines_of_one_seed_with_what_differs(full):
    found = two_runs(load_results(full.study, full.store), full.store, "host=gfl salt=on", resamples=0)
    assert (found.seed, found.comparison.pairs) == (0, 3) and found.comparison.delta < 0
    assert {"SALT", "AP"} <= set(found.differences["what"])
    assert not found.pictures.made and all(found.pictures.missing.values()), "no detections were recorded"


def test_where_nothing_is_done_the_next_step_is_said(bench):
    results = load_results(bench.study, bench.store)
    with pytest.raises(StoreError, match=r"no trial of study 'two_hosts' is done there. Run it: salt-lab run .*two_hosts.yaml --store"):
        need_results(results, bench.store)
    bench.done(bench.trial(0, host="atss", salt=False), 30.0)
    with pytest.raises(StoreError, match=r"two runs to compare are not done there. Run: salt-lab run"):
        two_runs(load_results(bench.study, bench.store), bench.store)
