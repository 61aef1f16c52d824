"""``salt-lab why``: from detections on disk to words and tables; nothing is trained."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.data import prepare
from salt_lab.evaluate.coco import coco_numbers
from salt_lab.spec.study import load_study

pytestmark = pytest.mark.usefixtures("fake_training")


@pytest.fixture
def measured(run: Callable, study: Path, store: Path) -> Path:
    """The tiny study, done; every trial has found every object."""
    assert run("run", study, "--store", store, "--executor", "serial", "--no-mlflow").exit_code == 0
    val = prepare(load_study(study).cells[0].trial.data, store / "data").val_json
    rows = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.5}
        for a in json.loads(val.read_text())["annotations"]
    ]
    metrics = {name: None if value != value else value for name, value in coco_numbers(val, rows)._asdict().items()}
    for folder in (store / "trials").iterdir():
        with gzip.open(folder / "detections.json.gz", "wt") as file:
            json.dump(rows, file)
        lines = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
        honest = [{**line, "metrics": metrics} if line["event"] == "done" else line for line in lines]
        (folder / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in honest))
    return store


def test_why_prints_tables_and_what_is_missing(run: Callable, study: Path, measured: Path) -> None:
    result = run("why", study, "--store", measured)
    assert result.exit_code == 0
    assert "## Errors by type (TIDE)" in result.output and "## oLRP" in result.output and "100.0" in result.output
    assert "4 trials have no probe.npz" in result.output and "host=atss salt=on against host=atss salt=off" in result.output


def test_why_writes_csv_to_a_file(run: Callable, study: Path, measured: Path, tmp_path: Path) -> None:
    result = run("why", study, "--store", measured, "--format", "csv", "--by", "all", "-o", tmp_path / "why.csv")
    assert result.exit_code == 0 and "why.csv" in result.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "why.csv").read_text())))
    assert {row["part"] for row in rows} == {"all"} and {float(row["mean"]) for row in rows if row["measure"] == "ap50"} == {100.0}


def test_why_of_a_study_that_nobody_has_run_says_so(run: Callable, study: Path, store: Path) -> None:
    store.mkdir()
    result = run("why", study, "--store", store)
    assert result.exit_code == 0 and "Nothing to measure" in result.output and not list(store.iterdir())


def test_a_file_that_cannot_be_written_is_one_line(run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
    store.mkdir()
    result = run("why", study, "--store", store, "-o", tmp_path / "nowhere" / "why.md")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "--output" in result.stderr
