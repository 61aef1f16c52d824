"""Does the portable NMS keep what mmcv's compiled one keeps? A fuzz for ``nms.py``: thousands of small cases, chosen to be mean.

Boxes: small integers (IoUs tie with thresholds, boxes repeat, have no area, are inside out), crowds, crowds with NaN and infinity. Thresholds: round
ones, and the exact IoU of two of the boxes, one float32 step below and one above. Both offsets.

mmcv's own sort does not promise an order among equal scores, and torch's unstable one differs with the processor. So the compiled op is given the
rank instead of the score, which makes the rule explicit: equal scores keep their order. How often its own order kept other boxes is counted.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = ("integers", "crowd", "not finite")


def with_stable_order(compiled: Any) -> Any:
    """The compiled ops, called like ours, with equal scores in their order."""

    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
        return compiled.nms(boxes, _ranks(scores), iou_threshold=iou_threshold, offset=offset)

    def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
        return compiled.nms_match(torch.cat((dets[:, :4], _ranks(dets[:, 4])[:, None]), 1), iou_threshold=iou_threshold)

    return SimpleNamespace(nms=nms, nms_match=nms_match, softnms=compiled.softnms)


def equality(ours: Any, compiled: Any, cases: int, seed: int = 0) -> dict[str, int]:
    """Cases of each op that were compared, all of them equal.

    Raises:
        SystemExit: a case differs; the message has what is needed to make it again.
    """
    found, theirs = dict.fromkeys(("nms", "nms_match", "softnms", "nms_other_by_order_of_ties"), 0), with_stable_order(compiled)
    for case in range(cases):
        g, where = np.random.default_rng((seed, case)), f"case {case} of seed {seed}"
        kind, offset = KINDS[case % len(KINDS)], case // len(KINDS) % 2
        boxes = _boxes(kind, int(g.integers(1, 120)), g)
        scores = torch.from_numpy(g.integers(0, 12, len(boxes)).astype("float32") / 12)
        threshold, dets = _threshold(boxes, offset, g), torch.cat((boxes, scores[:, None]), 1)
        kept = ours.nms(boxes, scores, threshold, offset)
        same(f"nms, {where}", kept, theirs.nms(boxes, scores, threshold, offset))
        same(f"nms_match, {where}", ours.nms_match(dets, threshold), theirs.nms_match(dets, threshold))
        own = compiled.nms(boxes, scores, iou_threshold=threshold, offset=offset)
        found["nms_other_by_order_of_ties"] += sorted(own.tolist()) != sorted(kept.tolist())
        found["nms"], found["nms_match"] = found["nms"] + 1, found["nms_match"] + 1
        if kind == "crowd":  # two boxes without area make mmcv's Gaussian scores NaN; ours leaves them alone
            _soft(ours, compiled, boxes, scores, threshold, offset, where)
            found["softnms"] += 3
    return found


def _soft(ours: Any, compiled: Any, boxes: Tensor, scores: Tensor, threshold: float, offset: int, where: str) -> None:
    for method in range(3):
        said = []
        for op in (ours, compiled):
            dets = torch.zeros(len(boxes), 5)
            kept = op.softnms(boxes, scores, dets, iou_threshold=threshold, sigma=0.5, min_score=0.05, method=method, offset=offset)
            said.append((kept.tolist(), dets[: len(kept)]))
        same(f"softnms (method {method}), {where}", said[0][0], said[1][0])
        if not torch.allclose(said[0][1], said[1][1], rtol=1e-5, atol=1e-7):
            raise SystemExit(f"softnms (method {method}), {where}: other scores than mmcv's compiled op: {said[0][1]} and {said[1][1]}")


def same(what: str, ours: Any, theirs: Any) -> None:
    """Leave with a message unless both are the same indices."""
    ours, theirs = (side.tolist() if isinstance(side, Tensor) else side for side in (ours, theirs))
    if ours != theirs:
        raise SystemExit(f"{what}: not what mmcv's compiled op keeps: {ours} instead of {theirs}")


def _boxes(kind: str, count: int, g: np.random.Generator) -> Tensor:
    if kind == "integers":
        return torch.from_numpy(g.integers(0, 7, (count, 4)).astype("float32"))
    corners = g.random((count, 2)) * 50
    boxes = np.concatenate((corners, corners + g.random((count, 2)) * 40), axis=1).astype("float32")
    if kind == "not finite":
        boxes[g.random((count, 4)) < 0.05] = g.choice(np.array([np.nan, np.inf, -np.inf], "float32"))
    return torch.from_numpy(boxes)


def _threshold(boxes: Tensor, offset: int, g: np.random.Generator) -> float:
    """A round one, or the IoU of two boxes in float32, or a float32 neighbour of that."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = boxes.numpy()[g.integers(0, len(boxes), 2)]
    one, zero = np.float32(offset), np.float32(0)
    with np.errstate(all="ignore"):
        inter = max(min(ax2, bx2) - max(ax1, bx1) + one, zero) * max(min(ay2, by2) - max(ay1, by1) + one, zero)
        iou = inter / ((ax2 - ax1 + one) * (ay2 - ay1 + one) + (bx2 - bx1 + one) * (by2 - by1 + one) - inter)
    if not 0 < iou < 1 or g.random() < 0.3:
        return float(g.choice([0.0, 0.3, 0.5, 0.6, 1.0]))
    return float(g.choice([iou, np.nextafter(iou, np.float32(0)), np.nextafter(iou, np.float32(1))]))


def _ranks(scores: Tensor) -> Tensor:
    """Scores without ties, in the order that a stable sort gives: N for the best, 1 for the worst."""
    ranks = torch.empty(len(scores))
    ranks[torch.sort(scores, descending=True, stable=True).indices] = torch.arange(len(scores), 0, -1.0)
    return ranks
