"""A machine with neither Ray nor MLflow: a study runs there, and its records are delivered later, from a machine that has MLflow."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

STUDY = """
base:
  backbone: {name: resnet18, base_channels: 8}
  channels: 64
  head_convs: 1
  data: {kind: marks, train_images: 8, val_images: 4, image_size: 64}
  schedule: {epochs: 1, batch: 4, image_size: [64, 64], optimizer: adamw, lr: 0.001, warmup_iters: 0}
axes: {salt.enabled: [false, true]}
compare: {baseline: {salt.enabled: false}}
"""

#: the command line in a process in which the two packages cannot be imported
WITHOUT = "import sys; sys.modules['ray'] = None; sys.modules['mlflow'] = None; from salt_lab.cli.main import main; main()"


def salt_lab(*words, code=None, cwd):
    command = [sys.executable, "-W", "ignore", *(("-c", code) if code else ("-m", "salt_lab")), *words]
    return subprocess.run(command, cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=300, check=False)


def test_a_study_runs_without_them_and_its_records_are_delivered_later(tmp_path):
    (tmp_path / "tiny.yaml").write_text(STUDY)
    ran = salt_lab("run", "tiny.yaml", "--executor", "serial", "--store", "out", code=WITHOUT, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "delta" in ran.stdout and "salt-lab sync" in ran.stdout
    assert not (tmp_path / "out" / "mlflow.db").exists()
    first = salt_lab("sync", "out", cwd=tmp_path)
    assert first.returncode == 0 and "2 trials of 1 studies" in first.stdout, first.stdout + first.stderr
    runs = count_runs(tmp_path)
    again = salt_lab("sync", "out", cwd=tmp_path)
    assert again.returncode == 0 and count_runs(tmp_path) == runs == 3, "two trials and their launch"


def count_runs(folder):
    import sqlite3

    with sqlite3.connect(folder / "out" / "mlflow.db") as database:
        return database.execute("select count(*) from runs").fetchone()[0]
