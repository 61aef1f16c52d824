"""``ray job submit --working-dir . -- salt-lab run STUDY`` against a head on loopback, as the README says, with real training."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

import salt_lab
from salt_lab.record.store import Store

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STUDY = """
question: does a submitted study run?
base:
  backbone: {name: resnet18, base_channels: 8}
  channels: 32
  data: {kind: marks, train_images: 8, val_images: 4, image_size: 64}
  schedule: {epochs: 1, batch: 4, image_size: [64, 64], optimizer: adamw, lr: 0.001, warmup_iters: 0}
axes: {salt.enabled: [false, true]}
compare: {baseline: {salt.enabled: false}}
"""
BIN = Path(sys.executable).parent


def free_ports(number: int) -> list[int]:
    """Ports of the loopback interface that nobody uses now."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Head:
    """A Ray head of our own on loopback: free ports, a token of its own, its own folder for sessions."""

    def __init__(self, sessions: Path, log: Path) -> None:
        gcs, dashboard, client, agent, metrics = free_ports(5)
        self.address, self.log = f"http://127.0.0.1:{dashboard}", log
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        outside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {**outside, **token, "RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        ports = {"port": gcs, "dashboard-port": dashboard, "ray-client-server-port": client}
        ports |= {"dashboard-agent-listen-port": agent, "metrics-export-port": metrics}
        places = ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={sessions}", "--num-cpus=2"]
        command = [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", *places]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, *(f"--{name}={port}" for name, port in ports.items())],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def ray(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """A command of Ray's against this head."""
        command = [str(BIN / "ray"), *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=self.environment, timeout=timeout)

    def wait(self) -> None:
        """Until it takes jobs."""
        deadline = time.monotonic() + 90
        while self.ray("job", "list", "--address", self.address).returncode:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(1)

    def stop(self) -> None:
        """End it and every process that it has started, and no other."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=10)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    sessions = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # Ray's sockets need a short path
    started = Head(sessions, tmp_path_factory.mktemp("head") / "head.log")
    try:
        started.wait()
        yield started
    finally:
        started.stop()
        shutil.rmtree(sessions, ignore_errors=True)


def test_a_submitted_study_is_run_by_the_cluster_and_recorded_in_the_store(head, tmp_path):
    project, store = tmp_path / "project", Store(tmp_path / "runs")
    shutil.copytree(Path(salt_lab.__file__).parent, project / "salt_lab", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "experiments").mkdir()
    (project / "experiments" / "tiny.yaml").write_text(STUDY)
    command = ["salt-lab", "run", "experiments/tiny.yaml", "--store", str(store.root)]
    done = head.ray("job", "submit", "--address", head.address, "--working-dir", str(project), "--", *command, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [store.record(trial_id) for trial_id in store.trial_ids()]
    assert [record.state for record in records] == ["done", "done"], done.stdout
    assert all(record.metrics is not None for record in records)
    assert "reused 0, to run 2" in done.stdout and "2 done" in done.stdout


def test_a_study_that_is_refused_makes_the_submission_fail_with_the_reason(head, tmp_path):
    (tmp_path / "project").mkdir()
    submit = ["job", "submit", "--address", head.address, "--working-dir", str(tmp_path / "project")]
    failing = head.ray(*submit, "--", "salt-lab", "run", "no.yaml", "--store", str(tmp_path / "runs"))
    assert failing.returncode == 1
    assert "no such study file" in failing.stdout
