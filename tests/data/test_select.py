"""A COCO file with fewer classes: the same images and boxes, other labels, and nothing else touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from salt_lab.data import check_coco
from salt_lab.data.select import select_file
from salt_lab.errors import DataError
from salt_lab.spec.trial import CocoData

CATEGORIES = [(1, "person", "person"), (17, "cat", "animal"), (18, "dog", "animal"), (62, "chair", "furniture")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three images: a person with a dog, a cat that is a crowd, a chair."""
    boxes = [(1, 1, 1), (2, 1, 18), (3, 2, 17), (4, 3, 62)]
    content = {
        "info": {"year": 2017},
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 64, "height": 48, "license": 4} for n in (1, 2, 3)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": kind, "bbox": [n, n, 9, 9], "area": 70.5, "iscrowd": int(n == 3)}
            for n, image, kind in boxes
        ],
        "categories": [{"id": n, "name": name, "supercategory": group} for n, name, group in CATEGORIES],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    return path


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_one_class_keeps_its_boxes_as_they_were_and_every_image(source, tmp_path):
    done = select_file(source, tmp_path / "out" / "train.json", ["dog"])
    before, after = read(source), read(done.path)
    assert after["images"] == before["images"] and after["info"] == before["info"]
    assert after["annotations"] == [before["annotations"][1] | {"category_id": 1}]
    assert after["categories"] == [{"id": 1, "name": "dog"}]
    assert (done.classes, done.images, done.with_boxes, done.boxes, done.left_out) == (("dog",), 3, 1, 1, 3)


def test_labels_follow_the_order_that_was_asked_for_and_the_rest_is_one_class(source, tmp_path):
    done = select_file(source, tmp_path / "out.json", ["dog", "person"], rest="thing")
    assert done.classes == ("dog", "person", "thing") and done.left_out == 0
    assert [entry["category_id"] for entry in read(done.path)["annotations"]] == [2, 1, 3, 3]


def test_supercategories_join_their_classes_and_crowds_stay_crowds(source, tmp_path):
    done = select_file(source, tmp_path / "out.json", supercategories=True)
    assert done.classes == ("person", "animal", "furniture")
    entries = read(done.path)["annotations"]
    assert [entry["category_id"] for entry in entries] == [1, 2, 2, 3] and [entry["iscrowd"] for entry in entries] == [0, 0, 1, 0]
    assert select_file(source, tmp_path / "animals.json", ["animal"], supercategories=True).boxes == 2


def test_what_is_written_is_fit_for_training(source, tmp_path):
    for number in (1, 2, 3):
        (tmp_path / f"{number}.jpg").write_bytes(b"not looked into")
    done = select_file(source, tmp_path / "person.json", ["person"], rest="thing")
    assert check_coco(CocoData(train=str(done.path), val=str(done.path), images=str(tmp_path))).classes == ("person", "thing")


def test_the_same_again_changes_nothing_and_other_content_is_not_overwritten(source, tmp_path):
    target = tmp_path / "out.json"
    select_file(source, target, ["dog"])
    before = target.stat().st_mtime_ns
    select_file(source, target, ["dog"])
    assert target.stat().st_mtime_ns == before
    with pytest.raises(DataError, match="is there already with other content and is left as it is"):
        select_file(source, target, ["person"])
    with pytest.raises(DataError, match=r"train\.json: is there already"):
        select_file(source, source, ["person"])
    assert len(read(source)["annotations"]) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"keep": ["persn"]}, "no class named 'persn'. Did you mean 'person'"),
        ({"keep": ["animal"]}, "no class named 'animal'"),
        ({"rest": "thing"}, "rest = 'thing'"),
        ({"keep": ["dog"], "rest": "cat"}, "rest = 'cat'"),
    ],
)
def test_classes_that_are_not_there_are_named(arguments, said, source, tmp_path):
    with pytest.raises(DataError) as caught:
        select_file(source, tmp_path / "out.json", **arguments)
    assert said in str(caught.value) and not (tmp_path / "out.json").exists()


def test_a_file_that_is_no_annotation_file_is_named(source, tmp_path):
    source.write_text('{"images": []}')
    with pytest.raises(DataError, match=r"train\.json: no COCO annotation file"):
        select_file(source, tmp_path / "out.json", ["dog"])
    with pytest.raises(DataError, match="cannot be read"):
        select_file(tmp_path / "nothing.json", tmp_path / "out.json", ["dog"])


def test_the_genuine_subset_has_people_enough_to_learn_one_class(shared, tmp_path):
    folder = shared / "data" / "coco_mini" / "annotations"
    train, val = (select_file(folder / f"{split}.json", tmp_path / f"{split}.json", ["person"]) for split in ("train", "val"))
    assert (train.boxes, train.with_boxes, val.boxes, val.with_boxes) == (203, 45, 150, 32)
