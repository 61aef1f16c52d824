"""salt-lab browse: images and boxes as training sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from mmengine.config import Config

from salt_lab.cli.main import cli
from salt_lab.errors import DataError, UserError
from salt_lab.train.browse import augmented

LOAD = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)]
PACK = dict(type="PackDetInputs")


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Six 60 x 40 pictures; each has a white 20 x 10 rectangle with a box at its own place, the first also a crowd box."""
    images, annotations = [], []
    for number in range(1, 7):
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[5:15, 3 * number : 3 * number + 20] = 255
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        images.append(dict(id=number, file_name=f"{number}.png", width=60, height=40))
        annotations.append(dict(id=number, image_id=number, category_id=number % 2 + 1, bbox=[3 * number, 5, 20, 10], area=200, iscrowd=0))
    annotations.append(dict(id=9, image_id=1, category_id=1, bbox=[0, 25, 60, 15], area=900, iscrowd=1))
    categories = [dict(id=1, name="cell"), dict(id=2, name="dust")]
    (tmp_path / "ann.json").write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return tmp_path


def config(folder: Path, *steps: dict[str, Any], pipeline: list[Any] | None = None) -> Config:
    dataset = dict(
        type="CocoDataset",
        ann_file=str(folder / "ann.json"),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=("cell", "dust")),
        pipeline=[*LOAD, *steps, PACK] if pipeline is None else pipeline,
    )
    return Config(dict(train_dataloader=dict(dataset=dataset), val_dataloader=dict(dataset=dataset | dict(test_mode=True))))


def show(config: Config, n: int = 6, seed: int = 0, split: str = "train") -> list[Any]:
    return augmented(config, "x.py", split, n, seed)[0]


def fits(sample: Any) -> bool:
    """Does the first box hold the white rectangle exactly?"""
    rows, columns = np.nonzero(sample.image[:, :, 0] > 127)
    own = sample.boxes_N4[~sample.ignored_N][0]
    return bool(np.abs(own - [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).max() <= 1)


def test_boxes_move_with_the_image_through_resizing_and_mirroring(coco: Path) -> None:
    plain, moved = show(config(coco)), show(config(coco, dict(type="Resize", scale=(120, 80)), dict(type="RandomFlip", prob=1.0)))
    assert all(fits(sample) for sample in (*plain, *moved))
    assert moved[0].image.shape == (80, 120, 3) and plain[0].image.shape == (40, 60, 3)
    np.testing.assert_allclose(moved[0].boxes_N4[:, 0], 120 - 2 * plain[0].boxes_N4[:, 2], atol=1e-3)
    assert "horizontal flip" in moved[0].caption and "flip" not in plain[0].caption
    assert moved[0].caption.startswith("id 1  1.png  120x80")


def test_crowd_boxes_are_marked_as_ignored(coco: Path) -> None:
    assert show(config(coco))[0].ignored_N.tolist() == [False, True]
    assert not any(sample.ignored_N.any() for sample in show(config(coco))[1:])


def test_the_same_seed_gives_the_same_sheet_and_fewer_images_are_among_more(coco: Path) -> None:
    chance = config(coco, dict(type="RandomFlip", prob=0.5), dict(type="PhotoMetricDistortion"))
    six, again, three, other = show(chance), show(chance), show(chance, n=3), show(chance, seed=1)
    assert all((a.image == b.image).all() for a, b in zip(six, again, strict=True))
    by_caption = {sample.caption: sample.image for sample in six}
    assert len(three) == 3 and all((by_caption[sample.caption] == sample.image).all() for sample in three)
    assert any(a.caption != b.caption or (a.image != b.image).any() for a, b in zip(six, other, strict=True))
    assert len({sample.caption.endswith("flip") for sample in six}) == 2, "a coin for each image, not one for all"


def test_colours_changed_in_floats_and_normalised_are_shown_as_a_picture(coco: Path) -> None:
    mean, std = [120.0, 110, 100], [60.0, 50, 40]
    for to_rgb in (True, False):
        normal = show(config(coco, dict(type="Normalize", mean=mean, std=std, to_rgb=to_rgb)))
        assert all(np.abs(a.image.astype(int) - b.image).max() <= 1 for a, b in zip(normal, show(config(coco)), strict=True))


def test_a_test_pipeline_that_reads_boxes_after_resizing_still_shows_them_in_place(coco: Path) -> None:
    """mmdet's do, to measure in the image's own pixels."""
    late = [LOAD[0], dict(type="Resize", scale=(180, 120), keep_ratio=True), LOAD[1], PACK]
    assert all(fits(sample) for sample in show(config(coco, pipeline=late), split="val"))
    assert all(fits(sample) for sample in show(config(coco, pipeline=[late[0], late[1], PACK]), split="val"))


def test_pipelines_of_wrapped_data_sets_are_followed(coco: Path) -> None:
    """Mosaic mixes four images: its boxes come from them all."""
    inner = config(coco).train_dataloader.dataset
    inner.pipeline = LOAD
    outer = dict(type="MultiImageMixDataset", dataset=inner, pipeline=[dict(type="Mosaic", img_scale=(80, 60)), PACK])
    samples = show(Config(dict(train_dataloader=dict(dataset=outer))), n=2)
    assert all(sample.image.shape == (120, 160, 3) and len(sample.boxes_N4) > 1 for sample in samples)
    repeated = Config(
        dict(train_dataloader=dict(dataset=dict(type="RepeatDataset", times=2, dataset=config(coco).train_dataloader.dataset)))
    )
    assert len(show(repeated, n=100)) == 12


def test_a_mistake_names_the_section(coco: Path) -> None:
    with pytest.raises(UserError, match=r"x\.py: has no val_dataloader"):
        augmented(Config(dict(train_dataloader=dict())), "x.py", "val", 1, 0)
    missing = config(coco)
    missing.train_dataloader.dataset.ann_file = "nowhere.json"
    with pytest.raises(DataError, match=r"nowhere\.json: no such file.*train_dataloader\.dataset\.data_root"):
        show(missing)
    with pytest.raises(UserError, match="Resiez"):
        show(config(coco, dict(type="Resiez")))
    with pytest.raises(UserError, match=r"train_dataloader: image \d+ does not pass its pipeline"):
        show(config(coco, dict(type="Resize", scale=[60, 40], keep_ratio=True)))
    (coco / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png: no such image"):
        show(config(coco))


class TestCommand:
    @pytest.fixture
    def run(self, coco: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
        monkeypatch.chdir(coco)
        return lambda *words: CliRunner().invoke(cli, [str(word) for word in words])

    def test_a_config_is_browsed_with_overrides(self, coco: Path, run: Callable) -> None:
        config(coco).dump("c.py")
        content = json.loads((coco / "ann.json").read_text())
        (coco / "half.json").write_text(json.dumps(content | {"images": content["images"][:3], "annotations": content["annotations"][:3]}))
        told = run("browse", "c.py", f"train_dataloader.dataset.ann_file={coco}/half.json", "-o", "new/sheet.png", "-n", 4)
        assert told.exit_code == 0, told.output
        assert "3 images of the train split, 3 boxes" in told.stdout and cv2.imread("new/sheet.png").shape[1] == 2 * 320 + 3 * 8

    def test_a_study_is_browsed_through_the_pipeline_of_a_cell(self, coco: Path, run: Callable) -> None:
        data = f"{{train: {coco}/ann.json, val: {coco}/ann.json, images: {coco}}}"
        Path("s.yaml").write_text(
            f"question: Seen?\nbase:\n  backbone: {{name: resnet18, base_channels: 16}}\n  channels: 32\n  data: {data}\n"
            "  schedule: {epochs: 1, batch: 2, image_size: [90, 60], optimizer: adamw, lr: 0.002}\n"
            "axes:\n  schedule.flip: [0.0, 1.0]\nseeds: [0]\ncompare:\n  baseline: {schedule.flip: 0.0}\n"
        )
        sheets = []
        for words in ([], ["--cell", 1], ["--cell", 2], ["--cell", 2, "--seed", 0], ["--split", "val"]):
            told = run("browse", "s.yaml", "-o", "sheet.png", "-n", 4, *words)
            assert told.exit_code == 0, told.output
            sheets.append(Path("sheet.png").read_bytes())
        assert sheets[0] == sheets[1] != sheets[2] == sheets[3]

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["c.py", "-o", "sheet.txt"], "ending in .png"),
            (["nowhere.py"], "nowhere.py"),
            (["c.py", "--cell", "2"], "for a STUDY"),
            (["c.py", "train_dataloder.dataset.ann_file=x"], "train_dataloader"),
            (["nowhere.yaml"], "no such study file"),
        ],
    )
    def test_a_mistake_is_one_line(self, words: list[str], said: str, coco: Path, run: Callable) -> None:
        config(coco).dump("c.py")
        told = run("browse", *words)
        assert told.exit_code == 2 and said in told.stderr and told.stderr.count("\n") == 1
