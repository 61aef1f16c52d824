"""``data make | show | check``: the embedded set with other values, a picture of it, and somebody's COCO files."""

from __future__ import annotations

import json
from collections.abc import Callable
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
