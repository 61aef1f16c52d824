"""NMS against mmcv's own loops, written out in Python: which boxes survive, in which order, with ties, degenerate boxes and NaN."""

from __future__ import annotations

import math
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from torch import Tensor

import salt_lab.ops.nms as room
from salt_lab.ops.nms import nms, nms_match, softnms
from salt_lab.ops.portable import install

pytestmark = pytest.mark.skipif(not install(), reason="compiled mmcv ops are installed: the portable ones are not in use")


def iou_by_hand(a: np.ndarray, b: np.ndarray, offset: int) -> float:
    """One pair in the boxes' precision, in the order of operations of mmcv's nms.cpp."""
    width = max(a.dtype.type(0), min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(a.dtype.type(0), min(a[3], b[3]) - max(a[1], b[1]) + offset)
    area_a, area_b = ((box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b))
    with np.errstate(all="ignore"):
        return width * height / (area_a + area_b - width * height)


def nms_by_hand(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0) -> list[int]:
    """mmcv's nms_cpu, loop for loop."""
    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    box, dropped = boxes.numpy(), set()
    for place, i in enumerate(order):
        if i not in dropped:
            dropped |= {j for j in order[place + 1 :] if iou_by_hand(box[i], box[j], offset) > box.dtype.type(threshold)}
    return [i for i in order if i not in dropped]


def random_boxes(count: int, seed: int, kind: str) -> tuple[Tensor, Tensor]:
    """'integer': small corners, so that IoUs tie with thresholds, boxes repeat, have no area or are inside out; 'real': a crowd."""
    g = torch.Generator().manual_seed(seed)
    if kind == "integer":
        return torch.randint(0, 6, (count, 4), generator=g).float(), torch.randint(0, 4, (count,), generator=g) / 4
    corner = torch.rand(count, 2, generator=g) * 50
    return torch.cat((corner, corner + torch.rand(count, 2, generator=g) * 30), dim=1), torch.rand(count, generator=g)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("kind", ["integer", "real"])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.6, 1.0])
def test_the_survivors_are_those_of_mmcvs_loop(kind: str, threshold: float, offset: int) -> None:
    for seed in range(8):
        boxes, scores = random_boxes(25, seed, kind)
        assert nms(boxes, scores, threshold, offset).tolist() == nms_by_hand(boxes, scores, threshold, offset)


@pytest.mark.parametrize("kind", ["integer", "real"])
def test_a_crowd_of_hundreds_is_thinned_as_by_mmcvs_loop(kind: str) -> None:
    boxes, scores = random_boxes(301, 5, kind)
    assert nms(boxes, scores, 0.4).tolist() == nms_by_hand(boxes, scores, 0.4)


@pytest.mark.parametrize("way", [0.0, math.inf])
def test_a_threshold_one_float32_step_from_a_pairs_overlap_falls_on_the_right_side(way: float) -> None:
    for seed in range(60):
        boxes, _ = random_boxes(2, seed, "real")
        overlap = iou_by_hand(boxes[0].numpy(), boxes[1].numpy(), 0)
        if overlap > 0:
            step = float(np.nextafter(overlap, np.float32(way)))
            assert len(nms(boxes, torch.tensor([0.9, 0.8]), step)) == (2 if way else 1)


def test_boxes_that_are_columns_of_a_wider_table_or_turned_around_give_the_same() -> None:
    boxes, scores = random_boxes(40, 4, "real")
    table = torch.cat((boxes, scores[:, None]), 1)
    kept = nms(boxes, scores, 0.4).tolist()
    assert nms(table[:, :4], table[:, 4], 0.4).tolist() == kept
    assert nms(boxes.T.contiguous().T, scores, 0.4).tolist() == kept


def test_the_compiler_is_not_loaded_before_the_first_suppression() -> None:
    """The ops are imported at every trial's start; numba would cost tenths of a second of it."""
    code = "import sys, salt_lab.ops.nms; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_overlap_of_exactly_the_threshold_is_kept_also_where_float32_rounds_it() -> None:
    boxes = torch.tensor([[0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 5.0, 1.0]])
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.6).tolist() == [0, 1]
    assert nms(boxes, scores, 0.5999).tolist() == [0]


def test_boxes_without_area_and_with_nan_neither_drop_nor_are_dropped() -> None:
    nan, inf = math.nan, math.inf
    boxes = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 9, nan], [0, 0, 9, 9], [nan, 0, 9, 9], [0, 0, inf, inf], [0, 0, 9, 8.5]])
    assert nms(boxes, torch.linspace(1, 0.4, 7), 0.5).tolist() == [0, 1, 2, 3, 4, 5]


def test_no_boxes_leave_no_boxes() -> None:
    kept = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert kept.shape == (0,) and kept.dtype == torch.int64
    assert nms_match(torch.zeros(0, 5), 0.5) == []
    assert softnms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 5), 0.5, 0.5, 0.1, 1, 0).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_computed_in_float32_at_least(dtype: torch.dtype) -> None:
    boxes, scores = random_boxes(30, 1, "real")
    work = boxes.to(dtype).to(torch.promote_types(dtype, torch.float32))
    assert nms(boxes.to(dtype), scores.to(dtype), 0.5).tolist() == nms_by_hand(work, scores.to(dtype), 0.5)


def test_torchvision_gets_the_threshold_as_float32_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision compares a float32 IoU with a double threshold: 3/5 would be above 0.6 there and is not in mmcv."""
    seen: dict[str, float] = {}
    vendor = types.SimpleNamespace(nms=lambda boxes, scores, threshold: seen.setdefault("threshold", threshold) and torch.tensor([0]))
    monkeypatch.setattr(room, "torchvision_nms", lambda: vendor.nms)
    boxes, scores = random_boxes(4, 0, "real")
    assert nms(boxes, scores, 0.6).tolist() == [0]
    assert seen["threshold"] == float(np.float32(0.6)) > 0.6
    assert len(nms(boxes, scores, 1.0, offset=1)) > 1, "torchvision knows no offset: the lab's own must answer"


def test_torchvision_if_installed_agrees() -> None:
    vendor = room.torchvision_nms()
    if vendor is None:
        pytest.skip("torchvision is not installed")
    for seed in range(5):
        boxes, scores = random_boxes(40, seed, "integer")
        assert nms(boxes, scores, 0.6).tolist() == nms_by_hand(boxes, scores, 0.6)


def test_through_mmcv_nms_filters_by_score_and_truncates() -> None:
    from mmcv.ops import nms as mmcv_nms

    boxes, scores = random_boxes(30, 2, "real")
    passed = list(nms_by_hand(boxes[scores > 0.3], scores[scores > 0.3], 0.5))
    original = torch.nonzero(scores > 0.3)[:, 0][passed[:5]]
    dets, kept = mmcv_nms(boxes, scores, 0.5, score_threshold=0.3, max_num=5)
    assert kept.tolist() == original.tolist()
    assert torch.equal(dets, torch.cat((boxes, scores[:, None]), 1)[original])


@pytest.mark.parametrize("split_thr", [10000, 5])
def test_through_mmcv_batched_nms_suppresses_within_a_class_only(split_thr: int) -> None:
    from mmcv.ops import batched_nms

    boxes, scores = random_boxes(40, 3, "real")
    labels = torch.arange(40) % 3
    alone = [torch.nonzero(labels == c)[:, 0][nms_by_hand(boxes[labels == c], scores[labels == c], 0.3)] for c in range(3)]
    expected = torch.cat(alone)
    _, kept = batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.3, "split_thr": split_thr})
    assert kept.tolist() == expected[scores[expected].argsort(descending=True)].tolist()
    empty, nothing = batched_nms(boxes[:0].reshape(0, 4), scores[:0], labels[:0], None)
    assert empty.shape == (0, 5) and nothing.shape == (0,)


def soft_nms_by_hand(
    boxes: Tensor, scores: Tensor, threshold: float, sigma: float, min_score: float, method: str
) -> tuple[list[int], list[float]]:
    """mmcv's softnms_cpu, loop for loop, on lists of (box, score, index) that are swapped as it swaps them."""
    rows = [[b, float(s), i] for i, (b, s) in enumerate(zip(boxes.double().numpy(), scores.double(), strict=True))]
    done = 0
    while done < len(rows):
        best = max(range(done, len(rows)), key=lambda place: (rows[place][1], -place))
        rows[done], rows[best] = rows[best], rows[done]
        place = done + 1
        while place < len(rows):
            iou = iou_by_hand(rows[done][0], rows[place][0], 0)
            factor = {"naive": 0.0, "linear": 1 - iou}.get(method, 1.0) if iou >= threshold else 1.0
            rows[place][1] *= math.exp(-iou * iou / sigma) if method == "gaussian" else factor
            if rows[place][1] < min_score:
                rows[place] = rows[-1]
                rows.pop()
            else:
                place += 1
        done += 1
    return [row[2] for row in rows], [row[1] for row in rows]


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("min_score", [1e-3, 0.3])
def test_through_mmcv_soft_nms_lowers_scores_and_orders_as_mmcvs_loop(method: str, min_score: float) -> None:
    from mmcv.ops import soft_nms

    for seed in range(6):
        boxes, scores = random_boxes(25, seed, "real")
        expected, lowered = soft_nms_by_hand(boxes, scores, 0.3, 0.5, min_score, method)
        dets, kept = soft_nms(boxes, scores, 0.3, 0.5, min_score, method)
        assert kept.tolist() == expected
        torch.testing.assert_close(dets[:, 4].double(), torch.tensor(lowered, dtype=torch.float64), rtol=1e-5, atol=1e-7)
        assert torch.equal(dets[:, :4], boxes[kept])


def test_soft_nms_leaves_its_input_alone() -> None:
    boxes, scores = random_boxes(25, 0, "real")
    before = boxes.clone(), scores.clone()
    softnms(boxes, scores, torch.zeros(25, 5), 0.3, 0.5, 1e-3, 1, 0)
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


def test_through_mmcv_nms_match_groups_each_dropped_box_with_the_one_that_drops_it() -> None:
    from mmcv.ops import nms_match as mmcv_nms_match

    for seed in range(6):
        boxes, scores = random_boxes(25, seed, "integer")
        order = torch.sort(scores, descending=True, stable=True).indices.tolist()
        groups, left = [], order
        while left:
            joins = [j for j in left[1:] if iou_by_hand(boxes[left[0]].numpy(), boxes[j].numpy(), 0) >= np.float32(0.5)]
            groups.append([left[0], *joins])
            left = [j for j in left[1:] if j not in joins]
        found = mmcv_nms_match(torch.cat((boxes, scores[:, None]), 1), 0.5)
        assert [group.tolist() for group in found] == groups
