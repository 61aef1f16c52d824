"""The embedded data set: is it what its docstring says, everywhere and every time?"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from salt_lab.data import fingerprint, prepare
from salt_lab.data.marks import generate, image_and_annotations
from salt_lab.data.render import draw_mark, draw_outline, draw_stroke
from salt_lab.data.scene import MAX_IOU, Mark, Outline, Stroke, draw_scene
from salt_lab.data.shapes import MARKS, OUTLINES
from salt_lab.errors import StoreError
from salt_lab.spec.trial import EmbeddedData

SMALL = EmbeddedData(train_images=6, val_images=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def scenes(spec: EmbeddedData, n: int = 60):
    return [draw_scene(spec, 0, index) for index in range(n)]


def test_the_same_parameters_give_the_same_bytes(tmp_path):
    one, two = generate(SMALL, tmp_path / "a"), generate(SMALL, tmp_path / "b")
    assert contents(one.train_json.parent) == contents(two.train_json.parent)
    assert len(contents(one.train_json.parent)) == 6 + 3 + 3


def test_another_seed_another_split_and_another_index_give_other_images():
    pictures = [
        image_and_annotations(spec, split, index)[0].tobytes()
        for spec, split, index in ((SMALL, 0, 0), (SMALL, 0, 1), (SMALL, 1, 0), (SMALL.model_copy(update={"seed": 1}), 0, 0))
    ]
    assert len(set(pictures)) == 4


def test_more_images_leave_the_first_ones_as_they_were(tmp_path):
    few = contents(generate(SMALL, tmp_path).train_json.parent)
    many = contents(generate(SMALL.model_copy(update={"train_images": 8}), tmp_path).train_json.parent)
    assert all(many[name] == few[name] for name in few if name.endswith(".png"))


def test_the_default_data_set_has_not_changed_without_a_new_generator_version():
    """Fails when a pixel or a box moves: then raise GENERATOR_VERSION, pin the new values, and say in the changelog that numbers move."""
    spec = EmbeddedData()
    annotations = [image_and_annotations(spec, split, index)[1] for split, index in ((0, 0), (0, 1), (0, 499), (1, 0), (1, 199))]
    pixels = image_and_annotations(spec, 0, 3)[0]
    assert fingerprint(spec) == "marks-d78847388306"
    assert hashlib.sha256(json.dumps(annotations).encode()).hexdigest()[:16] == "013a3f12ffbdca8b"
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "bf39a8443136e5cb"


@pytest.mark.parametrize("shape", OUTLINES)
def test_a_box_is_tight_around_the_outline_that_is_drawn(shape):
    canvas = np.full((112, 112, 3), 100.0)
    outline = Outline(shape, 20.25, 31.5, 52.5, 30.75, 2.0, (255.0, 255.0, 255.0))
    draw_outline(canvas, outline)
    rows, columns = np.nonzero((canvas != 100.0).any(axis=2))
    drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    box = np.array([outline.x, outline.y, outline.x + outline.w, outline.y + outline.h])
    assert np.abs(drawn - box).max() <= 1.0
    assert (canvas[47, 46] == 100.0).all(), "the inside of an outline stays background"


@pytest.mark.parametrize("kind", MARKS)
def test_a_mark_stays_in_its_circle_and_is_its_own_mirror_image(kind):
    canvas = np.zeros((41, 41, 3))
    draw_mark(canvas, Mark(kind, 20.5, 20.5, 6.0, (200.0, 200.0, 200.0)))
    rows, columns = np.nonzero(canvas[..., 0])
    assert rows.size > 30
    assert np.sqrt((rows - 20) ** 2 + (columns - 20) ** 2).max() <= 6.0 + 1.0
    assert np.allclose(canvas, canvas[:, ::-1])


def test_a_stroke_that_leaves_the_image_is_cut_off_there():
    canvas = np.zeros((20, 20, 3))
    draw_stroke(canvas, Stroke(-30.0, 10.0, 5.0, 10.0, 2.0, (9.0, 9.0, 9.0)))
    assert canvas[10, 0, 0] > 0 and not canvas[:, 10:].any()
    draw_stroke(canvas, Stroke(-30.0, -30.0, -20.0, -20.0, 2.0, (9.0, 9.0, 9.0)))
    assert not canvas[:5].any()


def test_at_offset_0_the_mark_is_exactly_at_the_objects_centre():
    for scene in scenes(EmbeddedData(mark_offset=0.0), 20):
        for thing in scene.things:
            assert (thing.mark.x, thing.mark.y) == pytest.approx(thing.outline.centre, abs=1 / 128)


def test_at_offset_1_the_mark_touches_the_rim_from_inside():
    """One more pixel outwards and its circle would cross the line."""
    for scene in scenes(EmbeddedData(), 30):
        for thing in scene.things:
            gap = clearance(thing.outline, thing.mark)
            assert -0.05 <= gap - 1.0 <= 1.0 or (thing.mark.x, thing.mark.y) == pytest.approx(thing.outline.centre, abs=1 / 128)


def clearance(outline: Outline, mark: Mark) -> float:
    """Shortest distance from the mark's circle to the inner edge of the line, measured on a drawn mask."""
    from salt_lab.data.shapes import outline as outline_distance

    grid = np.arange(0.125, 112, 0.25)
    x, y = np.meshgrid(grid, grid)
    cx, cy = outline.centre
    line = outline_distance(outline.shape, x - cx, y - cy, outline.w / 2, outline.h / 2) >= -outline.width
    return float(np.sqrt((x[line] - mark.x) ** 2 + (y[line] - mark.y) ** 2).min()) - mark.radius


def test_the_offset_moves_the_marks_and_nothing_else():
    """So an ablation over mark_offset compares the same scenes."""
    for centred, half, rim in zip(*(scenes(EmbeddedData(mark_offset=offset), 20) for offset in (0.0, 0.5, 1.0)), strict=True):
        assert (centred.base, centred.strokes, centred.strays) == (rim.base, rim.strokes, rim.strays)
        for a, b, c in zip(centred.things, half.things, rim.things, strict=True):
            assert a.outline == c.outline and (a.mark.kind, a.mark.colour, a.mark.radius) == (c.mark.kind, c.mark.colour, c.mark.radius)
            assert (b.mark.x, b.mark.y) == pytest.approx(((a.mark.x + c.mark.x) / 2, (a.mark.y + c.mark.y) / 2), abs=1 / 32)


def test_the_measured_distance_of_the_mark_from_the_centre_grows_in_proportion_to_the_offset():
    """In half sides of the object: on average 0 at the centre, and at the rim as far as the outline lets it."""
    means = []
    for offset in (0.0, 0.25, 0.5, 0.75, 1.0):
        found = [entry for index in range(60) for entry in image_and_annotations(EmbeddedData(mark_offset=offset), 0, index)[1]]
        boxes_N4, marks_N2 = (np.array([entry[key] for entry in found]) for key in ("bbox", "mark"))
        away_N2 = (marks_N2 - boxes_N4[:, :2] - boxes_N4[:, 2:] / 2) / (boxes_N4[:, 2:] / 2)
        means.append(np.sqrt((away_N2**2).sum(axis=1)).mean())
    assert means[0] < 0.01 and means[-1] > 0.35
    assert np.allclose(means, np.array([0, 0.25, 0.5, 0.75, 1]) * means[-1], atol=0.01)


def test_the_offset_changes_no_box_no_class_and_no_pixel_that_a_mark_does_not_touch():
    """As drawn and as annotated, in both splits: what a detector sees besides the marks is the same picture."""
    for split, index in ((split, index) for split in (0, 1) for index in range(8)):
        (centred, entries_0), (rim, entries_1) = (
            image_and_annotations(EmbeddedData(mark_offset=offset), split, index) for offset in (0.0, 1.0)
        )
        assert [{**entry, "mark": 0} for entry in entries_0] == [{**entry, "mark": 0} for entry in entries_1]
        rows, columns = np.nonzero((centred != rim).any(axis=2))
        marks_M2 = np.array([entry["mark"] for entry in (*entries_0, *entries_1)])
        distance_PM = np.hypot(columns[:, None] + 0.5 - marks_M2[:, 0], rows[:, None] + 0.5 - marks_M2[:, 1])
        assert rows.size > 0 and distance_PM.min(axis=1).max() <= 8.5 + 1.5, "largest mark and its soft edge"


def test_every_offset_is_a_data_set_of_its_own_and_the_rim_is_the_default():
    names = [fingerprint(EmbeddedData(mark_offset=offset)) for offset in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert len(set(names)) == 5 and names[-1] == fingerprint(EmbeddedData())


@pytest.mark.parametrize("offset", [-0.1, 1.1, True, "far", float("nan")])
def test_an_offset_that_is_no_share_of_the_way_is_refused(offset):
    with pytest.raises(ValueError, match="mark_offset"):
        EmbeddedData(mark_offset=offset)


def test_every_mark_lies_in_its_own_box_and_in_no_other():
    for scene in scenes(EmbeddedData(max_objects=8)):
        for thing in scene.things:
            inside = [contains(other.outline, thing.mark) for other in scene.things]
            assert sum(inside) == 1 and contains(thing.outline, thing.mark)
        for stray in scene.strays:
            assert not any(contains(thing.outline, stray) for thing in scene.things)


def contains(box: Outline, mark: Mark) -> bool:
    return box.x < mark.x < box.x + box.w and box.y < mark.y < box.y + box.h


def test_boxes_lie_in_the_image_and_overlap_at_most_slightly():
    for scene in scenes(EmbeddedData(max_objects=8)):
        boxes = np.array([[t.outline.x, t.outline.y, t.outline.x + t.outline.w, t.outline.y + t.outline.h] for t in scene.things])
        assert boxes.min() >= 0 and boxes.max() <= 112
        low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        overlap = np.clip(high - low, 0, None).prod(axis=2)
        area = overlap.diagonal()
        iou = overlap / (area[:, None] + area[None, :] - overlap)
        assert (iou - np.eye(len(boxes))).max() <= MAX_IOU


def test_classes_are_balanced_and_share_their_colours_and_sizes():
    things = [thing for scene in scenes(EmbeddedData(), 400) for thing in scene.things]
    counts = Counter(thing.mark.kind for thing in things)
    assert set(counts) == set(MARKS[:3]) and max(counts.values()) / min(counts.values()) < 1.25
    for quantity in (lambda t: np.mean(t.mark.colour) / 255, lambda t: t.mark.radius / 10, lambda t: t.outline.w / 112):
        means = [np.mean([quantity(t) for t in things if t.mark.kind == kind]) for kind in counts]
        assert max(means) - min(means) < 0.06


def test_small_and_medium_objects_in_cocos_sense_both_occur():
    areas = np.array([thing.outline.w * thing.outline.h for scene in scenes(EmbeddedData(), 200) for thing in scene.things])
    assert 0.3 < (areas < 32**2).mean() < 0.7 and areas.max() < 96**2


@pytest.mark.parametrize("size", [32, 48, 112, 224])
def test_any_image_size_can_be_drawn(size):
    pixels, annotations = image_and_annotations(EmbeddedData(image_size=size, max_objects=16, classes=6), 1, 0)
    assert pixels.shape == (size, size, 3) and pixels.dtype == np.uint8 and len(annotations) >= 1
    assert all(x >= 0 and y >= 0 and x + w <= size and y + h <= size for x, y, w, h in (a["bbox"] for a in annotations))


def test_what_is_on_disk_is_coco_and_shows_what_was_drawn(tmp_path):
    paths = prepare(SMALL, tmp_path)
    assert paths.train_json.parent == tmp_path / fingerprint(SMALL) and paths.classes == MARKS[:3]
    content = json.loads(paths.val_json.read_text())
    assert [category["id"] for category in content["categories"]] == [1, 2, 3]
    assert [annotation["id"] for annotation in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert all(a["area"] == a["bbox"][2] * a["bbox"][3] and a["iscrowd"] == 0 and len(a["mark"]) == 2 for a in content["annotations"])
    read = cv2.imread(str(paths.val_images / content["images"][1]["file_name"]))
    assert (read[:, :, ::-1] == image_and_annotations(SMALL, 1, 1)[0]).all()


def test_the_lab_accepts_its_own_data_set_as_any_coco_data_set(tmp_path):
    from salt_lab.data import inspect_coco
    from salt_lab.spec.trial import CocoData

    paths = generate(EmbeddedData(train_images=20, val_images=20), tmp_path)
    train, val, images, val_images = (str(path) for path in paths[:4])
    report = inspect_coco(CocoData(train=train, val=val, images=images, val_images=val_images))
    assert report.paths == paths and report.warnings == ()


def test_a_data_set_that_is_there_is_not_drawn_again(tmp_path):
    first = generate(SMALL, tmp_path)
    before = first.train_json.stat().st_mtime_ns, first.train_json.parent.stat().st_ino
    generate(SMALL, tmp_path)
    assert (first.train_json.stat().st_mtime_ns, first.train_json.parent.stat().st_ino) == before


@pytest.mark.parametrize("damage", ["image lost", "image empty", "annotations edited", "no manifest"])
def test_a_damaged_data_set_is_drawn_anew(tmp_path, damage):
    paths = generate(SMALL, tmp_path)
    whole = contents(paths.train_json.parent)
    if damage == "image lost":
        (paths.val_images / "000002.png").unlink()
    elif damage == "image empty":
        (paths.train_images / "000002.png").write_bytes(b"")
    elif damage == "annotations edited":
        paths.train_json.write_text(paths.train_json.read_text().replace('"iscrowd":0', '"iscrowd":1', 1))
    else:
        (paths.train_json.parent / "manifest.json").unlink()
    generate(SMALL, tmp_path)
    assert contents(paths.train_json.parent) == whole
    assert [path.name for path in tmp_path.iterdir()] == [fingerprint(SMALL)], "nothing is left lying about"


def test_two_processes_may_draw_the_same_data_set_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from salt_lab.data import prepare; from salt_lab.spec.trial import EmbeddedData; "
        "prepare(EmbeddedData(train_images=60, val_images=10), Path(sys.argv[1]))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "both")]) for _ in range(2)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    alone = generate(EmbeddedData(train_images=60, val_images=10), tmp_path / "alone")
    assert contents(tmp_path / "both") == contents(tmp_path / "alone") and alone.train_json.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="file.*cannot write the embedded data set.*--store"):
        generate(SMALL, tmp_path / "file" / "data")
