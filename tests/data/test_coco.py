"""Every way in which a COCO data set can be wrong gives its own sentence, with file and id; a sound one passes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from salt_lab.data import check_coco, fingerprint, inspect_coco, prepare
from salt_lab.errors import DataError
from salt_lab.spec.trial import CocoData

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")


class Folder:
    """A sound data set of two splits, two images each, to be broken by ``edit`` before ``data`` is checked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content = {split: sound(split) for split in ("train", "val")}
        (root / "images" / "sub").mkdir(parents=True)
        for split in self.content:
            for image in self.content[split]["images"]:
                (root / "images" / image["file_name"]).write_bytes(b"not looked into")

    def data(self) -> CocoData:
        for split, content in self.content.items():
            (self.root / f"{split}.json").write_text(json.dumps(content))
        return CocoData(train=str(self.root / "train.json"), val=str(self.root / "val.json"), images=str(self.root / "images"))

    def error(self) -> str:
        with pytest.raises(DataError) as caught:
            check_coco(self.data())
        return str(caught.value)


def sound(split: str) -> dict:
    names = (f"{split}_1.png", f"sub/{split}_2.png")
    images = [{"id": number, "file_name": name, "width": 64, "height": 48} for number, name in enumerate(names, 1)]
    boxes = ([0, 0, 64, 48], [10, 10, 20, 20], [5.5, 5, 8, 8])
    annotations = [
        {"id": number, "image_id": 1 + number % 2, "category_id": 1 + number % 2, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for number, box in enumerate(boxes, 1)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "plate"}]}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_a_sound_data_set_passes_without_a_word(folder):
    report = inspect_coco(folder.data())
    assert report.warnings == ()
    assert report.paths.classes == ("cell", "plate") and report.paths.train_images == report.paths.val_images == folder.root / "images"
    assert prepare(folder.data(), folder.root / "unused") == report.paths and not (folder.root / "unused").exists()


ENTRY_ERRORS = {
    "unknown category": ("annotations", 1, {"category_id": 7}, "annotation id 2 has unknown category_id 7. Categories of the file: 1, 2"),
    "category as text": ("annotations", 1, {"category_id": "1"}, "annotation id 2 has unknown category_id '1'"),
    "unknown image": ("annotations", 1, {"image_id": 9}, "annotation id 2 has unknown image_id 9"),
    "box outside": (
        "annotations",
        1,
        {"bbox": [50, 10, 20, 20]},
        "annotation id 2: bbox [50, 10, 20, 20] reaches outside image id 1 (64 x 48)",
    ),
    "box left of it": ("annotations", 1, {"bbox": [-1, 10, 20, 20]}, "reaches outside image id 1"),
    "corners for sizes": ("annotations", 1, {"bbox": [30, 30, -10, 20]}, "annotation id 2: bbox [30, 30, -10, 20] has a negative side"),
    "box without area": ("annotations", 1, {"bbox": [30, 20, 0, 20]}, "annotation id 2: bbox [30, 20, 0, 20] has no area"),
    "area zero": ("annotations", 1, {"area": 0}, "annotation id 2 has area 0"),
    "three numbers": ("annotations", 1, {"bbox": [30, 30, 5]}, "annotation id 2: bbox [30, 30, 5] is no list of four numbers"),
    "not a number": ("annotations", 1, {"bbox": [30, 30, 5, float("nan")]}, "is no list of four numbers"),
    "double annotation": ("annotations", 1, {"id": 1}, "annotation id 1 occurs twice"),
    "annotation id as text": ("annotations", 1, {"id": "a"}, "annotation number 2 has id 'a'"),
    "no area": ("annotations", 1, {"area": None}, "annotation id 2 has no area (1 of 3 annotations)"),
    "double image": ("images", 1, {"id": 1}, "image id 1 occurs twice"),
    "missing image": ("images", 1, {"file_name": "gone.png"}, "image id 2: no file 'gone.png' in"),
    "folder for image": ("images", 1, {"file_name": "sub"}, "image id 2: no file 'sub' in"),
    "no file name": ("images", 1, {"file_name": None}, "image id 2 has file_name None"),
    "no width": ("images", 1, {"width": None}, "image id 2 has width None and height 48"),
    "double category": ("categories", 1, {"id": 1}, "category id 1 occurs twice"),
    "double name": ("categories", 1, {"name": "cell"}, "category id 2: the name 'cell' occurs twice"),
    "nameless": ("categories", 1, {"name": ""}, "category id 2 has name ''"),
}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("case", ENTRY_ERRORS)
def test_a_wrong_entry_is_named_with_file_and_id(folder, split, case):
    kind, place, change, sentence = ENTRY_ERRORS[case]
    folder.content[split][kind][place].update(change)
    message = folder.error()
    assert sentence in message and str(folder.root / f"{split}.json") in message


def test_one_problem_is_one_line(folder):
    folder.content["val"]["annotations"][0]["bbox"] = [0, 0, 100, 10]
    assert "\n" not in folder.error()


def test_annotation_id_0_is_an_error_in_val_only(folder):
    folder.content["train"]["annotations"][0]["id"] = 0
    assert inspect_coco(folder.data()).warnings == ()
    folder.content["val"]["annotations"][0]["id"] = 0
    assert "val.json: annotation id 0: the COCO evaluation takes 0 for 'no match', so AP comes out too low. Number from 1" in folder.error()


def test_iscrowd_is_needed_where_the_evaluator_reads_it(folder):
    del folder.content["train"]["annotations"][2]["iscrowd"]
    check_coco(folder.data())
    del folder.content["val"]["annotations"][2]["iscrowd"]
    assert "annotation id 3 has no iscrowd (1 of 3 annotations). Write 0" in folder.error()


def test_a_box_that_leaves_the_image_by_rounding_is_fine(folder):
    folder.content["val"]["annotations"][0]["bbox"] = [-0.4, 0, 64.9, 48.99]
    assert inspect_coco(folder.data()).warnings == ()


def test_one_box_without_area_in_many_is_a_blemish_as_in_genuine_coco(folder):
    entry = folder.content["train"]["annotations"][1]
    folder.content["train"]["annotations"] += [{**entry, "id": number} for number in range(10, 10_010)]
    entry["bbox"] = [10, 10, 0, 0]
    (warning,) = inspect_coco(folder.data()).warnings
    assert "annotation id 2: bbox [10, 10, 0, 0] has no area" in warning


def test_what_training_would_leave_out_is_said(folder):
    folder.content["train"]["annotations"][1]["bbox"] = [10, 10, 0.5, 20]
    folder.content["val"]["categories"].append({"id": 3, "name": "worm"})
    folder.content["train"]["categories"].append({"id": 3, "name": "worm"})
    warnings = inspect_coco(folder.data()).warnings
    assert any("annotation id 2 is thinner than 1 px (1 of 3 are)" in warning for warning in warnings)
    assert sum("1 of 3 categories have no box: 'worm'" in warning for warning in warnings) == 2


def test_an_image_in_both_splits_is_said(folder):
    folder.content["val"]["images"][0]["file_name"] = "train_1.png"
    (warning,) = inspect_coco(folder.data()).warnings
    assert "1 of its 2 images are in" in warning and "'train_1.png'" in warning


@pytest.mark.parametrize("key", ["images", "annotations"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_images_or_boxes_is_an_error(folder, split, key):
    folder.content[split].update({"annotations": [], key: []})
    assert f"{split}.json: no {key}" in folder.error()


def test_categories_that_differ_between_train_and_val_are_named(folder):
    folder.content["val"]["categories"] = [{"id": 1, "name": "plate"}, {"id": 2, "name": "cell"}, {"id": 3, "name": "worm"}]
    message = folder.error()
    assert "category id 1 is 'plate', but 'cell' in" in message
    assert "category id 3 is 'worm', but missing in" in message


def test_categories_out_of_order_are_an_error_because_mmdet_numbers_labels_by_place(folder):
    for content in folder.content.values():
        content["categories"].reverse()
    assert "categories are in the order [2, 1]. Sort them by id" in folder.error()


def test_all_problems_come_in_one_error_with_ten_listed(folder):
    for content in folder.content.values():
        content["annotations"] += [{**content["annotations"][0], "id": number, "image_id": 77} for number in range(10, 20)]
    lines = folder.error().split("\n")
    assert lines[0] == "20 problems in the data set:" and len(lines) == 12 and lines[-1].strip() == "... and 10 more"


def test_a_wrong_image_folder_is_one_problem_not_thousands(folder):
    data = folder.data()
    (folder.root / "empty").mkdir()
    with pytest.raises(DataError, match=r"train\.json: none of its 2 images is in .*empty.*'train_1\.png' of image id 1"):
        check_coco(data.model_copy(update={"images": str(folder.root / "empty")}))
    with pytest.raises(DataError, match=r"nowhere: image folder of val\.json not found"):
        check_coco(data.model_copy(update={"val_images": str(folder.root / "nowhere")}))


def test_a_missing_annotation_file_is_named_and_the_other_still_checked(folder):
    data = folder.data()
    folder.content["val"]["annotations"][0]["category_id"] = 8
    folder.data()
    with pytest.raises(DataError, match=r"(?s)2 problems.*none\.json: data\.train: .*No such file.*unknown category_id 8"):
        check_coco(data.model_copy(update={"train": str(folder.root / "none.json")}))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not a JSON file"),
        ("\xff\xfe", "not a JSON file"),
        ("[]", "no list under images, annotations, categories"),
        ('{"images": [], "annotations": {}, "categories": []}', "no list under annotations"),
        ('{"images": [1], "annotations": [[]], "categories": [null]}', "image number 1 has id None"),
    ],
)
def test_a_file_that_is_not_coco_is_said_to_be_none(folder, text, sentence):
    data = folder.data()
    Path(data.train).write_text(text, encoding="latin-1")
    with pytest.raises(DataError) as caught:
        check_coco(data)
    assert sentence in str(caught.value) and "train.json" in str(caught.value)


def test_a_hundred_thousand_annotations_are_checked_in_seconds(folder):
    entry = folder.content["train"]["annotations"][0]
    folder.content["train"]["annotations"] = [{**entry, "id": number} for number in range(1, 100_001)]
    folder.content["train"]["annotations"][0] |= {"category_id": 1}
    data = folder.data()
    start = time.perf_counter()
    check_coco(data)
    assert time.perf_counter() - start < 10


@needs_shared
@pytest.mark.parametrize(("name", "classes"), [("bccd", 3), ("coco_mini", 80)])
def test_genuine_data_passes(name, classes):
    root = SHARED / name
    data = CocoData(train=str(root / "annotations/train.json"), val=str(root / "annotations/val.json"), images=str(root / "images"))
    report = inspect_coco(data)
    assert len(report.paths.classes) == classes
    assert all("categories have no box" in warning for warning in report.warnings)
    assert fingerprint(data).startswith("coco-")


@needs_shared
def test_genuine_validation_images_inside_the_training_split_are_noticed():
    root = SHARED / "bccd"
    data = CocoData(train=str(root / "annotations/trainval.json"), val=str(root / "annotations/val.json"), images=str(root / "images"))
    (warning,) = inspect_coco(data).warnings
    assert "87 of its 87 images are in" in warning
