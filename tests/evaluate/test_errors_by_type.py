"""Errors in TIDE's sense, each kind by itself on hand-made scenes; what putting them right gains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salt_lab.evaluate.accumulate import numbers
from salt_lab.evaluate.class_mean import class_mean
from salt_lab.evaluate.detections import Detections
from salt_lab.evaluate.errors_by_type import KINDS, average_precision, error_counts, errors_by_type, type_errors
from salt_lab.evaluate.ground_truth import load_truth
from salt_lab.evaluate.matching import match
from salt_lab.evaluate.overlaps import Overlaps, overlaps

Object = tuple[int, list[float]]
Said = tuple[int, list[float], float]
HERE, THERE = [0.0, 0, 100, 100], [500.0, 0, 100, 100]
HALF = [0.0, 0, 100, 40]  # IoU 0.4 with HERE
AWAY = [900.0, 900, 50, 50]


def scene(objects: list[Object], said: list[Said], crowd: tuple[int, ...] = ()) -> Overlaps:
    truth = load_truth(
        {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [
                {"id": i, "image_id": 1, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": int(i in crowd)}
                for i, (c, box) in enumerate(objects, 1)
            ],
        }
    )
    detections = Detections.from_rows([{"image_id": 1, "category_id": c, "bbox": box, "score": score} for c, box, score in said])
    return overlaps(match(truth, detections), truth, detections)


def kinds(pairs: Overlaps) -> dict[str, int]:
    """How many of each kind, over both classes; kinds without any are left out."""
    total = np.sum(list(error_counts(pairs).values()), axis=0)
    return {kind: int(n) for kind, n in zip(KINDS, total, strict=True) if n}


#: A right detection of class 1 at THERE, and one mistake about the object at HERE that is scored above it.
RIGHT: Said = (1, THERE, 0.5)
SCENES: dict[str, tuple[list[Object], list[Said]]] = {
    "Cls": ([(1, HERE), (1, THERE)], [(2, HERE, 0.9), RIGHT]),
    "Loc": ([(1, HERE), (1, THERE)], [(1, HALF, 0.9), RIGHT]),
    "Both": ([(1, HERE), (2, THERE)], [(2, HALF, 0.9), (1, HERE, 0.5), (2, THERE, 0.5)]),
    "Dupe": ([(1, HERE), (1, THERE)], [(1, HERE, 0.9), (1, [0.0, 0, 100, 95], 0.8), RIGHT]),
    "Bkg": ([(1, THERE)], [(1, AWAY, 0.9), RIGHT]),
    "Missed": ([(1, HERE), (1, THERE)], [RIGHT]),
}
#: AP of half the objects by COCO's 101 recalls: 0.00 to 0.50 are reached.
HALF_FOUND = 100 * 51 / 101


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_occurs_once_and_nothing_else_does(kind: str) -> None:
    assert kinds(scene(*SCENES[kind])) == {kind: 1}


@pytest.mark.parametrize("kind", KINDS)
def test_putting_the_only_error_right_gives_all_of_ap(kind: str) -> None:
    pairs = scene(*SCENES[kind])
    typed = type_errors(pairs)
    before, after = np.nanmean(average_precision(pairs, typed)), average_precision(pairs, typed, (kind,))
    assert before < 100
    np.testing.assert_allclose(after[~np.isnan(after)], 100)
    gains = class_mean(errors_by_type(pairs).values())
    assert getattr(gains, kind) == pytest.approx(100 - before) and gains.ap50 == pytest.approx(before)
    assert all(getattr(gains, other) == 0 for other in KINDS if other != kind)


def test_ap_and_gains_by_hand() -> None:
    """Missed: half is found. Cls: the same, as the wrong class says nothing about class 1. Loc: the false alarm halves the precision too."""
    assert errors_by_type(scene(*SCENES["Missed"]))[1].ap50 == pytest.approx(HALF_FOUND)
    assert errors_by_type(scene(*SCENES["Cls"]))[1].ap50 == pytest.approx(HALF_FOUND)
    assert errors_by_type(scene(*SCENES["Loc"]))[1].ap50 == pytest.approx(HALF_FOUND / 2)
    assert errors_by_type(scene(*SCENES["Bkg"]))[1].ap50 == pytest.approx(50)


def test_all_false_positives_and_all_false_negatives_by_hand() -> None:
    """Loc: without the false alarm half is found at full precision; without the lost object the false alarm still halves the precision."""
    found = errors_by_type(scene(*SCENES["Loc"]))[1]
    assert found.ap50 + found.FP == pytest.approx(HALF_FOUND) and found.ap50 + found.FN == pytest.approx(50)
    missed = errors_by_type(scene(*SCENES["Missed"]))[1]
    assert missed.FP == 0 and missed.ap50 + missed.FN == pytest.approx(100)


def test_an_object_of_a_cls_or_loc_error_is_not_missed_too() -> None:
    both = [(2, HERE, 0.9), (1, HALF, 0.8), RIGHT]
    assert kinds(scene([(1, HERE), (1, THERE)], both)) == {"Cls": 1, "Loc": 1}


def test_of_several_errors_on_one_object_the_best_scored_is_put_right_and_the_rest_removed() -> None:
    pairs = scene([(1, HERE), (1, THERE)], [(1, HALF, 0.9), (1, [0.0, 0, 100, 30], 0.8), RIGHT])
    assert kinds(pairs) == {"Loc": 2}
    assert average_precision(pairs, type_errors(pairs), ("Loc",))[0] == pytest.approx(100)


def test_an_error_on_an_object_that_is_found_already_is_removed() -> None:
    pairs = scene([(1, HERE)], [(1, HERE, 0.5), (1, HALF, 0.9)])
    assert kinds(pairs) == {"Loc": 1}
    assert average_precision(pairs, type_errors(pairs), ("Loc",))[0] == pytest.approx(100)


def test_a_corrected_class_counts_for_the_class_that_it_is() -> None:
    pairs = scene(*SCENES["Cls"])
    before, after = (average_precision(pairs, type_errors(pairs), fixed) for fixed in ((), ("Cls",)))
    assert np.isnan(before[1]) and np.isnan(after[1]), "class 2 has no objects"
    assert after[0] == pytest.approx(100)


def test_crowds_are_no_objects_and_what_lies_in_them_is_no_error() -> None:
    pairs = scene([(1, HERE), (1, [500.0, 0, 400, 400])], [(1, HERE, 0.5), (1, [550.0, 50, 60, 60], 0.9)], crowd=(2,))
    assert kinds(pairs) == {}
    assert errors_by_type(pairs)[1].ap50 == pytest.approx(100)


def test_an_empty_answer_is_all_missed_and_an_empty_truth_has_no_number() -> None:
    nothing = errors_by_type(scene([(1, HERE)], []))
    assert nothing[1].ap50 == 0 and nothing[1].Missed == nothing[1].FN == pytest.approx(100) and nothing[1].FP == 0
    assert np.isnan(errors_by_type(scene([], [(1, HERE, 0.9)]))[1]).all()


def fuzzed(seed: int, crowds: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    annotations = []
    for i in range(1, 121):
        box = [*rng.uniform(0, 300, 2), *rng.uniform(8, 160, 2)]
        crowd = int(crowds and rng.random() < 0.05)
        where = {"image_id": int(rng.integers(1, 13)), "category_id": int(rng.integers(1, 4))}
        annotations.append({"id": i, **where, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd})
    rows = []
    for score in rng.permutation(600) / 600:
        near = annotations[int(rng.integers(0, 100))]  # the last ones are missed
        box = (np.array(near["bbox"]) * np.exp(rng.normal(0, 0.25, 4))).tolist()
        category = near["category_id"] if rng.random() < 0.75 else int(rng.integers(1, 4))
        rows.append({"image_id": near["image_id"], "category_id": category, "bbox": box, "score": float(score)})
    categories = [{"id": c, "name": str(c)} for c in (1, 2, 3)]
    return {"images": [{"id": i} for i in range(1, 13)], "categories": categories, "annotations": annotations}, rows


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", ["all", "s", "m", "l"])
def test_all_errors_put_right_give_everything_and_the_start_is_cocos_ap50(seed: int, size: str) -> None:
    content, rows = fuzzed(seed)
    truth, detections = load_truth(content), Detections.from_rows(rows)
    matches = match(truth, detections)
    pairs = overlaps(matches, truth, detections)
    typed = type_errors(pairs, size)
    right = average_precision(pairs, typed, KINDS)
    np.testing.assert_allclose(right[~np.isnan(right)], 100)
    found = class_mean(errors_by_type(pairs, size).values())
    assert all(gain >= -1e-9 for gain in found[1:])
    if size == "all":
        assert found.ap50 == pytest.approx(numbers(matches).AP50, abs=1e-10)
        assert set(kinds(pairs)) == set(KINDS), "the fuzz leaves a kind out"


#: By tidecv 1.0.1 (MIT, Bolya et al.) on fuzzed(seed, crowds=False): AP50, then the gain of each of KINDS, FP, FN.
TIDECV = {
    0: (6.667725392084563, 2.108040111568478, 24.339879881760197, 0.9126076515157928, 0.2583250841134861, 1.6888791166715773,
        1.3952134595915915, 39.53689506996164, 7.706829322314135),
    1: (7.288561525823837, 0.6375597134875965, 27.989370977309825, 0.7906932382576084, 0.3594855318588417, 2.370088131402909,
        1.344108442332347, 37.92595992632138, 9.392006830995957),
    2: (7.679839471484638, 0.13830261060775584, 32.20730192278344, 1.2878247662611182, 0.18515681136819317, 1.6469746707873627,
        2.0253637527711303, 35.22445095755826, 10.060334092359938),
}  # fmt: skip


@pytest.mark.parametrize("seed", TIDECV)
def test_gains_are_those_of_the_authors_own_program(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the curve at recalls x / 100; COCO's, and ours, differ from them in the last bit, which shows where a recall is met exactly."""
    monkeypatch.setattr("salt_lab.evaluate.errors_by_type.RECALLS", np.arange(101) / 100)
    pairs = overlaps_of(*fuzzed(seed, crowds=False))
    np.testing.assert_allclose(class_mean(errors_by_type(pairs).values()), TIDECV[seed], atol=1e-9)


def overlaps_of(content: dict[str, Any], rows: list[dict[str, Any]]) -> Overlaps:
    truth, detections = load_truth(content), Detections.from_rows(rows)
    return overlaps(match(truth, detections), truth, detections)
