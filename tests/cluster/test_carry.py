"""``cluster/carry.py``: a results folder goes to another machine in a few small files and comes back, and nothing is lost or overwritten."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from salt_lab.errors import StoreError
from salt_lab.record.store import Store
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.launch import run_study
from salt_lab.schedule.preflight import jobs_of
from salt_lab.schedule.time_limit import TimeLimit
from salt_lab.spec import load_study
from salt_lab.spec.study import Study
from salt_lab.testing import fake_trial
from salt_lab.train.checkpoints import resumable

STUDY = """
base:
  backbone: {name: resnet18, base_channels: 8}
  channels: 64
  head_convs: 1
  data: {kind: marks, train_images: 16, val_images: 4, image_size: 64, classes: 2}
  schedule: {epochs: 2, batch: 4, image_size: [64, 64], optimizer: adamw, lr: 0.002, warmup_iters: 5}
axes:
  host: [atss, gfl]
compare:
  baseline: {host: atss}
"""
MIB = 2**20


@pytest.fixture(scope="module")
def carry(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script, as a module."""
    return script("cluster/carry.py")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two trials."""
    (tmp_path / "tiny.yaml").write_text(STUDY)
    return load_study(tmp_path / "tiny.yaml", [])


def stopped_after_an_epoch(study: Study, root: Path, sizes: tuple[int, int] = (1000, 1000)) -> Store:
    """A results folder whose trials were interrupted after 1 and after 2 epochs, with checkpoints of so many bytes."""
    store = Store(root)
    for job, epochs, size in zip(jobs_of(study.trials()), (1, 2), sizes, strict=True):
        with store.lock(job.trial_id):
            recorder = fake_trial.FolderRecorder(store, job.trial_id)
            start = {"study": study.name, "launch_id": "l", "data_fingerprint": "", "provenance": fake_trial.PROVENANCE}
            recorder.start(trial=fake_trial.canonical(job.trial), **start)
            for epoch in range(1, epochs + 1):
                recorder.epoch(epoch, losses={"loss": 1.0}, lr=0.1, seconds=1.0, images_per_second=1.0, memory_mb=1.0)
                checkpoint(store, job.trial_id, f"epoch_{epoch}.pth", size)
            recorder.interrupted("time is up")
    return store


def checkpoint(store: Store, trial_id: str, name: str, size: int) -> None:
    folder = store.trial_dir(trial_id) / "checkpoints"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr("x/data.pkl", bytes(size))


def contents(store: Store) -> dict[str, bytes]:
    """Journals and checkpoints from which trials go on."""
    found = {}
    for trial_id in store.trial_ids():
        found[trial_id] = (store.trial_dir(trial_id) / "record.jsonl").read_bytes()
        last = resumable(store.trial_dir(trial_id) / "checkpoints").path
        found |= {f"{trial_id}/{last.name}": last.read_bytes()} if last else {}
    return found


def test_what_is_packed_in_small_pieces_and_unpacked_elsewhere_goes_on_where_it_was(carry, study, tmp_path):
    store = stopped_after_an_epoch(study, tmp_path / "there", sizes=(MIB // 2, MIB))
    done = carry.pack(study, store, tmp_path / "pack", piece_mib=0.5, total_mib=3, files=6)
    files = list((tmp_path / "pack").iterdir())
    assert len(files) == len(done["pieces"]) + 1 <= 6 and max(path.stat().st_size for path in files) <= MIB // 2
    carry.unpack(tmp_path / "pack", Store(tmp_path / "here"))
    assert contents(Store(tmp_path / "here")) == contents(store) and len(contents(store)) == 4


def test_unpacking_twice_changes_nothing_and_a_record_that_has_gone_on_here_keeps_its_own(carry, study, tmp_path):
    store = stopped_after_an_epoch(study, tmp_path / "runs")
    carry.pack(study, store, tmp_path / "pack")
    before = contents(store)
    assert carry.unpack(tmp_path / "pack", store)[1] == 0 and contents(store) == before
    trial_id = store.trial_ids()[0]
    shutil.rmtree(store.trial_dir(trial_id) / "checkpoints")
    with store.lock(trial_id):
        fake_trial.FolderRecorder(store, trial_id).interrupted("once more")
    grown = contents(store)
    carry.unpack(tmp_path / "pack", store)
    assert contents(store) == grown, "a checkpoint of an earlier state was put beside a later record"


def test_where_not_all_fits_the_trial_that_has_come_farthest_keeps_its_checkpoint_and_the_other_is_named(carry, study, tmp_path):
    store = stopped_after_an_epoch(study, tmp_path / "there", sizes=(MIB, MIB))
    near, far = (job.trial_id for job in jobs_of(study.trials()))
    done = carry.pack(study, store, tmp_path / "pack", total_mib=1.6)
    assert (done["checkpoints"], done["left_out"]) == ([far], [near])
    here = Store(tmp_path / "here")
    carry.unpack(tmp_path / "pack", here)
    assert here.record(near).state == "interrupted" and resumable(here.trial_dir(near) / "checkpoints").path is None
    with pytest.raises(StoreError, match=r"records and detections of tiny take .* MiB"):
        carry.pack(study, store, tmp_path / "other", total_mib=0.2)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("harm", ["cut", "lost", "changed"])
def test_a_pack_that_was_harmed_on_its_way_is_refused_and_nothing_is_written(carry, study, tmp_path, harm):
    carry.pack(study, stopped_after_an_epoch(study, tmp_path / "there"), tmp_path / "pack")
    piece = tmp_path / "pack" / "pack.0"
    content = piece.read_bytes()
    piece.unlink() if harm == "lost" else piece.write_bytes(content[:-5] if harm == "cut" else b"x" + content[1:])
    with pytest.raises(StoreError, match=r"pack\.0: (is not there|damaged).*Nothing was written"):
        carry.unpack(tmp_path / "pack", Store(tmp_path / "here"))
    assert not (tmp_path / "here").exists()


def test_a_trial_that_runs_is_not_packed_and_a_folder_that_is_no_pack_is_named(carry, study, tmp_path):
    store = stopped_after_an_epoch(study, tmp_path / "runs")
    with store.lock(store.trial_ids()[0]), pytest.raises(StoreError, match="is being run: end it first"):
        carry.pack(study, store, tmp_path / "pack")
    with pytest.raises(StoreError, match=r"pack\.json: is not there"):
        carry.unpack(tmp_path, store)


@pytest.mark.slow
def test_the_script_trains_side_by_side_packs_when_it_is_ended_and_goes_on_from_the_pack(repository, study, tmp_path):
    """Two processes, trials that train nothing; the first call is ended amid its trials, the second takes its pack to an empty folder."""
    fake = tmp_path / "fake"
    fake.mkdir()
    patch = "import salt_lab.testing.fake_trial as f, salt_lab.train.trial as t\nt.run_trial = f.fake_trial\n"
    (fake / "sitecustomize.py").write_text(patch)
    words = ["bash", str(repository / "cluster" / "gpu_minutes.sh"), str(tmp_path / "tiny.yaml"), "seeds=[1004]", "schedule.epochs=8"]

    def call(name: str) -> subprocess.Popen[str]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHON": sys.executable, "PYTHONPATH": str(fake), "PROCESSES": "2"}
        places = {"STORE": str(tmp_path / f"runs-{name}"), "OUT": str(tmp_path / "packs" / name), "FROM": str(tmp_path / "packs")}
        return subprocess.Popen(words, env=environment | places, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    first, there = call("one"), Store(tmp_path / "runs-one")
    end = time.monotonic() + 60
    while sum(bool(there.record(trial_id).epochs) for trial_id in there.trial_ids()) < 2:
        assert first.poll() is None and time.monotonic() < end, "not both trials were begun"
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 130 and "2 trials and 0 checkpoints" in said, said
    second = call("two")
    said = second.communicate(timeout=120)[0]
    assert second.returncode == 0, said
    here = Store(tmp_path / "runs-two")
    starts = [[line["resumed_epoch"] for line in here.journal(i).read() if line["event"] == "start"] for i in here.trial_ids()]
    assert [here.record(trial_id).state for trial_id in here.trial_ids()] == ["done", "done"]
    assert all(len(each) == 2 and each[1] > 0 for each in starts), "they did not go on from the first call"
    assert json.loads((tmp_path / "packs" / "two" / "pack.json").read_text())["study"] == "tiny"


@pytest.mark.slow
def test_a_trial_cut_off_by_the_time_limit_packed_wiped_and_unpacked_ends_bit_equal_to_one_that_was_never_touched(
    carry, study, tmp_path, monkeypatch
):
    from salt_lab.train.hooks import RecordHook

    limit, original = TimeLimit(3600), RecordHook.after_train_iter

    def over_amid_the_second_epoch(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 5:
            limit.end()
        original(self, runner, batch_idx, data_batch, outputs)

    cut = Store(tmp_path / "cut")
    with monkeypatch.context() as patched:
        patched.setattr(RecordHook, "after_train_iter", over_amid_the_second_epoch)
        with pytest.raises(KeyboardInterrupt), limit:
            run_study(study, cut, SerialExecutor(1, limit=limit))
    carry.pack(study, cut, tmp_path / "pack")
    shutil.rmtree(cut.root)
    resumed, whole = Store(tmp_path / "resumed"), Store(tmp_path / "whole")
    carry.unpack(tmp_path / "pack", resumed)
    for store in (resumed, whole):
        assert run_study(study, store, SerialExecutor(1)).complete
    first = jobs_of(study.trials())[0].trial_id
    start = [line for line in resumed.journal(first).read() if line["event"] == "start"][1]
    assert (start["resumed_epoch"], start["resumed_step"]) == (1, 2)
    for job in jobs_of(study.trials()):
        assert outcome(resumed, job.trial_id) == outcome(whole, job.trial_id)


def outcome(store: Store, trial_id: str) -> tuple:
    """Losses of each epoch, metrics and detections of a trial, to the last bit."""
    import gzip

    record = store.record(trial_id)
    assert record.state == "done"
    return (
        [epoch["losses"] for epoch in record.epochs.values()],
        record.metrics,
        gzip.open(store.trial_dir(trial_id) / "detections.json.gz").read(),
    )
