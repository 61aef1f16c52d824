"""What a contact sheet shows of a data set: the first images, with what the annotation file says of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from salt_lab.data.marks import generate
from salt_lab.data.sheet import first_labelled
from salt_lab.errors import DataError
from salt_lab.spec.trial import EmbeddedData


@pytest.fixture
def paths(tmp_path):
    return generate(EmbeddedData(train_images=5, val_images=2), tmp_path / "data")


def test_the_first_images_come_with_their_boxes_classes_and_marks(paths):
    content = json.loads(paths.train_json.read_text())
    samples = first_labelled(paths, 3)
    assert [sample.caption for sample in samples] == [f"id {number}  {number:06d}.png" for number in (1, 2, 3)]
    own = [annotation for annotation in content["annotations"] if annotation["image_id"] == 2]
    x, y, w, h = own[0]["bbox"]
    np.testing.assert_allclose(samples[1].boxes_N4[0], [x, y, x + w, y + h])
    np.testing.assert_allclose(samples[1].marks_N2[0], own[0]["mark"])
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert [paths.classes[label] for label in samples[1].labels_N] == [names[annotation["category_id"]] for annotation in own]
    assert samples[1].image.shape == (112, 112, 3) and not samples[1].ignored_N.any()


def test_asking_for_more_than_there_is_shows_what_there_is(paths):
    assert len(first_labelled(paths, 100, split="val")) == 2


def test_crowd_boxes_are_ignored_ones_and_an_image_may_have_none(paths):
    content = json.loads(paths.train_json.read_text())
    content["annotations"] = [content["annotations"][0] | {"iscrowd": 1}]
    paths.train_json.write_text(json.dumps(content))
    first, second = first_labelled(paths, 2)
    assert first.ignored_N.tolist() == [True] and second.boxes_N4.shape == (0, 4) and second.marks_N2.shape == (0, 2)


def test_an_image_that_cannot_be_read_is_named(paths):
    (paths.train_images / "000002.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"000002\.png: not a readable image"):
        first_labelled(paths, 2)


def test_no_images_or_an_unknown_split_is_refused(paths):
    with pytest.raises(DataError, match="n = 0"):
        first_labelled(paths, 0)
    with pytest.raises(DataError, match="split = 'test'"):
        first_labelled(paths, 1, split="test")
