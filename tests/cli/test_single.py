"""Single models and single records: train, test, infer, convert, table, ui, sync; training itself is tested in its room."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from salt_lab.cli.infer import draw_result
from salt_lab.cli.train import choose_trial, only
from salt_lab.cli.ui import server_command
from salt_lab.errors import SpecError
from salt_lab.spec.study import load_study
from salt_lab.train.infer import InferResult


def result(points: bool) -> InferResult:
    boxes = np.array([[10, 10, 40, 40], [20, 20, 60, 50], [5, 30, 25, 60]], dtype=np.float32)
    grid = np.stack([np.linspace(boxes[:, 0], boxes[:, 2], 9, axis=1), np.linspace(boxes[:, 1], boxes[:, 3], 9, axis=1)], axis=2)
    return InferResult(
        boxes_N4=boxes,
        scores_N=np.array([0.9, 0.5, 0.2]),
        labels_N=np.array([0, 1, 0]),
        classes=("disc", "cross"),
        r_points=grid if points else None,
        c_points=grid + 2 if points else None,
        coarse_N4=boxes + 1 if points else None,
        image=np.full((64, 64, 3), 128, np.uint8),
    )


class TestInfer:
    def test_only_boxes_with_the_score_are_drawn(self) -> None:
        assert [draw_result(result(points=False), threshold, False)[1] for threshold in (0, 0.3, 0.5, 0.95)] == [3, 2, 2, 0]

    def test_points_are_drawn_when_asked_for_and_there(self) -> None:
        plain, _ = draw_result(result(points=True), 0.3, points=False)
        dotted, _ = draw_result(result(points=True), 0.3, points=True)
        assert dotted.shape[1] == plain.shape[1] and (dotted[: plain.shape[0]] != plain).any()
        without, _ = draw_result(result(points=False), 0.3, points=True)
        assert np.array_equal(without, plain)

    @pytest.mark.parametrize("points", [True, False])
    def test_the_command_writes_one_picture_for_all_images(
        self, points: bool, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import cv2

        files = [tmp_path / name for name in ("config.py", "weights.pth", "a.png", "b.png")]
        for file in files:
            file.touch()
        monkeypatch.setattr("salt_lab.train.infer.Inferencer", lambda config, checkpoint, device: lambda image: result(points))
        out = tmp_path / "pictures" / "out.png"
        told = run("infer", *files, "-o", out, "--points")
        assert told.exit_code == 0, told.output
        assert "a.png: 2 boxes with score >= 0.3, of 3" in told.output
        assert ("no SALT operator" in told.stderr) is not points
        assert cv2.imread(str(out)) is not None

    def test_a_name_that_is_no_pictures_is_refused_before_the_model_is_built(self, run: Callable, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        told = run("infer", "x", "x", "x", "-o", "out.txt")
        assert told.exit_code == 2 and ".png" in told.stderr


class TestTrain:
    def test_a_cell_goes_by_the_number_or_the_name_that_plan_prints(self, study: Path) -> None:
        plan = load_study(study)
        assert choose_trial(plan, "4", None) == choose_trial(plan, "host=atss salt=on", None) == plan.cells[3].trial

    def test_a_cell_has_the_studys_seeds_only(self, study: Path) -> None:
        plan = load_study(study, ["seeds=[3,4]"])
        assert choose_trial(plan, "1", 4).seed == 4
        with pytest.raises(SpecError, match="3, 4"):
            choose_trial(plan, "1", 5)

    @pytest.mark.parametrize(("cell", "said"), [(None, "--cell"), ("9", "1 to 4"), ("host=atss salt=no", "Did you mean")])
    def test_a_cell_that_is_none_is_refused(self, cell: str | None, said: str, study: Path) -> None:
        with pytest.raises(SpecError, match=said):
            choose_trial(load_study(study), cell, None)

    def test_a_study_of_one_trial_holds_that_trial_alone(self, study: Path) -> None:
        plan = load_study(study, ["seeds=[3,4]"])
        trial = plan.trials()[5]
        assert only(plan, trial).trials() == (trial,)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["config.py", "--cell", "1"], "for a STUDY"),
            (["config.py"], "does not exist"),
            (["experiments/tiny.yaml", "--cell", "1", "--work-dir", "w"], "--store"),
        ],
    )
    def test_options_of_the_other_kind_are_refused(self, words: list[str], said: str, study: Path, run: Callable) -> None:
        told = run("train", *words)
        assert told.exit_code == 2 and said in told.stderr


def test_convert_refuses_a_file_that_is_no_released_checkpoint(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "in.pth").write_text("no weights")
    told = run("convert", "in.pth", "out.pth")
    assert told.exit_code == 2 and "in.pth" in told.stderr and not (tmp_path / "out.pth").exists()


@pytest.mark.usefixtures("fake_training")
@pytest.mark.parametrize(("style", "begin"), [("md", "| host"), ("latex", r"% needs \usepackage{booktabs}"), ("csv", "host,")])
def test_the_table_goes_to_a_file_in_every_format(style: str, begin: str, run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.txt"
    told = run("table", study, "--store", store, "--format", style, "-o", out)
    assert told.exit_code == 0, told.output
    assert told.stdout == "" and out.read_text().startswith(begin)


class TestMlflow:
    def test_the_ui_is_served_by_this_python_from_the_stores_database(
        self, run: Callable, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.mkdir()
        (store / "mlflow.db").touch()
        called: list[list[str]] = []
        monkeypatch.setattr(os, "execve", lambda path, words, env: called.append(words))
        told = run("ui", "--store", store, "--port", 5055)
        assert called == [server_command(f"sqlite:///{store}/mlflow.db", port=5055)]
        assert called[0][0] == sys.executable and "http://127.0.0.1:5055" in told.stderr

    def test_a_server_needs_no_ui_of_ours(self, run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@server")
        told = run("ui")
        assert told.exit_code == 0 and "https://server" in told.output and "secret" not in told.output

    def test_a_store_without_a_database_says_how_to_get_one(self, run: Callable, store: Path) -> None:
        told = run("ui", "--store", store)
        assert told.exit_code == 2 and f"salt-lab sync {store}" in told.stderr

    def test_sync_refuses_a_folder_without_records(self, run: Callable, tmp_path: Path) -> None:
        told = run("sync", tmp_path)
        assert told.exit_code == 2 and "trials" in told.stderr
