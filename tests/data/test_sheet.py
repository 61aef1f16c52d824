"""The contact sheet shows the images that it says it shows."""

from __future__ import annotations

import json

import cv2
import pytest

from salt_lab.data.marks import generate
from salt_lab.data.sheet import TILE, contact_sheet
from salt_lab.errors import DataError, StoreError
from salt_lab.spec.trial import EmbeddedData


@pytest.fixture
def paths(tmp_path):
    return generate(EmbeddedData(train_images=5, val_images=2), tmp_path / "data")


def test_a_sheet_has_a_tile_per_image_in_a_grid(paths, tmp_path):
    out = tmp_path / "new folder" / "sheet.png"
    assert contact_sheet(paths, 5, out) == [f"{number:06d}.png" for number in range(1, 6)]
    height, width = cv2.imread(str(out)).shape[:2]
    assert (width, height) == (3 * (TILE + 6) + 6, 2 * (TILE + 6) + 6)


def test_asking_for_more_than_there_is_shows_what_there_is(paths, tmp_path):
    assert len(contact_sheet(paths, 100, tmp_path / "sheet.png", split="val")) == 2


def test_boxes_are_drawn_where_the_annotations_say(paths, tmp_path):
    contact_sheet(paths, 1, tmp_path / "with.png")
    content = json.loads(paths.train_json.read_text())
    boxes = content["annotations"]
    paths.train_json.write_text(json.dumps({**content, "annotations": []}))
    contact_sheet(paths, 1, tmp_path / "without.png")
    changed = (cv2.imread(str(tmp_path / "with.png")) != cv2.imread(str(tmp_path / "without.png"))).any(axis=2)
    x, y, w, h = (6 * (i < 2) + value * TILE / 112 for i, value in enumerate(boxes[0]["bbox"]))
    assert changed[round(y), round(x + w / 2)] and changed[round(y + h / 2), round(x)] and not changed[round(y + h / 2) - 1, 0]


def test_an_image_that_cannot_be_read_is_named(paths, tmp_path):
    (paths.train_images / "000002.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"000002\.png: not a readable image"):
        contact_sheet(paths, 2, tmp_path / "sheet.png")


def test_a_sheet_that_cannot_be_written_is_named(paths, tmp_path):
    with pytest.raises(StoreError, match=r"sheet\.unknown: cannot write the contact sheet"):
        contact_sheet(paths, 1, tmp_path / "sheet.unknown")


def test_no_images_or_an_unknown_split_is_refused(paths, tmp_path):
    with pytest.raises(DataError, match="n = 0"):
        contact_sheet(paths, 0, tmp_path / "sheet.png")
    with pytest.raises(DataError, match="split = 'test'"):
        contact_sheet(paths, 1, tmp_path / "sheet.png", split="test")
