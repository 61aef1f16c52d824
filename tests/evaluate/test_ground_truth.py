"""The objects of an annotation file as arrays."""

import json

import pytest

from salt_lab.errors import DataError
from salt_lab.evaluate.ground_truth import load_truth


def content(**fields):
    """Two images, two categories, one object in each; ``fields`` change the first object (None takes a field away)."""
    rows = [
        {"id": 3, "image_id": 20, "category_id": 9, "bbox": [1, 2, 3, 4], "area": 5.5, "iscrowd": 1},
        {"id": 8, "image_id": 10, "category_id": 4, "bbox": [5, 6, 7, 8], "area": 56},
    ]
    rows[0] = {key: value for key, value in (rows[0] | fields).items() if value is not None}
    images = [{"id": 20, "width": 640, "height": 480, "file_name": "b.jpg"}, {"id": 10}]
    return {"images": images, "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}], "annotations": rows}


def test_ids_ascend_and_objects_stay_in_the_files_order():
    truth = load_truth(content())
    assert (truth.image_ids_I.tolist(), truth.category_ids_C.tolist(), truth.category_names) == ([10, 20], [4, 9], ("dog", "cat"))
    assert (truth.file_names, truth.image_sizes_I2.tolist()) == (("", "b.jpg"), [[0, 0], [640, 480]])
    assert (truth.obj_image_G.tolist(), truth.obj_category_G.tolist()) == ([1, 0], [1, 0])
    assert truth.boxes_G4.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert (truth.areas_G.tolist(), truth.crowd_G.tolist()) == ([5.5, 56], [True, False])


def test_a_file_and_its_content_are_the_same(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(content()))
    truth = load_truth(tmp_path / "truth.json")
    assert truth.annotation_ids_G.tolist() == [3, 8] and truth.name.endswith("truth.json")


def test_objects_of_unlisted_images_and_categories_are_left_out():
    assert load_truth(content(image_id=99)).annotation_ids_G.tolist() == [8]
    assert load_truth(content(category_id=99, bbox=None)).annotation_ids_G.tolist() == [8]


def test_ids_that_are_whole_numbers_written_with_a_point_are_whole_numbers():
    truth = load_truth(content(id=3.0, image_id=20.0))
    assert truth.annotation_ids_G.tolist() == [3, 8] and truth.obj_image_G.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bbox": None}, r"annotation id 3: bbox None is not \[x, y, width, height\]"),
        ({"bbox": [1, 2, 3]}, r"annotation id 3: bbox \[1, 2, 3\] is not"),
        ({"area": None}, "annotation id 3: area None is no number"),
        ({"id": 8}, "annotations: id 8 stands twice"),
        ({"id": None}, "annotations: an entry without 'id'"),
        ({"id": "three"}, "annotations: id 'three' is no whole number"),
        ({"image_id": None}, "annotations: an entry without 'image_id'"),
    ],
)
def test_a_malformed_object_is_named(fields, said):
    with pytest.raises(DataError, match=said):
        load_truth(content(**fields))


@pytest.mark.parametrize(
    ("text", "said"), [("[]", "a list where COCO has an object"), ("{", "no JSON"), (None, "cannot read the annotations")]
)
def test_a_file_that_is_no_annotation_file_is_named(tmp_path, text, said):
    if text is not None:
        (tmp_path / "truth.json").write_text(text)
    with pytest.raises(DataError, match=rf"truth\.json: {said}"):
        load_truth(tmp_path / "truth.json")


def test_the_arrays_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        load_truth(content()).boxes_G4[0, 0] = 1
