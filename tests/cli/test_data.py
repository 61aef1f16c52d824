"""``data make | show | check | coco | select``: the embedded set with other values, a picture of it, COCO itself, and somebody's COCO files."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SMALL = ("data.train_images=5", "val_images=3", "data.image_size=64")


def test_make_draws_what_the_values_ask_for_and_twice_the_same(run: Callable, store: Path) -> None:
    first = run("data", "make", *SMALL, "--store", store)
    assert first.exit_code == 0, first.output
    assert "train 5 images" in first.output and "val 3 images" in first.output and "3 classes" in first.output
    assert run("data", "make", *SMALL, "--store", store).output == first.output
    other = run("data", "make", *SMALL, "data.mark_offset=0.5", "--store", store).output
    assert other.split(":")[0] != first.output.split(":")[0]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.mark_ofset=0.5", "Did you mean 'mark_offset'?"),
        ("data.mark_offset=2", "at most 1"),
        ("data.train_images=0", "at least 1"),
        ("data.train_images=many", "integer"),
        ("train_images", "key=value"),
        ("data.train=train.json", "no key of marks data"),
    ],
)
def test_make_refuses_what_it_cannot_draw(word: str, said: str, run: Callable, store: Path) -> None:
    result = run("data", "make", word, "--store", store)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and not store.exists()
    assert said in result.stderr


def test_show_writes_a_picture_of_the_embedded_set_or_of_a_studys(run: Callable, study: Path, store: Path, tmp_path: Path) -> None:
    import cv2

    for words in (SMALL, (study,)):
        sheet = tmp_path / "out" / "sheet.png"
        result = run("data", "show", *words, "--store", store, "-o", sheet, "-n", 4)
        assert result.exit_code == 0, result.output
        assert "4 images of the train split" in result.output
        picture = cv2.imread(str(sheet))
        assert picture.shape[0] > 128 and picture.std() > 10
        sheet.unlink()


def test_check_counts_a_set_that_is_fit(run: Callable, coco: dict[str, Path]) -> None:
    result = run("data", "check", "--train", coco["train"], "--val", coco["val"], "--images", coco["images"])
    assert result.exit_code == 0, result.output
    assert "fit to use: train 2 images, 2 boxes; val 2 images, 2 boxes; 1 classes: cell" in result.output


def test_check_lists_every_problem_with_its_file_and_id(run: Callable, coco: dict[str, Path]) -> None:
    content = json.loads(coco["train"].read_text())
    content["annotations"][0]["bbox"] = [50, 30, 20, 20]
    content["annotations"][1]["category_id"] = 7
    coco["train"].write_text(json.dumps(content))
    result = run("data", "check", "--train", coco["train"], "--val", coco["val"], "--images", coco["images"])
    assert result.exit_code == 2 and "2 problems" in result.stderr
    for part in ("train.json", "annotation id 1", "annotation id 2", "7"):
        assert part in result.stderr


def test_check_takes_a_study(run: Callable, study: Path) -> None:
    assert "nothing to check" in run("data", "check", study).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--train, --val, --images"),
        (["--train", "a.json"], "--val, --images"),
        (["notes.txt"], "no study file"),
        (["x.yaml", "--train", "a.json"], "not both"),
    ],
)
def test_check_says_what_it_needs(words: list[str], said: str, run: Callable) -> None:
    result = run("data", "check", *words)
    assert result.exit_code == 2 and said in result.stderr


@pytest.fixture
def tiny_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server with three tiny archives in COCO's layout, which stand for the official ones."""
    import cv2
    import numpy as np

    from salt_lab.cli import data_coco
    from salt_lab.data.official import Archive, Release, Split

    site = tmp_path / "site"
    site.mkdir()
    picture = cv2.imencode(".jpg", np.full((24, 32, 3), 99, np.uint8))[1].tobytes()
    lists = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 32, "height": 24}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "person"}],
    }
    splits = ("train2017", "val2017")
    archives = []
    for folder in ("annotations", *splits):
        names = [f"instances_{split}.json" for split in splits] if folder == "annotations" else ["1.jpg"]
        with zipfile.ZipFile(site / f"{folder}.zip", "w") as archive:
            for name in names:
                archive.writestr(f"{folder}/{name}", json.dumps(lists) if folder == "annotations" else picture)
        content = (site / f"{folder}.zip").read_bytes()
        archives.append(Archive(f"{folder}.zip", len(content), hashlib.sha256(content).hexdigest(), folder, len(content)))
    tiny = Release(tuple(archives), tuple(Split(split, f"annotations/instances_{split}.json", 1) for split in splits), 1)
    monkeypatch.setattr(data_coco, "release", lambda: tiny)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}), directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_coco_is_one_command_fetched_and_checked_and_the_next_step_named(run: Callable, tiny_coco: str, tmp_path: Path) -> None:
    root = tmp_path / "coco"
    result = run("data", "coco", "--root", root, "--from", tiny_coco)
    assert result.exit_code == 0, result.output
    for part in (
        "to fetch from",
        "at 10 MB/s",
        "brought annotations, train2017, val2017",
        "whole: train2017 1 images, 1 boxes",
        f"SALT_LAB_COCO={root}",
    ):
        assert part in result.output
    again = run("data", "coco", "--root", root, "--from", "http://127.0.0.1:1")
    assert again.exit_code == 0 and "nothing to fetch" in again.output, "a whole copy needs no network"
    assert run("data", "coco", "--root", root, "--check").exit_code == 0


def test_a_damaged_copy_and_a_missing_one_are_bad_input(run: Callable, tiny_coco: str, tmp_path: Path) -> None:
    root = tmp_path / "coco"
    run("data", "coco", "--root", root, "--from", tiny_coco)
    (root / "val2017" / "1.jpg").write_bytes(b"broken")
    result = run("data", "coco", "--root", root, "--check")
    assert result.exit_code == 2 and "1.jpg: not a readable image" in result.stderr
    assert run("data", "coco", "--root", tmp_path / "none", "--check").exit_code == 2


def test_without_network_coco_says_what_to_do(run: Callable, tiny_coco: str, tmp_path: Path) -> None:
    result = run("data", "coco", "--root", tmp_path / "coco", "--from", "http://127.0.0.1:1")
    assert result.exit_code == 2 and "cannot be reached" in result.stderr and "--check" in result.stderr
    assert not (tmp_path / "coco").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "ftp://x"], "http://"),
        (["--check", "--from", "http://x"], "--check fetches nothing"),
        (["--check", "--keep-zips"], "leave"),
    ],
)
def test_coco_refuses_words_that_do_not_go_together(words: list[str], said: str, run: Callable, tmp_path: Path) -> None:
    result = run("data", "coco", "--root", tmp_path / "coco", *words)
    assert result.exit_code == 2 and said in result.stderr


def test_select_writes_fewer_classes_and_says_what_is_left(run: Callable, coco: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "cells"
    result = run("data", "select", coco["train"], coco["val"], "--class", "cell", "-o", out)
    assert result.exit_code == 0 and result.output.count("1 classes (cell), 2 boxes on 2 of 2 images; 0 boxes left out") == 2
    assert run("data", "check", "--train", out / "train.json", "--val", out / "val.json", "--images", coco["images"]).exit_code == 0
    for words, said in (
        ([], "--class NAME"),
        (["--class", "cel"], "Did you mean 'cell'"),
        (["--class", "cell", coco["train"]], "same name"),
    ):
        result = run("data", "select", coco["train"], *words, "-o", tmp_path / "x")
        assert result.exit_code == 2 and said in result.stderr and not (tmp_path / "x").exists()
