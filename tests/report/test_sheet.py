"""Contact sheets: every picture once, whole and in order; annotations where they belong."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from salt_lab.data.sheet import Labelled
from salt_lab.errors import StoreError
from salt_lab.report.ink import GREY, class_colour
from salt_lab.report.sheet import TILE, contact, labelled_sheet, labelled_tile, write_sheet

CLASSES = ("cat", "dog", "cow", "hen", "pig", "owl")


def sample(boxes=((10, 20, 60, 70),), labels=(0,), ignored=(False,), caption="id 1", marks=None) -> Labelled:
    image = np.full((80, 100, 3), 128, np.uint8)
    return Labelled(image, np.array(boxes, float).reshape(-1, 4), np.array(labels, int), np.array(ignored, bool), caption, marks)


def test_a_contact_sheet_shows_every_image_once_whole_and_in_order():
    images = [np.full((10 + 5 * index, 20, 3), 40 * index, np.uint8) for index in range(5)]
    sheet = contact(images, columns=2)
    assert sheet.shape == (15 + 25 + 30 + 4 * 8, 2 * (20 + 8) + 8, 3)  # a row is as high as its highest image
    for index, image in enumerate(images):
        assert (sheet[:, :, 0] == 40 * index).sum() == image.shape[0] * image.shape[1]
    top = [np.argwhere(sheet[:, :, 0] == 40 * index).min(axis=0).tolist() for index in range(5)]
    assert [x for _, x in top] == [8, 36, 8, 36, 8] and [y >= 31 for y, _ in top] == [False, False, True, True, True]


def test_captions_lie_below_their_images_and_touch_none():
    images = [np.full((40, 90, 3), 77, np.uint8), np.full((60, 90, 3), 77, np.uint8)]
    plain, named = contact(images, 2), contact(images, 2, captions=["a", "a very long name that does not fit"])
    assert named.shape[0] > plain.shape[0] and named.shape[1] == plain.shape[1]
    assert (named[: 8 + 60] == plain[: 8 + 60]).all()
    assert (named[68:, :98] < 128).any() and (named[68:, 106:196] < 128).any() and (named[68:, 98:106] == 255).all()


def test_a_contact_sheet_of_nothing_or_with_a_caption_missing_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        contact([], 3)
    with pytest.raises(ValueError, match="one caption per image"):
        contact([np.zeros((4, 4, 3), np.uint8)], 1, captions=[])


def test_a_tile_is_scaled_to_its_longest_side_with_its_boxes():
    tile = labelled_tile(sample(), CLASSES)
    assert tile.shape == (256, TILE, 3)
    scale = TILE / 100
    for x, y in [(10, 45), (60, 45), (35, 70)]:
        assert (tile[round(y * scale), round(x * scale)] == class_colour(0)).all()
    assert (tile[round(45 * scale), round(35 * scale)] == 128).all()


def test_ignored_boxes_are_grey_and_hatched_and_objects_are_not():
    def inside(ignored: bool) -> np.ndarray:
        return labelled_tile(sample(ignored=(ignored,)), CLASSES)[100:180, 60:150].reshape(-1, 3)

    assert (inside(False) == 128).all()
    hatched = inside(True)
    assert 0.05 < (hatched == GREY).all(axis=1).mean() < 0.6
    assert not (labelled_tile(sample(ignored=(True,)), CLASSES) == class_colour(0)).all(axis=2).any()


def test_class_marks_are_drawn_and_a_box_without_one_does_no_harm():
    marks = np.array([[35.0, 45.0], [np.nan, np.nan]])
    tile = labelled_tile(sample([(10, 20, 60, 70), (70, 5, 90, 25)], (0, 1), (False, False), marks=marks), CLASSES)
    assert (tile[144, 112] == class_colour(0)).all()


def test_the_sheet_names_the_classes_that_occur_unless_colours_repeat():
    tiles = [sample(), sample(labels=(1,))]
    few = labelled_sheet(tiles, CLASSES)
    many = labelled_sheet([sample([(10, 20, 60, 70)] * 6, range(6), [False] * 6), sample()], CLASSES)
    assert few.shape[0] > many.shape[0] and few.shape[1] == many.shape[1]
    one_ignored = labelled_sheet([*tiles, sample(ignored=(True,))], CLASSES)
    key = one_ignored[-20:]
    assert (key == GREY).all(axis=2).any() and not (few[-20:] == GREY).all(axis=2).any()


def test_an_image_without_boxes_is_shown_as_it_is():
    assert (labelled_tile(sample((), (), ()), CLASSES) == 128).all()


def test_a_sheet_that_cannot_be_written_is_named(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    write_sheet(picture, tmp_path / "new folder" / "sheet.png")
    assert cv2.imread(str(tmp_path / "new folder" / "sheet.png")).shape == (4, 4, 3)
    with pytest.raises(StoreError, match=r"sheet\.unknown: cannot write the contact sheet"):
        write_sheet(picture, tmp_path / "sheet.unknown")
