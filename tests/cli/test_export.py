"""``salt-lab export``: records, and models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.data import fingerprint
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import canonical, trial_id

STUDY = "question: q?\nbase: {data: marks}\naxes: {salt.enabled: [false, true]}\ncompare: {baseline: {salt.enabled: false}}\n"
METRICS = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"), 41.5)


def test_the_table_of_the_export_is_the_table_of_the_results_folder(tmp_path: Path, run: Callable) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    study, store = load_study(tmp_path / "s.yaml"), Store(tmp_path / "runs")
    for trial in study.trials():
        recorder = FolderRecorder(store, trial_id(trial, fingerprint(trial.data)))
        recorder.start(trial=canonical(trial), study="s", launch_id="l", data_fingerprint=fingerprint(trial.data), provenance={})
        recorder.done(metrics=METRICS, train_seconds=60, eval_seconds=1, peak_memory_mb=100, epochs=1)
    exported = run("export", str(tmp_path / "s.yaml"), str(tmp_path / "out"), "--store", str(tmp_path / "runs"))
    assert exported.exit_code == 0 and "2 trials" in exported.output
    overridden = run("export", str(tmp_path / "s.yaml"), str(tmp_path / "one"), "seeds=[0]", "--store", str(tmp_path / "runs"))
    assert f"s.yaml 'seeds=[0]' --store {tmp_path / 'one'}" in overridden.output, "the command makes the same table"
    named = run("export", str(tmp_path / "s.yaml"), "seeds=[0]", "-o", str(tmp_path / "named"), "--store", str(tmp_path / "runs"))
    assert f"s.yaml 'seeds=[0]' --store {tmp_path / 'named'}" in named.output, "-o FOLDER says the same"
    tables = [run("table", str(tmp_path / "s.yaml"), "--store", str(tmp_path / name)).output for name in ("runs", "out")]
    assert tables[0] == tables[1] and "41.5" in tables[0]


def test_a_study_that_never_ran_has_nothing_to_export(tmp_path: Path, run: Callable) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    result = run("export", str(tmp_path / "s.yaml"), str(tmp_path / "out"), "--store", str(tmp_path / "runs"))
    assert result.exit_code == 2 and "run it first" in result.output
    assert not (tmp_path / "out").exists()


class TestModels:
    """``salt-lab export CONFIG CHECKPOINT -o FILE``; what is in the file is tested in its room."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> tuple[Path, Path]:
        """A small detector as a config file and a checkpoint."""
        import torch
        from mmengine.config import Config

        from salt_lab.compose import compose
        from salt_lab.testing.host_models import build, small

        trial = small("fcos")
        steps = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=(96, 64), keep_ratio=True), dict(type="PackDetInputs")]
        section = compose(trial).model
        section.bbox_head.num_classes = 3
        loader = dict(dataset=dict(pipeline=steps, metainfo=dict(classes=("disc", "cross", "bar"))))
        Config(dict(model=section, test_dataloader=loader)).dump(tmp_path / "config.py")
        torch.save({"state_dict": build(trial).state_dict()}, tmp_path / "model.pth")
        return tmp_path / "config.py", tmp_path / "model.pth"

    def test_it_says_how_far_onnxruntime_is_from_pytorch(self, run: Callable, model: tuple[Path, Path], tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        result = run("export", *model, "-o", tmp_path / "out" / "model.onnx")
        assert result.exit_code == 0, result.output
        assert "opset 16, any number of images, outputs boxes, scores, quality" in result.output
        assert (
            "PyTorch on 64x96, 96x64, 43x49: boxes differ by at most" in result.output and "px (allowed 0.05), scores by" in result.output
        )
        assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.onnx"]

    def test_a_file_that_is_there_stays(self, run: Callable, model: tuple[Path, Path], tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        (tmp_path / "model.onnx").write_text("mine")
        result = run("export", *model, "-o", tmp_path / "model.onnx")
        assert result.exit_code == 2 and "exists and is not overwritten" in result.output
        assert (tmp_path / "model.onnx").read_text() == "mine"

    def test_options_of_the_other_kind_are_refused_with_the_reason(self, run: Callable, tmp_path: Path) -> None:
        config, study = tmp_path / "config.py", tmp_path / "s.yaml"
        config.touch()
        study.write_text(STUDY)
        for words, reason in (
            ((study, tmp_path / "out", "-o", "m.onnx"), "two folders for"),
            ((study,), "FOLDER is missing"),
            ((study, tmp_path / "out", "--nms"), "--nms is for a CONFIG"),
            ((config, config, "--detections", "-o", "m.onnx"), "--detections and --as-is are for a STUDY"),
            ((config,), "CHECKPOINT is missing"),
            ((config, config, "seed=1", "-o", "m.onnx"), "KEY=VALUE and --store are for a STUDY"),
            ((config, config), "-o FILE is missing"),
            ((config, tmp_path / "no.pth", "-o", "m.onnx"), "no.pth"),
            ((config, config, "-o", "m.pt"), "ending in .onnx"),
        ):
            result = run("export", *words)
            assert result.exit_code == 2 and reason in result.output, (words, result.output)
