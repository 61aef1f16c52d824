"""salt-lab infer: pictures, folders and videos in, drawn ones out; mistakes are one line and nothing is written over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from salt_lab.cli.infer import as_numbers, draw_result
from salt_lab.cli.pictures import MAX_SHEET, plan_job
from salt_lab.errors import UserError
from salt_lab.report.video import VideoReader, VideoWriter
from salt_lab.train.infer import InferResult

SIZE = (64, 80)  # H, W of every picture here


def result(points: bool = True, image: Any = None) -> InferResult:
    boxes = np.array([[10, 10, 40, 40], [20, 20, 60, 50], [5, 30, 25, 60]], dtype=np.float32)
    grid = np.stack([np.linspace(boxes[:, 0], boxes[:, 2], 9, axis=1), np.linspace(boxes[:, 1], boxes[:, 3], 9, axis=1)], axis=2)
    return InferResult(
        boxes_N4=boxes,
        scores_N=np.array([0.9, 0.5, 0.2]),
        labels_N=np.array([0, 1, 0]),
        classes=("disc", "cross"),
        r_points=grid if points else None,
        c_points=grid + 2 if points else None,
        coarse_N4=boxes + 1 if points else None,
        image=np.full((*SIZE, 3), 128, np.uint8) if image is None else image,
    )


class FakeInferencer:
    """Finds the same three boxes in every picture, without a model."""

    limits: tuple[str, ...] = ()
    asked: list[tuple[bool, float]]

    def __init__(self, config: str, checkpoint: str, device: str | None) -> None:
        type(self).asked = []

    def __call__(self, image: Any, points: bool, at_least: float) -> InferResult:
        self.asked.append((points, at_least))
        pixels = image
        if isinstance(image, str) and (pixels := cv2.imread(image)) is None:
            raise UserError(f"{image}: cannot be read as a picture")
        return result(points and not self.limits, pixels)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Config and checkpoint of a model that is not there."""
    files = [tmp_path / "config.py", tmp_path / "weights.pth"]
    for file in files:
        file.touch()
    monkeypatch.setattr("salt_lab.train.infer.Inferencer", FakeInferencer)
    return files


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with 1.png, 2.jpg, 10.png, a text, a hidden file and a subfolder."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("1.png", "2.jpg", "10.png")):
        cv2.imwrite(str(folder / name), np.full((*SIZE, 3), 60 * number, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    return folder


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Ten frames, each brighter than the one before, of odd width."""
    path = tmp_path / "film.avi"
    with VideoWriter(path, 5.0) as video:
        for number in range(10):
            video.add(np.full((48, 63, 3), 20 * number, np.uint8))
    return path


class TestDrawing:
    def test_only_boxes_with_the_score_are_drawn(self) -> None:
        assert [draw_result(result(points=False), threshold, False)[1] for threshold in (0, 0.3, 0.5, 0.95)] == [3, 2, 2, 0]

    def test_points_are_drawn_when_asked_for_and_there(self) -> None:
        plain, _ = draw_result(result(), 0.3, points=False)
        dotted, _ = draw_result(result(), 0.3, points=True)
        assert dotted.shape[1] == plain.shape[1] and (dotted[: plain.shape[0]] != plain).any()
        without, _ = draw_result(result(points=False), 0.3, points=True)
        assert np.array_equal(without, plain)

    def test_the_numbers_are_those_of_the_shown_boxes_and_points_that_are_not_there_are_left_out(self) -> None:
        found = result()
        assert found.c_points is not None and found.coarse_N4 is not None and found.r_points is not None
        for array in (found.c_points, found.r_points, found.coarse_N4):
            array[1] = np.nan
        first, second = as_numbers(found, 0.3, points=True)
        assert (first["class"], first["score"], first["box"]) == ("disc", 0.9, [10, 10, 40, 40])
        assert first["coarse_box"] == [11, 11, 41, 41] and len(first["r_points"]) == len(first["c_points"]) == 9
        assert second["class"] == "cross" and not {"coarse_box", "r_points", "c_points"} & set(second)
        assert set(as_numbers(result(), 0.3, points=False)[0]) == {"label", "class", "score", "box"}


class TestPictures:
    def test_one_picture_becomes_one_and_several_a_sheet(self, model: list[Path], photos: Path, run: Callable, tmp_path: Path) -> None:
        told = run("infer", *model, photos / "1.png", "-o", tmp_path / "new" / "one.png", "--points")
        assert told.exit_code == 0, told.output
        assert "1.png: 2 boxes with score >= 0.3, of 3" in told.output and FakeInferencer.asked == [(True, 0.3)]
        run("infer", *model, photos / "1.png", photos / "2.jpg", "-o", tmp_path / "two.png", "--points")
        one, two = cv2.imread(str(tmp_path / "new" / "one.png")), cv2.imread(str(tmp_path / "two.png"))
        assert two.shape[1] == 2 * one.shape[1] + 3 * 8 and two.shape[0] > one.shape[0]

    def test_a_folder_is_drawn_into_a_folder_under_the_same_names(
        self, model: list[Path], photos: Path, run: Callable, tmp_path: Path
    ) -> None:
        told = run("infer", *model, photos, "-o", f"{tmp_path}/drawn/", "--json", tmp_path / "numbers.json")
        assert told.exit_code == 0, told.output
        assert sorted(os.listdir(tmp_path / "drawn")) == ["1.png", "10.png", "2.jpg"]
        content = json.loads((tmp_path / "numbers.json").read_text())
        assert [Path(entry["file"]).name for entry in content["pictures"]] == ["1.png", "2.jpg", "10.png"]
        assert content["classes"] == ["disc", "cross"] and [len(entry["detections"]) for entry in content["pictures"]] == [2, 2, 2]

    def test_what_the_model_lacks_is_said_once(
        self, model: list[Path], photos: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FakeInferencer, "limits", ("this model's head has no SALT operator",))
        told = run("infer", *model, photos, "-o", "sheet.png", "--points")
        assert told.exit_code == 0 and told.stderr.count("no SALT operator") == 1
        assert "no SALT operator" not in run("infer", *model, photos, "-o", "sheet.png").stderr

    def test_nothing_above_the_threshold_says_what_would_be_seen(self, model: list[Path], photos: Path, run: Callable) -> None:
        told = run("infer", *model, photos / "1.png", "-o", "out.png", "--score-thr", "0.95")
        assert told.exit_code == 0 and "nothing to show" in told.stderr and "--score-thr 0.9" in told.stderr

    def test_a_file_that_is_no_picture_is_named(self, model: list[Path], photos: Path, run: Callable) -> None:
        told = run("infer", *model, photos / "notes.txt", "-o", "out.png")
        assert told.exit_code == 2 and "notes.txt: cannot be read as a picture" in told.stderr and not Path("out.png").exists()

    def test_a_place_that_cannot_be_written_is_named(self, model: list[Path], photos: Path, run: Callable) -> None:
        Path("file").touch()
        for words in (["-o", "file/out.png"], ["-o", "out.png", "--json", "file/out.json"]):
            told = run("infer", *model, photos / "1.png", *words)
            assert told.exit_code == 2 and words[-1] in told.stderr and "cannot be written" in told.stderr


class TestVideos:
    def test_every_frame_of_a_video_is_drawn_into_a_video(self, model: list[Path], film: Path, run: Callable, tmp_path: Path) -> None:
        told = run("infer", *model, film, "-o", tmp_path / "drawn" / "film.mp4", "--json", tmp_path / "numbers.json", "--points")
        assert told.exit_code == 0, told.output
        assert "10 frames at 5 a second, 10 of them with boxes" in told.output
        frames = list(VideoReader(tmp_path / "drawn" / "film.mp4"))
        assert len(frames) == 10 and frames[0].shape[1] == 64 * 9  # 48 high: enlarged nine times, and even
        brightness = [float(frame[:100, -40:].mean()) for frame in frames]
        assert all(a < b for a, b in pairwise(brightness))
        entries = json.loads((tmp_path / "numbers.json").read_text())["pictures"]
        assert [(entry["frame"], entry["seconds"]) for entry in entries][-1] == (9, 1.8)
        assert os.listdir(tmp_path / "drawn") == ["film.mp4"]

    def test_an_interrupted_video_leaves_nothing_behind(self, tmp_path: Path) -> None:
        def broken() -> None:
            with VideoWriter(tmp_path / "out.mp4", 5.0) as video:
                video.add(np.zeros((48, 64, 3), np.uint8))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            broken()
        assert os.listdir(tmp_path) == []

    def test_a_file_that_is_no_video_is_named(self, model: list[Path], run: Callable, tmp_path: Path) -> None:
        (tmp_path / "film.mp4").write_text("words")
        told = run("infer", *model, tmp_path / "film.mp4", "-o", "out.mp4")
        assert told.exit_code == 2 and "film.mp4: cannot be read as a video" in told.stderr and told.stderr.count("\n") == 1

    def test_a_codec_that_is_not_there_is_said_with_the_other_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("salt_lab.report.video", fromlist=["CODECS"]).CODECS, ".mp4", "?!?!")
        with (
            pytest.raises(UserError, match=r"cannot write 64 x 48 video .* ending in \.avi"),
            VideoWriter(tmp_path / "o.mp4", 5.0) as video,
        ):
            video.add(np.zeros((48, 64, 3), np.uint8))
        assert os.listdir(tmp_path) == []

    def test_frames_of_another_size_are_refused(self, tmp_path: Path) -> None:
        with VideoWriter(tmp_path / "o.avi", 5.0) as video:
            video.add(np.zeros((48, 64, 3), np.uint8))
            with pytest.raises(ValueError, match="a frame of"):
                video.add(np.zeros((48, 62, 3), np.uint8))


class TestPlan:
    @pytest.mark.parametrize(
        ("inputs", "output", "said"),
        [
            (["photos/1.png"], "out.txt", "give a picture's name"),
            (["photos/1.png"], "out.mp4", "give a picture's name"),
            (["film.avi"], "out.png", "a video becomes a video"),
            (["film.avi"], "drawn/", "a video becomes a video"),
            (["film.avi", "photos/1.png"], "out.mp4", "one video at a time"),
            (["photos/1.png"], "photos/1.png", "would be written over"),
            (["photos/1.png", "photos/2.jpg"], "photos/", "would be written over"),
            (["photos/1.png", "photos/2.jpg"], "link.jpg", "would be written over"),
            (["photos"], "photos/", "would be written over"),
            (["photos"], "photos/drawn/", "lies in the input folder"),
            (["photos"], "photos/sheet.png", "lies in the input folder"),
            (["film.avi"], "./film.avi", "would be written over"),
            (["photos", "copy"], "drawn/", "two pictures are called 1.png"),
            (["photos/sub"], "drawn/", "no pictures in this folder"),
            (["upper"], "drawn/", "subfolders are not searched"),
        ],
    )
    def test_a_mistake_is_said_before_a_model_is_built(
        self, inputs: list[str], output: str, said: str, photos: Path, film: Path, run: Callable, tmp_path: Path
    ) -> None:
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "1.png").touch()
        (tmp_path / "upper" / "lower").mkdir(parents=True)
        (tmp_path / "link.jpg").symlink_to(photos / "2.jpg")
        (tmp_path / "x").touch()
        told = run("infer", "x", "x", *inputs, "-o", output)
        assert told.exit_code == 2 and said in told.stderr and told.stderr.count("\n") == 1, told.stderr

    def test_a_folder_is_one_that_is_there_or_ends_in_a_slash(self, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        assert plan_job([photos], str(tmp_path / "there")).kind == plan_job([photos], f"{tmp_path}/not_yet/").kind == "folder"
        assert [path.name for path in plan_job([photos], "sheet.png").pictures] == ["1.png", "2.jpg", "10.png"]

    def test_config_and_checkpoint_are_not_written_over_by_the_numbers(self, photos: Path) -> None:
        with pytest.raises(UserError, match=r"config\.json: is an input"):
            plan_job([photos], "out.png", Path("config.json"), [Path("config.json")])
        with pytest.raises(UserError, match=r"ends in \.json"):
            plan_job([photos], "out.png", Path("numbers.txt"))

    def test_too_many_pictures_for_a_sheet_go_into_a_folder(self, tmp_path: Path) -> None:
        many = [tmp_path / f"{number}.png" for number in range(MAX_SHEET + 1)]
        with pytest.raises(UserError, match="-o sheet/"):
            plan_job(many, "sheet.png")
        assert plan_job(many, "sheet/").kind == "folder"

    def test_a_picture_without_a_pictures_suffix_gets_one_in_a_folder(self) -> None:
        job = plan_job([Path("scan"), Path("b.JPG")], "drawn/")
        assert [job.target(path) for path in job.pictures] == [Path("drawn/scan.png"), Path("drawn/b.JPG")]
