"""Pictures of detections: what is drawn is where it was found."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from salt_lab.ops.points import kernel_order
from salt_lab.report.draw import draw_detections, enlargement, side_points
from salt_lab.report.ink import MARK_COLOURS, mark, place_labels, shorten, text_size
from salt_lab.report.style import COLOURS

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
    for count in (4, 5, 9, 13, 16, 25):
        assert side_points(count) == kernel_order(count)[:4], "the picture and the operator must agree on which points slide along sides"


def test_side_points_are_green_inside_points_yellow_and_class_points_orange():
    r_points = np.full((1, 9, 2), 60.0)
    r_points[0, side_points(9)] = [[20, 65], [50, 40], [80, 65], [50, 90]]
    c_points = np.full((1, 9, 2), 95.0)
    drawn = draw_detections(GREY, [[20, 40, 80, 90]], [0], [0.9], CLASSES, r_points, c_points, scale=4)
    for x, y in r_points[0, side_points(9)]:
        blue, green, red = at(drawn, x, y, 4)
        assert green > 150 and red < 120 and blue < 120
    blue, green, red = at(drawn, 60, 60, 4)
    assert green > 200 and red > 200 and blue < 120
    blue, green, red = at(drawn, 95, 95, 4)
    assert red > 200 and 80 < green < 180 and blue < 80


def test_the_three_kinds_of_points_differ_in_shape_and_in_grey_not_in_hue_alone():
    shapes, greys = {}, {}
    for kind, colour in MARK_COLOURS.items():
        pixels = np.full((64, 64, 3), 128, np.uint8)
        mark(pixels, kind, (32, 32), 4.0)
        shapes[kind] = (pixels == colour).all(axis=2)
        greys[kind] = float(np.dot(colour, (0.114, 0.587, 0.299)))
    filled = {kind: shape.sum() / np.prod(np.ptp(np.argwhere(shape), axis=0) + 1) for kind, shape in shapes.items()}
    assert filled["side"] > 0.95 and 0.7 < filled["inside"] < 0.85 and filled["class"] < 0.6  # square, dot, diamond in their bounding box
    ordered = sorted(greys.values())
    assert min(b - a for a, b in pairwise(ordered)) > 30
    assert {COLOURS[2], COLOURS[5]} <= {"#{2:02X}{1:02X}{0:02X}".format(*colour) for colour in MARK_COLOURS.values()}


def test_a_box_without_points_is_drawn_among_boxes_that_have_them():
    """A pyramid level on which the operator does not act gives NaN."""
    points, coarse = np.full((2, 9, 2), 60.0), np.array([[18.0, 38, 82, 92], [np.nan] * 4])
    points[1] = np.nan
    boxes = [[20, 40, 80, 90], [85, 10, 105, 30]]
    both = draw_detections(GREY, boxes, [0, 1], [0.9, 0.8], CLASSES, points, points, coarse, scale=4)
    alone = draw_detections(GREY, boxes[1:], [1], [0.8], CLASSES, scale=4)
    region = (slice(43, 160), slice(330, 440))  # the box below its name
    assert (both[region] == alone[region]).all() and (both[: 4 * 112, : 4 * 84] != alone[:, : 4 * 84]).any()


def test_marks_shrink_with_small_boxes_so_that_they_do_not_hide_them():
    def yellow(box):
        points = np.full((1, 5, 2), 56.0)
        points[:, :4] = np.nan  # the inside point alone
        return (draw_detections(GREY, [box], [0], [0.5], CLASSES, points, scale=4) == MARK_COLOURS["inside"]).all(axis=2).sum()

    assert 0 < yellow([54, 54, 58, 58]) < 0.7 * yellow([20, 20, 90, 90])


@pytest.mark.parametrize(("shape", "factor"), [((112, 112), 4), ((480, 640), 1), ((3000, 4000), 1), ((100, 2000), 1), ((20, 300), 5)])
def test_small_images_are_enlarged_but_no_picture_becomes_huge(shape, factor):
    assert enlargement(shape) == factor


def test_labels_of_crowded_boxes_do_not_cover_each_other():
    boxes = [[40 + 3 * shift, 60 + 2 * shift, 160, 160] for shift in range(4)]
    placed = place_labels([(f"cell 0.{9 - i}", box, (178, 114, 0)) for i, box in enumerate(boxes)], 12, (320, 320))
    spans = [(text.x, text.y, *text_size(text.words, 12)) for text in placed]
    assert len(placed) == 4
    for i, a in enumerate(spans):
        for b in spans[i + 1 :]:
            assert a[0] >= b[0] + b[2] or b[0] >= a[0] + a[2] or a[1] >= b[1] + b[3] or b[1] >= a[1] + a[3]


def test_a_label_without_room_is_drawn_all_the_same_or_left_out_where_asked():
    labels = [("a long label", [2, 2, 20, 8], (0, 0, 0))] * 5
    assert len(place_labels(labels, 12, (90, 40))) == 5
    assert 1 <= len(place_labels(labels, 12, (90, 40), crowded="leave out")) < 5


def test_a_long_name_loses_its_middle():
    assert shorten("short.png", 11, 200) == "short.png"
    cut = shorten("an_extremely_long_name_of_a_photo_0001.png", 11, 120)
    assert cut.startswith("an_") and cut.endswith(".png") and "…" in cut and text_size(cut, 11)[0] <= 120


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
