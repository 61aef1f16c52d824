"""``ray job submit -- salt-lab run STUDY`` and ``salt-lab submit STUDY`` against a head on loopback, as the README says."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

import salt_lab
from salt_lab.record.store import Record, Store
from salt_lab.schedule.bundle import lay_out
from salt_lab.testing.fake_trial import FAILS, SLOW

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
#: Takes the place of the real trial in the upload. A slow trial is slow until there is a file "hurry" in the results folder, and takes longer
#: to stop than the 3 s that Ray gives by itself.
TRIAL = """
import time
from salt_lab.testing import fake_trial
def run_trial(trial, store, **where):
    fake_trial.SLOW_EPOCH_SECONDS = 0.01 if (store.root / "hurry").exists() else 0.5
    try:
        return fake_trial.fake_trial(trial, store, **where)
    except KeyboardInterrupt:
        time.sleep(4.5)
        (store.root / "let_go").touch()
        raise
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


class Project:
    """A working directory with a copy of the package whose trials train nothing: ``salt-lab submit`` uploads the package that runs it."""

    def __init__(self, head: Head, root: Path) -> None:
        self.head, self.root, self.store = head, root, Store(root / "runs")
        shutil.copytree(Path(salt_lab.__file__).parent, root / "salt_lab", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "salt_lab" / "train" / "trial.py").write_text(TRIAL)
        (root / "tiny.yaml").write_text(STUDY)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """A ``salt-lab`` command about this cluster, begun."""
        command = [sys.executable, "-m", "salt_lab", *words]
        variables = {**self.head.environment, "RAY_API_SERVER_ADDRESS": self.head.address, "PYTHONDONTWRITEBYTECODE": "1", **environment}
        return subprocess.Popen(
            command, cwd=self.root, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def lab(self, *words: str, **environment: str) -> tuple[int, str]:
        """A ``salt-lab`` command about this cluster: exit code and output."""
        with self.start(*words, **environment) as process:
            output, _ = process.communicate(timeout=180)
        return process.returncode, output

    def submit(self, *words: str) -> tuple[int, str]:
        """``salt-lab submit`` of the study, into this project's results folder, without MLflow."""
        return self.lab("submit", "tiny.yaml", *words, "--store", str(self.store.root), "--no-mlflow")

    def records(self) -> list[Record]:
        return [self.store.record(trial_id) for trial_id in self.store.trial_ids()]


@pytest.fixture
def project(head, tmp_path):
    return Project(head, tmp_path / "project")


def test_what_submit_uploads_is_enough_to_train_and_the_mlflow_run_carries_the_job(head, tmp_path, monkeypatch):
    """Really trained, through Ray's own command, on the folder that ``salt-lab submit`` sends."""
    (tmp_path / "tiny.yaml").write_text(STUDY)
    (tmp_path / "upload").mkdir()
    monkeypatch.chdir(tmp_path)
    folder, store = lay_out(tmp_path / "upload", Path("tiny.yaml")).folder, Store(tmp_path / "runs")
    named = ["--submission-id", "job-of-ray", "--working-dir", str(folder)]
    command = ["salt-lab", "run", "tiny.yaml", "salt=false", "--store", str(store.root), "--executor", "serial"]
    done = head.ray("job", "submit", "--address", head.address, *named, "--", *command, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = [store.record(trial_id) for trial_id in store.trial_ids()]
    assert record.state == "done" and record.metrics is not None, done.stdout
    tagged = sqlite3.connect(store.root / "mlflow.db").execute("select value from tags where key = 'salt_lab.ray_job_id'")
    assert tagged.fetchall() == [("job-of-ray",)]


def test_data_that_the_cluster_has_not_is_refused_there_with_exit_code_2_and_nothing_is_trained(project):
    data = "data={train: '${PLACE}/t.json', val: '${PLACE}/v.json', images: '${PLACE}/photos'}"
    code, output = project.submit(data, "--env", "PLACE=/not/on/the/cluster")
    assert code == 2, output
    assert "/not/on/the/cluster/t.json: data.train: annotation file cannot be read" in output
    assert "passed on: PLACE" in output and project.records() == []


def test_a_failed_trial_makes_the_submission_leave_with_1_and_its_reason_and_the_others_are_done(project):
    code, output = project.submit("salt=false", f"seeds=[0,{FAILS}]", "--executor", "serial")
    assert code == 1, output
    assert "the loss is NaN" in output
    assert sorted(record.state for record in project.records()) == ["done", "failed"]


def test_ctrl_c_only_detaches_stop_ends_it_in_order_and_submitting_again_goes_on(project):
    study = ("salt=false", f"seeds=[{SLOW}]", "schedule.epochs=200")
    with project.start("submit", "tiny.yaml", *study, "--store", str(project.store.root), "--no-mlflow") as process:
        output = ""
        for line in process.stdout:
            output += line
            if "running  " in line:
                break
        process.send_signal(signal.SIGINT)
        output += process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "goes on" in output, output
    job = re.search(r"salt-lab stop --job (\S+) --address", output).group(1)

    code, status = project.lab("status", "--job", job)
    assert code == 0 and f"job {job}: RUNNING" in status and "1 trials: 1 running" in status, status

    code, stopped = project.lab("stop", "--job", job)
    assert code == 0 and f"job {job}: STOPPED" in stopped and "salt-lab submit tiny.yaml" in stopped, stopped
    [record] = project.records()
    assert record.state == "interrupted" and record.reason.startswith("stopped by"), stopped
    assert "0 done, 1 interrupted" in stopped and (project.store.root / "let_go").exists(), "it had time for its last words"
    trained = max(record.epochs)
    assert 0 < trained < 200

    (project.store.root / "hurry").touch()
    code, output = project.submit(*study)
    assert code == 0, output
    [record] = project.records()
    starts = [line for line in project.store.journal(record.trial_id).read() if line["event"] == "start"]
    assert record.state == "done" and [line["resumed_epoch"] for line in starts] == [0, trained]


def test_a_wrong_token_and_an_unknown_job_are_said_in_words(project):
    code, output = project.lab("stop", "--job", "x", RAY_AUTH_TOKEN="0" * 64)
    assert code == 2 and "refuses the token that is here" in output
    code, output = project.lab("stop", "--job", "no-such-job")
    assert code == 2 and "no job" in output
