"""Training from decoded pictures is training from the files, to the bit; and where there can be no cache, the files it is."""

import multiprocessing
import os
import pickle
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from salt_lab.train.libraries import load_libraries

load_libraries()

from mmdet.registry import DATASETS, TRANSFORMS  # noqa: E402
from mmengine.runner import set_random_seed  # noqa: E402

from salt_lab.compose import compose  # noqa: E402
from salt_lab.data import fingerprint, prepare  # noqa: E402
from salt_lab.errors import UserError  # noqa: E402
from salt_lab.record.lock import exclusive  # noqa: E402
from salt_lab.record.store import Store  # noqa: E402
from salt_lab.spec.trial import Trial  # noqa: E402
from salt_lab.train import loading  # noqa: E402
from salt_lab.train.loading import use_decoded  # noqa: E402
from salt_lab.train.trial import run_trial  # noqa: E402

MARKS = {"train_images": 12, "val_images": 5, "image_size": 64, "classes": 2}


def tiny(data=MARKS, image_size=(64, 64), **changes):
    spec = {
        "host": "atss",
        "salt": True,
        "backbone": {"name": "resnet18", "base_channels": 8},
        "channels": 64,
        "head_convs": 1,
        "data": data,
        "schedule": {"epochs": 1, "batch": 4, "image_size": list(image_size), "optimizer": "adamw", "lr": 1e-3, "warmup_iters": 2},
    }
    return Trial.model_validate(spec | changes)


def composed(trial, root):
    paths = prepare(trial.data, root)
    return compose(trial, paths), paths


def with_cache(trial, root):
    config, paths = composed(trial, root)
    said = use_decoded(config, paths, lambda: fingerprint(trial.data), root)
    return config, said


def samples(section, every=1):
    """A data set's images and boxes, each drawn with its own seed."""
    dataset = DATASETS.build(section)
    for index in range(0, len(dataset), every):
        set_random_seed(index)
        yield dataset[index]


def same(ours, theirs):
    meta, wanted = ours["data_samples"].metainfo, theirs["data_samples"].metainfo
    boxes, right = (each["data_samples"].gt_instances for each in (ours, theirs))
    return (
        torch.equal(ours["inputs"], theirs["inputs"])
        and meta == wanted
        and {key: type(value) for key, value in meta.items()} == {key: type(value) for key, value in wanted.items()}
        and torch.equal(boxes.bboxes.tensor, right.bboxes.tensor)
        and torch.equal(boxes.labels, right.labels)
    )


def check_same(trial, root, every=1):
    plain, _ = composed(trial, root)
    cached, said = with_cache(trial, root)
    assert "decoded pictures" in said
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        kinds = [step["type"] for step in cached[loader].dataset.pipeline]
        assert kinds[0] == "LoadDecoded" and "ResizeDecoded" in kinds and "Resize" not in kinds
        pairs = zip(samples(cached[loader].dataset, every), samples(plain[loader].dataset, every), strict=True)
        assert all(same(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("size", [(64, 64), (100, 80)])
def test_marks_look_the_same_to_the_bit_as_from_their_files(tmp_path, size):
    check_same(tiny(image_size=size), tmp_path)


@pytest.mark.parametrize(("name", "size"), [("bccd", (320, 240)), ("coco_mini", (333, 200))])
def test_photos_look_the_same_to_the_bit_as_from_their_files(shared, tmp_path, name, size):
    folder = shared / "data" / name
    data = {"train": str(folder / "annotations/train.json"), "val": str(folder / "annotations/val.json"), "images": str(folder / "images")}
    check_same(tiny(data, size), tmp_path, every=7)


def test_once_decoded_no_file_is_decoded_again(tmp_path, monkeypatch):
    config, _ = with_cache(tiny(), tmp_path)

    def refuse(*args):
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(loading.LoadImageFromFile, "transform", refuse)
    assert len(list(samples(config.train_dataloader.dataset))) == 12


def test_it_is_one_transform_for_pickles_and_forks(tmp_path):
    config, _ = with_cache(tiny(), tmp_path)
    step = TRANSFORMS.build(config.train_dataloader.dataset.pipeline[0])
    path = str(next((tmp_path / fingerprint(tiny().data) / "train").iterdir()))
    first = step.transform({"img_path": path})["img"]
    assert len(pickle.dumps(step)) < 1000, "the pixels do not travel"
    assert np.array_equal(pickle.loads(pickle.dumps(step)).transform({"img_path": path})["img"], first)


def test_a_cache_deleted_under_a_trial_costs_time_and_nothing_else(tmp_path):
    trial = tiny()
    plain, _ = composed(trial, tmp_path)
    config, _ = with_cache(trial, tmp_path)
    for path in (tmp_path / "decoded").rglob("*"):
        if path.is_file():
            path.unlink()
    pairs = zip(samples(config.train_dataloader.dataset), samples(plain.train_dataloader.dataset), strict=True)
    assert all(same(ours, theirs) for ours, theirs in pairs)


def test_a_damaged_cache_is_made_anew_and_says_the_same(tmp_path):
    trial = tiny()
    with_cache(trial, tmp_path)
    pixels = next((tmp_path / "decoded").glob("*/pixels.bin"))
    os.truncate(pixels, 1000)
    check_same(trial, tmp_path)
    assert pixels.stat().st_size == 17 * 64 * 64 * 3


@pytest.mark.parametrize(("value", "reason"), [("0", "allows 0"), ("0.0001", "decoded they would take up to 0.000195 GiB")])
def test_beyond_the_limit_the_files_are_read_as_ever_and_the_log_says_why(tmp_path, monkeypatch, value, reason):
    monkeypatch.setenv("SALT_LAB_DECODED_GB", value)
    plain, _ = composed(tiny(), tmp_path)
    config, said = with_cache(tiny(), tmp_path)
    assert said.startswith("pictures are read from their files") and reason in said
    assert config.train_dataloader == plain.train_dataloader and not (tmp_path / "decoded").exists()


@pytest.mark.parametrize("value", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_no_size_is_refused(tmp_path, monkeypatch, value):
    monkeypatch.setenv("SALT_LAB_DECODED_GB", value)
    with pytest.raises(UserError, match=rf"SALT_LAB_DECODED_GB = '{value}': must be a number of GiB"):
        with_cache(tiny(), tmp_path)


def test_a_disk_that_it_would_fill_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "LEAST_FREE", 2**60)
    assert "GiB free" in with_cache(tiny(), tmp_path)[1]
    assert not (tmp_path / "decoded").exists()


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    prepare(tiny().data, tmp_path)
    (tmp_path / "decoded").write_text("in the way")
    config, said = with_cache(tiny(), tmp_path)
    assert said.startswith("pictures are read from their files: ") and "LoadDecoded" not in str(config.train_dataloader)


def test_a_pipeline_that_resizes_by_chance_is_left_alone(tmp_path):
    config, paths = composed(tiny(), tmp_path)
    steps = [
        dict(type="RandomResize", scale=[(64, 48), (64, 64)]) if s["type"] == "Resize" else s
        for s in config.train_dataloader.dataset.pipeline
    ]
    config.train_dataloader.dataset.pipeline = steps
    assert "does not resize" in use_decoded(config, paths, lambda: "marks-1", tmp_path)


def hold(path, held, release):
    with exclusive(Path(path), "it"):
        held.set()
        release.wait(60)


def test_who_waits_too_long_for_another_process_reads_the_files(tmp_path, monkeypatch):
    trial, context = tiny(), multiprocessing.get_context("fork")
    _, said = with_cache(trial, tmp_path)
    key = said.rpartition("/")[2]
    for path in (tmp_path / "decoded" / key).iterdir():
        path.unlink()
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "decoded" / f"{key}.lock", held, release))
    other.start()
    held.wait(60)
    monkeypatch.setattr(loading, "PATIENCE", 0.2)
    assert "is being run by process" in with_cache(trial, tmp_path)[1]
    release.set()
    other.join()
    assert "17 decoded pictures" in with_cache(trial, tmp_path)[1]


def count_decodings(trial, root, log):
    plain = loading.decoder

    def slow(*steps):
        with open(log, "a") as file:
            file.write("x")
        time.sleep(0.3)
        return plain(*steps)

    loading.decoder = slow
    cv2.setNumThreads(0)
    assert "17 decoded pictures" in with_cache(trial, root)[1]


def test_processes_that_start_together_decode_once(tmp_path):
    trial, context = tiny(), multiprocessing.get_context("fork")
    prepare(trial.data, tmp_path)
    cv2.setNumThreads(0)
    together = [context.Process(target=count_decodings, args=(trial, tmp_path, tmp_path / "log")) for _ in range(3)]
    for process in together:
        process.start()
    for process in together:
        process.join()
    assert [process.exitcode for process in together] == [0, 0, 0] and (tmp_path / "log").read_text() == "x"


@pytest.mark.slow
def test_a_trial_trains_to_the_same_numbers_with_and_without_the_cache(tmp_path, monkeypatch):
    cached, plain = Store(tmp_path / "cached"), Store(tmp_path / "plain")
    ours = run_trial(tiny(), cached, study="s", launch_id="l", threads=1)
    monkeypatch.setenv("SALT_LAB_DECODED_GB", "0")
    theirs = run_trial(tiny(), plain, study="s", launch_id="l", threads=1)
    assert ours.trial_id == theirs.trial_id
    assert ours.epochs[1]["losses"] == theirs.epochs[1]["losses"] and ours.metrics == theirs.metrics
    logs = [(store.trial_dir(ours.trial_id) / "train.log").read_text() for store in (cached, plain)]
    assert "17 decoded pictures, 0.2 MiB, shared by all trials" in logs[0] and "pictures are read from their files" in logs[1]
    config = (cached.trial_dir(ours.trial_id) / "config.py").read_text()
    assert "LoadImageFromFile" in config and "Decoded" not in config, "the config can be used elsewhere"


def test_a_study_without_room_for_them_in_its_disk_budget_reads_the_files_unless_they_are_decoded_already(tmp_path):
    trial = tiny()

    def said(room):
        config, paths = composed(trial, tmp_path)
        return use_decoded(config, paths, lambda: fingerprint(trial.data), tmp_path, room)

    assert "and retention.disk_gb leaves 9.54e-05 GiB" in said(102_400) and not (tmp_path / "decoded").exists()
    assert "shared by all trials" in said(None) and "shared by all trials" in said(0)
