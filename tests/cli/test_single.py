"""Single models and single records: train, test, convert, table, ui, sync; training itself is tested in its room."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.cli.train import choose_trial, only
from salt_lab.cli.ui import server_command
from salt_lab.errors import SpecError
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study


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
            (["experiments/tiny.yaml", "--cell", "1", "--gpus", "2", "--work-dir", "w"], "--store"),
            (["experiments/tiny.yaml", "--cell", "1", "--gpus", "3"], "schedule.batch = 2 cannot be shared out equally over 3 workers"),
            (["experiments/tiny.yaml", "--cell", "1", "--amp"], "schedule.amp=true"),
            (["experiments/tiny.yaml", "--cell", "1", "--auto-scale-lr"], "schedule.scale_lr=true"),
        ],
    )
    def test_options_of_the_other_kind_are_refused(self, words: list[str], said: str, study: Path, run: Callable) -> None:
        told = run("train", *words)
        assert told.exit_code == 2 and said in told.stderr

    @pytest.mark.usefixtures("fake_training")
    @pytest.mark.parametrize(
        ("words", "section", "workers", "gpus"), [(["--gpus", 2], "", 2, 2), ([], "resources: {workers: 2, gpus: 0}", 2, 0)]
    )
    def test_a_cell_on_several_workers_is_recorded_as_any_trial(
        self, words: list, section: str, workers: int, gpus: int, run: Callable, study: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("salt_lab.cli.run.choose_mlflow", lambda store, uri: None)  # making its database takes seconds
        study.write_text(f"{study.read_text()}\n{section}\n")
        told = run("train", study, "--cell", "1", "--store", store, *words)
        assert told.exit_code == 0 and "AP 40.0" in told.output, told.output
        (name,) = Store(store).trial_ids()
        record = Store(store).record(name)
        assert record.state == "done" and record.resources["workers"] == workers and record.resources["gpus"] == gpus
        assert record.built["effective"]["device"] == (None if gpus else "cpu")

    def test_a_config_takes_the_options_of_mmdets_dist_train(self, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config, called = tmp_path / "config.py", []
        config.touch()

        def train_config(*words: object, **flags: bool) -> Path:
            called.append((words, flags))
            return tmp_path / "epoch_12.pth"

        monkeypatch.setattr("salt_lab.train.single.train_config", train_config)
        told = run("train", config, "train_cfg.max_epochs=3", "--gpus", 8, "--work-dir", tmp_path, "--amp", "--auto-scale-lr")
        assert told.exit_code == 0, told.output
        assert called == [((str(config), tmp_path, 8, {"train_cfg.max_epochs": 3}), {"amp": True, "scale_lr": True})]
        assert f"next: salt-lab test {config} {tmp_path}/epoch_12.pth --gpus 8" in told.output

    def test_only_the_first_of_a_torchruns_workers_speaks(self, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "config.py").touch()
        monkeypatch.setattr("salt_lab.train.single.train_config", lambda *words, **flags: tmp_path / "epoch_1.pth")
        said = []
        for rank in "01":
            monkeypatch.setenv("RANK", rank)
            said.append(run("train", "config.py").output)
        assert "checkpoint:" in said[0] and said[1] == ""


class TestTest:
    @pytest.fixture
    def called(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
        """How ``evaluate_config`` was called; it measures an AP of 12.34."""
        calls: list[tuple[tuple, dict]] = []

        def evaluate_config(*words: object, **options: object) -> dict[str, float]:
            calls.append((words, options))
            return {} if options["format_only"] else {"AP": 12.34, "APl": float("nan")}

        monkeypatch.setattr("salt_lab.train.single.evaluate_config", evaluate_config)
        (tmp_path / "config.py").touch()
        (tmp_path / "epoch_1.pth").touch()
        return calls

    def test_several_gpus_measure_together(self, called: list, run: Callable) -> None:
        told = run("test", "config.py", "epoch_1.pth", "--gpus", 8, "--out", "found.json", "model.test_cfg.score_thr=0.1")
        assert told.exit_code == 0, told.output
        words, options = called[0]
        assert words == ("config.py", "epoch_1.pth", Path("found.json"), {"model.test_cfg.score_thr": 0.1})
        assert options["gpus"] == 8 and not options["format_only"]
        assert told.output.split() == ["AP", "APl", "12.3", "-", "detections:", "found.json"]

    def test_a_result_file_for_cocos_server_says_where_it_goes(self, called: list, run: Callable) -> None:
        told = run("test", "config.py", "epoch_1.pth", "--format-only", "--out", "detections_test-dev2017_x_results.json")
        assert told.exit_code == 0, told.output
        assert called[0][1]["format_only"]
        assert "AP" not in told.output.split() and "next: upload detections_test-dev2017_x_results.zip" in told.output


def test_convert_refuses_a_file_that_is_no_released_checkpoint(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "in.pth").write_text("no weights")
    told = run("convert", "in.pth", "out.pth")
    assert told.exit_code == 2 and "in.pth" in told.stderr and not (tmp_path / "out.pth").exists()


@pytest.mark.usefixtures("fake_training")
@pytest.mark.parametrize(("style", "begin"), [("md", "| host"), ("latex", r"% needs \usepackage{booktabs}"), ("csv", "host,")])
def test_the_table_goes_to_a_file_in_every_format(style: str, begin: str, run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
    store.mkdir()
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
