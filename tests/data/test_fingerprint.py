"""A fingerprint is what the data is, not where it lies or how it is reached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from salt_lab.data import fingerprint
from salt_lab.errors import DataError
from salt_lab.spec.trial import CocoData, EmbeddedData


def write_set(folder, box=(1, 2, 3, 4), image=b"pixels"):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"images": [{"id": 1, "file_name": 'ä "b".png'}], "annotations": [{"id": 1, "bbox": list(box)}], "categories": []}
    for name in ("train.json", "val.json"):
        (folder / name).write_text(json.dumps(content))
    (folder / 'ä "b".png').write_bytes(image)
    return CocoData(train=str(folder / "train.json"), val=str(folder / "val.json"), images=str(folder))


def test_every_parameter_of_the_embedded_set_changes_its_fingerprint():
    other = {"train_images": 499, "val_images": 1, "image_size": 96, "classes": 2, "max_objects": 3, "mark_offset": 0.5, "seed": 1}
    assert {*other, "kind"} == set(EmbeddedData.model_fields)
    prints = {fingerprint(EmbeddedData(**{key: value})) for key, value in other.items()} | {fingerprint(EmbeddedData())}
    assert len(prints) == len(other) + 1
    assert all(len(text) == len("marks-") + 12 for text in prints)


def test_an_integer_offset_is_the_same_data_as_a_float_one():
    assert fingerprint(EmbeddedData(mark_offset=1)) == fingerprint(EmbeddedData(mark_offset=1.0))


def test_another_generator_version_is_another_data_set(monkeypatch):
    before = fingerprint(EmbeddedData())
    monkeypatch.setattr(sys.modules[fingerprint.__module__], "GENERATOR_VERSION", 999)
    assert fingerprint(EmbeddedData()) != before


def test_moving_the_folder_leaves_a_coco_fingerprint_alone(tmp_path, monkeypatch):
    here = fingerprint(write_set(tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "there")
    monkeypatch.setenv("SALT_TEST_DATA", str(tmp_path / "there"))
    there = CocoData(
        train="${SALT_TEST_DATA}/train.json", val="${SALT_TEST_DATA}/val.json", images="${SALT_TEST_DATA}", val_images="$SALT_TEST_DATA"
    )
    assert here.startswith("coco-") and fingerprint(there) == here


def test_editing_one_box_changes_a_coco_fingerprint(tmp_path):
    assert fingerprint(write_set(tmp_path)) != fingerprint(write_set(tmp_path, box=(1, 2, 3, 40)))


def test_an_edit_that_keeps_the_files_length_is_noticed(tmp_path):
    before = fingerprint(write_set(tmp_path))
    data = write_set(tmp_path, box=(1, 2, 3, 5))
    stamp = os.stat(data.train).st_mtime_ns + 1_000_000
    os.utime(data.train, ns=(stamp, stamp))
    assert fingerprint(data) != before


def test_an_image_replaced_or_lost_changes_a_coco_fingerprint(tmp_path):
    data = write_set(tmp_path)
    before = fingerprint(data)
    replaced = fingerprint(write_set(tmp_path, image=b"other pixels"))
    (tmp_path / 'ä "b".png').unlink()
    assert len({before, replaced, fingerprint(data)}) == 3


def test_files_that_the_annotations_do_not_name_do_not_count(tmp_path):
    data = write_set(tmp_path)
    before = fingerprint(data)
    (tmp_path / "notes.txt").write_text("mine")
    assert fingerprint(data) == before


def test_train_and_val_exchanged_is_another_data_set(tmp_path):
    data = write_set(tmp_path)
    (tmp_path / "val.json").write_text((tmp_path / "val.json").read_text() + "\n")
    assert fingerprint(data) != fingerprint(data.model_copy(update={"train": data.val, "val": data.train}))


def test_a_missing_annotation_file_is_named_with_its_field(tmp_path):
    data = write_set(tmp_path).model_copy(update={"val": str(tmp_path / "vall.json")})
    with pytest.raises(DataError, match=r"vall\.json: data\.val: .*No such file.*data\.val=PATH"):
        fingerprint(data)


def test_an_unset_environment_variable_is_named(tmp_path):
    with pytest.raises(DataError, match=r"data\.train = '\$\{SALT_NOWHERE\}/t\.json': environment variable SALT_NOWHERE is not set"):
        fingerprint(write_set(tmp_path).model_copy(update={"train": "${SALT_NOWHERE}/t.json"}))


def test_asking_for_fingerprints_imports_no_heavy_library():
    code = (
        "import sys; from salt_lab.data import fingerprint; from salt_lab.spec.trial import EmbeddedData; fingerprint(EmbeddedData()); "
        "heavy = {'numpy', 'cv2', 'torch', 'pycocotools', 'mmengine'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
