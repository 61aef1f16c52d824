"""``salt-lab probe``: probes of finished trials from their last checkpoints, and a plain word on those that have none left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from salt_lab.data import fingerprint
from salt_lab.evaluate.probe_data import PROBE, empty_probe, load_probe, save_probe
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.study import load_study
from salt_lab.spec.trial import canonical, trial_id

STUDY = """\
question: q?
base:
  backbone: {name: resnet18, base_channels: 8}
  channels: 64
  head_convs: 1
  data: {kind: marks, train_images: 4, val_images: 3, image_size: 64}
  schedule: {epochs: 1, batch: 2, image_size: [64, 64], optimizer: adamw, lr: 0.002}
  host: fcos
axes: {salt.enabled: [false, true]}
compare: {baseline: {salt.enabled: false}}
"""


@pytest.fixture
def trials(tmp_path: Path) -> list[str]:
    """Two trials that are done, one a cell, with the checkpoint of an untrained model each: what ``probe`` reads of a trained one."""
    from salt_lab.testing.host_models import model_section

    (tmp_path / "s.yaml").write_text(STUDY)
    store, names = Store(tmp_path / "runs"), []
    for trial in load_study(tmp_path / "s.yaml").trials():
        name = trial_id(trial, fingerprint(trial.data))
        recorder = FolderRecorder(store, name)
        recorder.start(trial=canonical(trial), study="s", launch_id="l", data_fingerprint=fingerprint(trial.data), provenance={})
        recorder.done(metrics={"AP": 1.0}, train_seconds=1, eval_seconds=1, peak_memory_mb=1, epochs=1)
        folder = store.trial_dir(name) / "checkpoints"
        folder.mkdir()
        section = model_section(trial)
        section.bbox_head.num_classes = trial.data.classes
        from mmdet.registry import MODELS

        torch.save({"state_dict": MODELS.build(section).state_dict()}, folder / "epoch_1.pth")
        names.append(name)
    return names


def test_missing_and_damaged_probes_are_made_and_those_that_are_there_stay(tmp_path: Path, trials: list[str], run: Callable) -> None:
    study, store = tmp_path / "s.yaml", Store(tmp_path / "runs")
    off, on = (store.trial_dir(name) for name in trials)
    (on / PROBE).write_bytes(b"half a file")
    first = run("probe", study, "--store", store.root, "--device", "cpu")
    assert first.exit_code == 0 and "2 trials, 2 done: 0 had a probe, 2 made, 0 cannot be made" in first.output, first.output
    probes = [load_probe(folder / PROBE) for folder in (off, on)]
    assert len(probes[0]) == len(probes[1]) > 0 and not probes[0].has_salt and probes[1].has_salt
    assert f"{trials[0]}: {len(probes[0])} positive locations" in first.output
    before = (on / PROBE).stat().st_mtime_ns
    save_probe(off / PROBE, empty_probe("not measured: RuntimeError"))
    second = run("probe", study, "--store", store.root, "--device", "cpu")
    assert "1 had a probe, 1 made" in second.output and (on / PROBE).stat().st_mtime_ns == before
    assert load_probe(off / PROBE).note == ""


def test_trials_whose_checkpoints_are_gone_are_named(tmp_path: Path, trials: list[str], run: Callable) -> None:
    store = Store(tmp_path / "runs")
    (store.trial_dir(trials[0]) / "checkpoints" / "epoch_1.pth").unlink()
    (store.trial_dir(trials[1]) / "checkpoints" / "epoch_1.pth").write_bytes(b"cut short")
    result = run("probe", tmp_path / "s.yaml", "--store", store.root)
    assert result.exit_code == 0 and "2 done: 0 had a probe, 0 made, 2 cannot be made any more" in result.output
    assert f"{trials[0]}: no probe: " in result.output and "no checkpoint of epoch 1 is left (there is none)" in result.output
    assert "epoch_1.pth is damaged or cut short" in result.output
    assert not any(store.root.glob(f"trials/*/{PROBE}"))


def test_a_study_that_never_ran_has_nothing_to_probe(tmp_path: Path, run: Callable) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    (tmp_path / "none").mkdir()
    result = run("probe", tmp_path / "s.yaml", "--store", tmp_path / "none")
    assert result.exit_code == 0 and "2 trials, 0 done" in result.output and not list((tmp_path / "none").iterdir())


def test_the_help_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from salt_lab.cli.main import cli; cli(['probe', '--help'], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
