"""Where points fall relative to their objects: worked out by hand on boxes whose answer is plain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from salt_lab.evaluate.points import coarse_sides, heat_map, in_object, mark_distances, places, places_by_size
from salt_lab.evaluate.probe_data import Probe, empty_probe

BOX = np.array([[10.0, 20.0, 110.0, 70.0]])  # 100 wide, 50 high
MIDDLES = np.array([[[10, 45], [60, 20], [110, 45], [60, 70]]], float)  # of the sides


def seen(points: np.ndarray, boxes: np.ndarray, marks: np.ndarray, objects: list[int], cells: np.ndarray, stride: float = 8.0) -> Probe:
    rows = len(points)
    base = empty_probe()
    fields = {"cls_points_PK2": points, "reg_points_PK2": points[:, :0], "object_box_P4": boxes, "mark_P2": marks, "cell_P2": cells}
    return replace(base, **fields, object_P=np.array(objects), image_P=np.ones(rows, int), stride_P=np.full(rows, stride))


def test_object_coordinates_run_from_the_upper_left_corner_to_the_lower_right() -> None:
    found = in_object(np.array([[[10, 20], [110, 70], [60, 45], [-40, 95]]], float), BOX)
    assert found.tolist() == [[[0, 0], [1, 1], [0.5, 0.5], [-0.5, 1.5]]]


def test_points_on_the_four_sides_touch_all_four() -> None:
    found = places(MIDDLES, BOX)
    assert (found.on_sides, found.inside, found.outside, found.touched, found.locations) == (1.0, 0.0, 0.0, 4.0, 1)


def test_the_tolerance_goes_by_the_extent_across_the_side_and_counts_both_ways() -> None:
    """A tenth of 100 px across the left side, a tenth of 50 px across the upper one."""
    near = np.array([[[19, 45], [1, 45], [60, 24.5], [60, 15.5]]], float)
    assert places(near, BOX, 0.1).on_sides == 1.0
    far = np.array([[[21, 45], [60, 26], [-1, 45], [60, 14]]], float)
    found = places(far, BOX, 0.1)
    assert (found.on_sides, found.inside, found.outside) == (0.0, 0.5, 0.5)


def test_beyond_the_end_of_a_side_is_outside_though_on_its_line() -> None:
    assert places(np.array([[[10, 120]]], float), BOX).outside == 1.0


def test_a_corner_is_on_two_sides() -> None:
    assert places(np.array([[[10, 20]]], float), BOX).touched == 2.0


def test_the_shares_sum_to_one_wherever_points_fall() -> None:
    points = np.random.default_rng(1).uniform(-100, 200, (200, 9, 2))
    found = places(points, np.repeat(BOX, 200, axis=0))
    assert found.on_sides + found.inside + found.outside == pytest.approx(1)


def test_a_scaled_and_shifted_picture_changes_nothing() -> None:
    points, boxes = np.random.default_rng(2).uniform(0, 130, (50, 9, 2)), np.repeat(BOX, 50, axis=0)
    assert places(points * 3 + 7, boxes * 3 + 7) == pytest.approx(places(points, boxes))


def test_levels_without_points_and_models_without_any_do_not_count() -> None:
    mixed = np.concatenate([MIDDLES, np.full((1, 4, 2), np.nan)])
    assert places(mixed, np.repeat(BOX, 2, axis=0)) == places(MIDDLES, BOX)
    none = places(np.zeros((1, 0, 2)), BOX)
    assert none.locations == 0 and np.isnan(none.on_sides)


def coarse(points: np.ndarray, boxes: np.ndarray) -> tuple[float, float, int]:
    base = seen(points, boxes, boxes[:, :2], [1] * len(points), np.tile([60.0, 45.0], (len(points), 1)))
    return coarse_sides(replace(base, reg_points_PK2=points))


def grown(by: float) -> np.ndarray:
    """Middles of the sides of a box that reaches ``by`` pixels further each way."""
    return MIDDLES[0] + by * np.array([[-1, 0], [0, -1], [1, 0], [0, 1]])


def test_a_coarse_box_that_is_the_objects_varies_as_objects_do_and_half_of_it_half_as_much() -> None:
    sizes = [0.0, 8.0, 24.0]
    boxes = np.array([[10 - s, 20 - s, 110 + s, 70 + s] for s in sizes])
    assert coarse(np.array([grown(s) for s in sizes]), boxes) == pytest.approx((1.0, 0.0, 3))
    assert coarse(np.array([grown(s / 2) for s in sizes]), boxes) == pytest.approx((0.5, 0.0, 3))
    assert coarse(np.array([grown(5.0)] * 3), boxes) == pytest.approx((0.0, 0.0, 3))


def test_a_side_at_its_location_is_at_zero() -> None:
    points = np.array([[[60, 45], [60, 45], [110, 45], [60, 70]]], float)  # left and upper side
    assert coarse(points, BOX).at_zero == 2.0 and np.isnan(coarse(points, BOX).spread), "one object does not vary"
    nowhere = coarse(np.full((1, 4, 2), np.nan), BOX)
    assert nowhere.locations == 0 and np.isnan(nowhere.at_zero)
    assert coarse(np.zeros((1, 0, 2)), BOX).locations == 0, "a model without points"


def test_size_classes_go_by_the_annotated_area() -> None:
    points = np.concatenate([MIDDLES, MIDDLES + 1000])
    found = places_by_size(points, np.repeat(BOX, 2, axis=0), np.array([900.0, 9300.0]))
    assert found["s"].on_sides == 1.0 and found["l"].outside == 1.0 and found["m"].locations == 0 and found["all"].locations == 2


def test_a_heat_map_shows_where_points_lie_and_says_what_it_leaves_out() -> None:
    points = np.array([[[60, 45], [12, 21], [600, 45]]], float)  # the middle, the upper left corner, far to the right
    found = heat_map(points, BOX, bins=4, margin=0.5)
    assert found.edges.tolist() == [-0.5, 0, 0.5, 1, 1.5]
    assert found.share_BB[1, 1] == found.share_BB[2, 2] == found.left_out == pytest.approx(1 / 3) and found.points == 3
    upper_right = heat_map(np.array([[[109, 21]]], float), BOX, bins=2, margin=0)
    assert upper_right.share_BB.tolist() == [[0, 1], [0, 0]], "rows run down, columns to the right"


def test_the_distance_to_the_mark_is_in_units_of_the_objects_size() -> None:
    square = np.array([[0.0, 0.0, 40.0, 40.0]])
    points = np.array([[[10, 10], [10, 30], [30, 10]]], float)
    found = mark_distances(seen(points, square, np.array([[10.0, 10.0]]), [1], cells=np.array([[10.0, 26.0]])))
    assert found.cls == pytest.approx((0, 0.5, 1 / 3)) and found.cell == pytest.approx(16 / 40) and found.objects == 1
    assert found.grid.nearest == pytest.approx(8 / 40), "the tap above the cell"
    assert np.isnan(found.reg.mean), "there are no R-points"


def test_every_object_counts_once_however_many_locations_learn_it() -> None:
    boxes, marks = np.tile([[0.0, 0.0, 10.0, 10.0]], (4, 1)), np.zeros((4, 2))
    points = np.array([[[10, 0]], [[10, 0]], [[10, 0]], [[20, 0]]], float)
    assert mark_distances(seen(points, boxes, marks, [1, 1, 1, 2], points[:, 0])).cls.mean == pytest.approx(1.5)


def test_data_without_marks_has_no_distance() -> None:
    found = mark_distances(seen(MIDDLES, BOX, np.full((1, 2), np.nan), [1], np.array([[60.0, 45.0]])))
    assert found.objects == 0 and np.isnan(found.cls.nearest) and np.isnan(found.cell)
