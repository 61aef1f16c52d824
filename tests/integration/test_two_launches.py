"""Two launches of one study at a time, each ``salt-lab run`` in a process of its own: no trial is trained twice and both end with the truth."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from salt_lab.record.store import Store

pytestmark = pytest.mark.integration
#: Trials that train nothing, sources that nobody edits meanwhile, and a short wait within the executor.
PRELUDE = """
import sys
import salt_lab.record.training_code as code, salt_lab.testing.fake_trial as fake, salt_lab.train.trial as real
from salt_lab.schedule.executor import SerialExecutor
code._sources = lambda root: iter(())
fake.EPOCH_SECONDS = float(sys.argv.pop(1))
real.run_trial = fake.fake_trial
SerialExecutor.__init__.__kwdefaults__["patience"] = 0.5
from salt_lab.cli.main import main
main()
"""
STUDY = """
base:
  data: {kind: marks, train_images: 2, val_images: 2, image_size: 32}
  schedule: {epochs: 2, image_size: [32, 32]}
axes:
  host: [fcos, atss]
  salt.enabled: [false, true]
compare:
  baseline: {salt.enabled: false}
"""


class Lab:
    """A study, its results folder, and the launches that were started."""

    def __init__(self, root: Path) -> None:
        self.root, self.store, self.launches = root, Store(root / "runs"), []
        (root / "tiny.yaml").write_text(STUDY)

    def launch(self, *words: str, epoch_seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE, str(epoch_seconds), "run", "tiny.yaml", "--store", "runs", "--executor", "serial"]
        with (self.root / f"{len(self.launches)}.txt").open("w") as out:
            process = subprocess.Popen([*command, "--no-mlflow", *words], cwd=self.root, stdout=out, stderr=subprocess.STDOUT, text=True)
        self.launches.append(process)
        return process

    def output(self, process: subprocess.Popen[str]) -> str:
        return (self.root / f"{self.launches.index(process)}.txt").read_text()

    def wait_for(self, text: str, process: subprocess.Popen[str], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text not in self.output(process):
            assert process.poll() is None and time.monotonic() < end, self.output(process)
            time.sleep(0.05)

    def starts(self) -> list[int]:
        return [sum(line["event"] == "start" for line in self.store.journal(name).read()) for name in self.store.trial_ids()]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    for process in lab.launches:
        if process.poll() is None:
            process.kill()
            process.wait()


def counts(output: str) -> tuple[int, int, int]:
    """Trials done by this launch, done by the other one, reused: from the line that ends it."""
    (line,) = re.findall(r"^tiny: \d+ done.* in \S+$", output, re.MULTILINE)
    found = {name: int(number) for number, name in re.findall(r"(\d+) (done by another process|done)", line)}
    return found["done"], found.get("done by another process", 0), int(re.findall(r"reused (\d+)", line)[0])


def test_two_launches_share_the_trials_train_none_twice_and_both_print_the_whole_table(lab: Lab) -> None:
    both = [lab.launch(epoch_seconds=0.7) for _ in range(2)]
    for process in both:
        assert process.wait(timeout=120) == 0, lab.output(process)
    assert lab.starts() == [1, 1, 1, 1]
    told = [counts(lab.output(process)) for process in both]
    assert all(sum(each) == 4 for each in told), told
    assert sum(done for done, _, _ in told) == 4, told
    tables = [[line for line in lab.output(process).splitlines() if line.startswith("| ")] for process in both]
    assert len(tables[0]) > 8 and tables[0] == tables[1]


@pytest.mark.slow
def test_who_waits_takes_over_what_a_killed_launch_leaves_and_who_shall_not_wait_leaves_with_1(lab: Lab) -> None:
    first = lab.launch(epoch_seconds=300)
    end = time.monotonic() + 60
    while not any(lab.store.journal(name).size() for name in lab.store.trial_ids()):
        assert time.monotonic() < end, lab.output(first)
        time.sleep(0.1)
    second = lab.launch(epoch_seconds=0.05)
    lab.wait_for("waiting for 1 trial run by another process", second)
    assert lab.starts() == [1, 1, 1, 1]
    third = lab.launch("--no-wait", epoch_seconds=0.05)
    assert third.wait(timeout=60) == 1
    assert "0 done, 1 run by another process, reused 3" in lab.output(third)
    os.kill(first.pid, signal.SIGKILL)
    assert second.wait(timeout=60) == 0, lab.output(second)
    assert "going on with 1 that the other process left undone" in lab.output(second)
    assert counts(lab.output(second)) == (4, 0, 0)
    assert sorted(lab.starts()) == [1, 1, 1, 2]


@pytest.mark.slow
def test_who_waits_can_be_stopped_and_leaves_the_other_alone(lab: Lab) -> None:
    first = lab.launch(epoch_seconds=4)
    end = time.monotonic() + 60
    while not any(lab.store.journal(name).size() for name in lab.store.trial_ids()):
        assert time.monotonic() < end, lab.output(first)
        time.sleep(0.1)
    second = lab.launch(epoch_seconds=0.05)
    lab.wait_for("waiting for 1 trial run by another process", second)
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=30) == 130 and "1 run by another process" in lab.output(second)
    assert first.wait(timeout=60) == 0, lab.output(first)
    assert lab.starts() == [1, 1, 1, 1] and counts(lab.output(first)) == (1, 3, 0)
