"""Bad input, each kind of it: one clear line on stderr, exit code 2, and nothing started."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Case(NamedTuple):
    """What is replaced in the study's text, what is on the command line, and what the error must say."""

    name: str
    said: list[str]
    replace: tuple[str, str] = ("", "")
    words: tuple[str, ...] = ()


#: Found by reading the study file alone.
IN_THE_STUDY = [
    Case("unknown host", ["axes.host[1]", "atts", "Did you mean 'atss'?"], ("[fcos, atss]", "[fcos, atts]")),
    Case(
        "unknown toggle", ["salt.point", "Did you mean 'points'?"], ("salt.enabled: [false", "salt.point: [9, 16]\n  salt.enabled: [false")
    ),
    Case("unknown key of the base", ["Did you mean 'channels'?"], ("channels: 32", "chanels: 32")),
    Case("unknown field of a study", ["Did you mean 'axes'?"], ("axes:", "axis:")),
    Case("unknown key in an override", ["schedule.epoch", "Did you mean 'epochs'?"], words=("schedule.epoch=3",)),
    Case("override without a value", ["key=value"], words=("schedule.epochs",)),
    Case("three points", ["salt.points", "3", "at least 4 points (one per side)"], words=("salt.points=3",)),
    Case("negative SDR weight", ["salt.sdr_weight", "-1", "at least 0"], words=("salt.sdr_weight=-1",)),
    Case("negative coarse weight", ["salt.coarse_weight", "-0.5", "at least 0"], words=("salt.coarse_weight=-0.5",)),
    Case("seed that is no integer", ["seeds[1]", "1.5", "integer"], ("seeds: [0]", "seeds: [0, 1.5]")),
    Case("seed in words", ["seeds[0]", "one", "integer"], ("seeds: [0]", "seeds: [one]")),
    Case("empty axis", ["axes.host"], ("[fcos, atss]", "[]")),
    Case("exclude removes everything", ["exclude"], ("seeds: [0]", "seeds: [0]\nexclude: host in ('fcos', 'atss')")),
    Case("baseline in no cell", ["baseline", "host"], ("{salt.enabled: false}", "{host: gfl}")),
    Case("no YAML", ["line", "YAML"], ("axes:", "axes: [")),
    Case("unknown schedule", ["schedule", "Choices: 1x, 2x"], words=("schedule=3x",)),
]


@pytest.fixture
def refused(run: Callable, store: Path) -> Callable[..., str]:
    """Run; check exit code 2, one line and no trace of a start; return the line."""

    def check(*words: object) -> str:
        result = run(*words)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
        assert "Traceback" not in result.output and "bug" not in result.stderr
        written = [path for path in store.rglob("*") if path.is_file()] if store.is_dir() else []
        assert written == []
        return str(result.stderr)

    return check


@pytest.mark.parametrize("command", ["plan", "run", "status"])
@pytest.mark.parametrize("case", IN_THE_STUDY, ids=lambda case: case.name)
def test_a_wrong_study_is_refused(command: str, case: Case, study: Path, store: Path, refused: Callable) -> None:
    text = study.read_text()
    assert case.replace[0] in text
    study.write_text(text.replace(*case.replace))
    line = refused(command, study, *case.words, "--store", store, *(["--executor", "serial"] if command == "run" else []))
    assert "tiny.yaml" in line
    for part in case.said:
        assert part in line


def test_a_missing_study_names_the_nearest(study: Path, refused: Callable, store: Path) -> None:
    assert "Did you mean 'experiments/tiny.yaml'?" in refused("plan", "tinny.yaml", "--store", store)
    assert "Did you mean" in refused("run", "experiments/tiy.yaml", "--store", store)
    assert "is a folder" in refused("plan", "experiments", "--store", store)


@pytest.fixture
def on_coco(study: Path, coco: dict[str, Path]) -> dict[str, Path]:
    """The study, on COCO files."""
    line = next(line for line in study.read_text().splitlines() if "data:" in line)
    study.write_text(study.read_text().replace(line, f"  data: {{train: {coco['train']}, val: {coco['val']}, images: {coco['images']}}}"))
    return coco


def run_serially(refused: Callable, study: Path, store: Path, *words: str) -> str:
    return str(refused("run", study, *words, "--store", store, "--executor", "serial", "--no-mlflow"))


def test_a_missing_image_is_named_with_its_id(on_coco: dict[str, Path], study: Path, store: Path, refused: Callable) -> None:
    (on_coco["images"] / "2.png").unlink()
    line = run_serially(refused, study, store)
    assert "train.json" in line and "image id 2" in line and "2.png" in line


def test_categories_that_differ_between_train_and_val_are_named(
    on_coco: dict[str, Path], study: Path, store: Path, refused: Callable
) -> None:
    content: dict[str, Any] = json.loads(on_coco["val"].read_text())
    content["categories"][0]["name"] = "platelet"
    on_coco["val"].write_text(json.dumps(content))
    line = run_serially(refused, study, store)
    assert "'platelet'" in line and "'cell'" in line and "val.json" in line


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_missing_annotation_file_is_named(command: str, on_coco: dict[str, Path], study: Path, store: Path, refused: Callable) -> None:
    on_coco["val"].unlink()
    assert "val.json" in refused(command, study, "--store", store)


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    "content", [None, b"", b"<html>not found</html>", b"PK\x03\x04 cut short"], ids=["missing", "empty", "a web page", "cut short"]
)
def test_unreadable_weights_are_refused(
    command: str, content: bytes | None, tmp_path: Path, study: Path, store: Path, refused: Callable
) -> None:
    weights = tmp_path / "weights.pth"
    if content is not None:
        weights.write_bytes(content)
    line = refused(command, study, f"backbone.init={weights}", "--store", store)
    assert "weights.pth" in line and "backbone.init" in line


def test_an_mlflow_server_that_does_not_answer_is_refused(study: Path, store: Path, refused: Callable) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    line = refused("run", study, "--store", store, "--executor", "serial", "--mlflow-uri", f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in line and "--no-mlflow" in line


def test_a_results_folder_that_cannot_be_made_is_refused(study: Path, store: Path, run: Callable) -> None:
    store.write_text("a file in the way")
    result = run("run", study, "--store", store, "--executor", "serial", "--no-mlflow")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and str(store) in result.stderr
    assert store.read_text() == "a file in the way"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "serial", "--max-concurrent", "2"], "--max-concurrent"),
        (["--executor", "serial", "--address", "auto"], "--address"),
        (["--no-mlflow", "--mlflow-uri", "sqlite:///x.db"], "--no-mlflow"),
    ],
)
def test_options_that_contradict_each_other_are_refused(words: list[str], said: str, study: Path, store: Path, refused: Callable) -> None:
    assert said in refused("run", study, "--store", store, *words)
