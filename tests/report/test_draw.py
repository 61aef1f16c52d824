"""Pictures of detections: what is drawn is where it was found."""

from __future__ import annotations

import numpy as np
import pytest

from salt_lab.report.draw import contact, draw_detections, side_points

GREY = np.full((112, 112, 3), 128, np.uint8)
CLASSES = ("disc", "ring")


def at(image: np.ndarray, x: float, y: float, scale: int) -> list[int]:
    return image[round(y * scale), round(x * scale)].tolist()


def test_a_small_image_is_enlarged_and_scale_one_leaves_its_size_alone():
    assert draw_detections(GREY, np.zeros((0, 4)), [], [], CLASSES).shape == (448, 448, 3)
    assert draw_detections(GREY, np.zeros((0, 4)), [], [], CLASSES, scale=1).shape == (112, 112, 3)


def test_an_image_without_detections_is_returned_unchanged_and_the_input_is_never_touched():
    before = GREY.copy()
    assert (draw_detections(GREY, [], [], [], CLASSES, scale=1) == GREY).all()
    draw_detections(GREY, [[10, 20, 60, 70]], [0], [0.9], CLASSES)
    assert (before == GREY).all()


def test_the_box_is_drawn_on_its_sides_and_nowhere_inside():
    drawn = draw_detections(GREY, [[20, 40, 80, 100]], [0], [0.9], CLASSES, scale=4)
    for x, y in [(20, 70), (80, 70), (50, 100), (65, 40)]:
        assert at(drawn, x, y, 4) != [128, 128, 128], (x, y)
    assert at(drawn, 50, 70, 4) == [128, 128, 128]


def test_the_nine_points_keep_the_kernels_order_left_3_top_1_right_5_bottom_7():
    assert side_points(9) == (3, 1, 5, 7)
    assert side_points(4) == side_points(12) == (0, 1, 2, 3)


def test_side_points_are_green_inside_points_yellow_and_class_points_orange():
    r_points = np.full((1, 9, 2), 60.0)
    r_points[0, 3] = 20, 65  # on the left side
    c_points = np.full((1, 9, 2), 95.0)
    drawn = draw_detections(GREY, [[20, 40, 80, 90]], [0], [0.9], CLASSES, r_points, c_points, scale=4)
    blue, green, red = at(drawn, 20, 65, 4)
    assert green > 150 and red < 120 and blue < 120
    blue, green, red = at(drawn, 60, 60, 4)
    assert green > 200 and red > 200 and blue < 120
    blue, green, red = at(drawn, 95, 95, 4)
    assert red > 200 and 80 < green < 180 and blue < 80


def test_a_legend_is_added_under_the_picture_only_when_there_is_something_to_explain():
    box, points = [[20, 40, 80, 90]], np.full((1, 5, 2), 50.0)
    plain = draw_detections(GREY, box, [0], [0.9], CLASSES)
    explained = draw_detections(GREY, box, [0], [0.9], CLASSES, points, points, [[18, 38, 82, 92]])
    assert plain.shape == (448, 448, 3)
    assert explained.shape[1:] == (448, 3) and explained.shape[0] > 448


def test_points_boxes_and_labels_far_outside_the_image_do_no_harm():
    points = np.full((1, 9, 2), 1e9)
    drawn = draw_detections(GREY, [[-50, -50, 500, 500]], [7], [1.0], CLASSES, points, -points, [[-1e7, 0, 1e7, 0]])
    assert drawn.shape[1] == 448


def test_an_empty_coarse_box_is_drawn_without_dividing_by_zero():
    with np.errstate(all="raise"):
        draw_detections(GREY, [[10, 10, 10, 10]], [0], [0.1], CLASSES, coarse_N4=[[10, 10, 10, 10]])


@pytest.mark.parametrize(
    ("boxes", "labels", "points"),
    [([[0, 0, 1, 1]], [0, 1], None), ([[0, 0, 1]], [0], None), ([[0, 0, 1, 1]], [0], np.zeros((2, 9, 2)))],
)
def test_arrays_that_do_not_fit_together_are_refused(boxes, labels, points):
    with pytest.raises(ValueError, match="shape|length"):
        draw_detections(GREY, boxes, labels, [0.5] * len(labels), CLASSES, points)


def test_a_contact_sheet_shows_every_image_once_whole_and_in_order():
    images = [np.full((10 + 5 * index, 20, 3), 40 * index, np.uint8) for index in range(5)]
    sheet = contact(images, columns=2)
    assert sheet.shape == (3 * (30 + 8) + 8, 2 * (20 + 8) + 8, 3)
    for index, image in enumerate(images):
        assert (sheet[:, :, 0] == 40 * index).sum() == image.shape[0] * image.shape[1]
    top = [np.argwhere(sheet[:, :, 0] == 40 * index).min(axis=0).tolist() for index in range(5)]
    assert [(y // 38, x // 28) for y, x in top] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_a_contact_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        contact([], 3)
