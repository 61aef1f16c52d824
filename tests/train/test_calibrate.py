"""Parts of a calibration: the largest batch, the clock that leaves out other people's work, and ends by the kernel's hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from salt_lab.errors import UserError
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train import calibrate as calibration
from salt_lab.train import measure
from salt_lab.train.calibrate import calibrate
from salt_lab.train.largest import Picture, largest_batch
from salt_lab.train.memory import forget_peak, peak_rss_gb
from salt_lab.train.stopwatch import Clock, queued_seconds

linux = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel counts it on Linux only")
TINY = Trial.model_validate({"data": {"train_images": 2, "val_images": 1, "image_size": 32}})


def test_a_batch_pads_to_the_tallest_and_the_widest_of_one_orientation():
    pictures = [Picture(480, 640, 1), Picture(200, 800, 1), Picture(800, 200, 9), Picture(480, 640, 5)]
    largest = largest_batch(pictures, 2, (640, 480))
    assert (largest.height, largest.width) == (480, 640) and set(largest.places) <= {0, 1, 3}
    assert set(largest_batch([Picture(400, 600, 1), Picture(300, 640, 1)], 2, (1333, 800)).places) == {0, 1}


def test_of_equal_images_the_crowded_ones_make_the_largest_batch():
    pictures = [Picture(96, 96, boxes) for boxes in (1, 9, 2, 8)]
    assert set(largest_batch(pictures, 2, (96, 96)).places) == {1, 3}


def test_a_batch_is_padded_as_the_model_pads_it_and_never_has_more_images_than_there_are():
    assert largest_batch([Picture(97, 97, 1)], 8, (97, 97), divisor=32) == ((0,), 128, 128)


@linux
def test_the_clock_leaves_out_the_time_that_others_had_the_core():
    core = {min(os.sched_getaffinity(0))}
    before = os.sched_getaffinity(0)
    rival = subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {core})\nwhile True: pass"])
    try:
        os.sched_setaffinity(0, core)
        time.sleep(0.3)
        clock, wall = Clock(), time.perf_counter()
        while time.perf_counter() - wall < 0.5:
            pass
        lap = clock.lap()
    finally:
        os.sched_setaffinity(0, before)
        rival.kill()
        rival.wait()
    assert lap < 0.42 and clock.stolen > 0.15  # the kernel shares the core among equals; on a busy machine with others too


@linux
def test_sleeping_is_not_queueing():
    clock, queued = Clock(), queued_seconds()
    time.sleep(0.2)
    assert clock.lap() > 0.1 and queued_seconds() - queued < 0.1


@linux
def test_the_peak_of_memory_is_this_processs_own_and_can_be_forgotten():
    block = bytearray(200 * 2**20)
    block[::4096] = b"1" * len(block[::4096])
    high = peak_rss_gb()
    del block
    child = "from salt_lab.train.memory import peak_rss_gb\nprint(peak_rss_gb())"
    said = subprocess.run(
        [sys.executable, "-c", child], cwd=Path(calibration.__file__).parents[2], capture_output=True, check=True, text=True
    )
    assert float(said.stdout) < 0.1 < high  # getrusage would say what this process had when it forked
    forget_peak()
    assert peak_rss_gb() < high - 0.1
    assert peak_rss_gb(2**22 + 1) is None


@pytest.fixture
def end_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The measuring process is this shell script instead."""

    def replace(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(calibration.sys, "executable", str(path))

    return replace


def test_a_process_that_the_kernel_kills_ran_out_of_memory_and_takes_nobody_along(end_with, tmp_path: Path):
    end_with("sleep 0.3; kill -9 $$")
    found = calibrate(TINY, Store(tmp_path / "runs"))
    assert found.ended == "out of memory" and not found.ok and found.memory_gb > 0 and found.step_seconds is None


def test_one_copy_of_several_that_is_killed_speaks_for_all(end_with, tmp_path: Path):
    end_with('case "$3" in */0) kill -9 $$;; *) touch "$3/ready"; exit 3;; esac')
    assert calibrate(TINY, Store(tmp_path / "runs"), at_once=2).ended == "out of memory"


def test_a_process_that_ends_otherwise_is_quoted(end_with, tmp_path: Path):
    end_with("echo 'no such op' >&2; exit 3")
    assert calibrate(TINY, Store(tmp_path / "runs")).ended == "its process ended with code 3: no such op"


def test_a_process_that_does_not_end_is_given_up(end_with, tmp_path: Path):
    end_with("exec sleep 60")
    began = time.monotonic()
    assert calibrate(TINY, Store(tmp_path / "runs"), limit_s=0.3).ended == "not through after 0 s"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate 2 GiB", "DefaultCPUAllocator: can't allocate memory: 1 bytes"])
def test_an_allocation_that_fails_is_a_lack_of_memory_too(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(order: object, folder: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(measure, "measure", fail)
    monkeypatch.setattr(measure, "die_first", lambda: None)
    (tmp_path / "order.json").write_text("{}")
    assert measure.main(tmp_path) == 0
    assert json.loads((tmp_path / "answer.json").read_text())["ended"] == "out of memory"


def test_less_than_one_worker_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="workers = 0"):
        calibrate(TINY, Store(tmp_path), workers=0)
