"""A head's own post-processing without its filter: the box and the scores of every location, by the host's own code.

mmdet's heads turn maps into boxes in ``_predict_by_feat_single``, and drop most locations on the way (score threshold, top ``nms_pre``). A
graph of fixed form cannot drop by value. So the method is run as it stands, with the function that filters replaced by one that keeps
everything **(ours)**: whatever a host does between its maps and its boxes is in the graph exactly.

Legend: N images, C classes, R rows (locations x priors, of all levels one after the other).
"""

from __future__ import annotations

import copy
import types
from typing import Any, NamedTuple

from torch import Tensor

from salt_lab.errors import UserError

FILTER = "filter_scores_and_topk"


class Rows(NamedTuple):
    """What a head says of every location, before any selection."""

    boxes_R4: Tensor  #: x1 y1 x2 y2, pixels of the network's input, not clipped by the box coder
    scores_RC: Tensor  #: class scores, 0..1, not yet multiplied by the quality
    quality_R: Tensor | None  #: centerness, IoU, ...: what the host multiplies its class scores with; None if it has no such branch


def check_head(model: Any, source: str) -> None:
    """Is this a model whose every location can be asked?

    Raises:
        UserError: names what the model has instead, and what can be exported.
    """
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.detectors import SingleStageDetector

    head = getattr(model, "bbox_head", None)
    can = "detectors with one dense head can be exported, such as FCOS, ATSS, GFL, GFLv2, RetinaNet, SALT-Net"
    if not isinstance(model, SingleStageDetector) or head is None:
        raise UserError(f"{source}: model.type = {type(model).__name__}: only {can}")
    single = getattr(type(head), "_predict_by_feat_single", None)
    own_way = getattr(type(head), "predict_by_feat", None) is not BaseDenseHead.predict_by_feat
    if own_way or single is None or FILTER not in single.__code__.co_names:
        raise UserError(
            f"{source}: model.bbox_head.type = {type(head).__name__} chooses its boxes in a way of its own, so there are no boxes and "
            f"scores of all locations to export; {can}"
        )


class OpenHead:
    """Stands in for a head inside its own ``_predict_by_feat_single``: everything is the head's, but nothing is dropped.

    Nor do box coders clip (mmdet's cannot while a graph is recorded): ``clips`` says whether that is left to do.

    Args:
        head: one that :func:`check_head` accepts. It is not changed.
    """

    def __init__(self, head: Any) -> None:
        self._head = head
        method = type(head)._predict_by_feat_single
        ours = {FILTER: keep_all, "InstanceData": types.SimpleNamespace}
        self._run = types.FunctionType(
            method.__code__, {**method.__globals__, **ours}, method.__name__, method.__defaults__, method.__closure__
        )
        coder: Any = copy.copy(getattr(head, "bbox_coder", None))
        self.clips = coder is not None and bool(getattr(coder, "clip_border", False))
        if self.clips:
            coder.clip_border = False
        self.bbox_coder = coder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._head, name)

    def _bbox_post_process(self, results: Any, **kwargs: Any) -> Any:
        return results

    def __call__(
        self, class_maps: list[Tensor], box_maps: list[Tensor], factor_maps: list[Tensor] | None, priors: list[Tensor], size: Any
    ) -> Rows:
        """Boxes and scores of all locations of one image.

        Args:
            class_maps, box_maps, factor_maps: per level ``(D, H, W)``, as the head's forward returns them without the images' dimension.
            priors: per level, one row a prior.
            size: height and width of the picture.
        """
        factors = [None] * len(class_maps) if factor_maps is None else factor_maps
        meta = dict(img_shape=size)
        found = self._run(self, class_maps, box_maps, factors, priors, meta, None, rescale=False, with_nms=False)
        return Rows(found.bboxes, found.scores, getattr(found, "score_factors", None))


def keep_all(scores: Tensor, score_thr: float, topk: int, results: Any = None) -> tuple[Tensor, Tensor, slice, Any]:
    """In place of mmdet's filter: all ``(rows, C)`` scores, no label yet, every row."""
    return scores, scores[:, 0], slice(None), results
