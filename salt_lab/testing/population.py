"""An endless population of pictures and detectors whose true AP can be found out: what intervals are tested against.

A picture has a difficulty of its own, so have its objects, and every detector feels both: two runs on the same pictures go up and down together, as
real ones do. A detector has an ability (its arm's), a training seed shifts it, and each run has noise of its own at each object. Nothing here is
meant to look like a picture; boxes do not exist, only what matching would have said about them.

Letters: I images, C categories, D detections, G objects, T IoU thresholds, A areas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_lab.evaluate.matching import AREAS, IOU_THRESHOLDS, Matches

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """Pictures drawn from the population, with what makes them hard (larger is easier)."""

    obj_image_G: NDArray[np.int32]
    obj_category_G: NDArray[np.int32]
    obj_area_G: Floats
    ease_I: Floats
    ease_G: Floats
    categories: int


def draw_images(generator: np.random.Generator, count: int, shares: Sequence[float] = (0.6, 0.3, 0.1), objects: float = 4.0) -> Images:
    """``count`` pictures of on average ``objects`` objects each (at least one), of classes in these ``shares``."""
    objects_I = 1 + generator.poisson(objects - 1, size=count)
    total = int(objects_I.sum())
    return Images(
        obj_image_G=np.repeat(np.arange(count, dtype=np.int32), objects_I),
        obj_category_G=generator.choice(len(shares), size=total, p=shares).astype(np.int32),
        obj_area_G=np.exp(generator.normal(7.5, 1.5, total)),
        ease_I=generator.normal(0, 0.7, count),
        ease_G=generator.normal(0, 1, total),
        categories=len(shares),
    )


def run_on(images: Images, generator: np.random.Generator, ability: float, noise: float = 0.6, false_alarms: float = 3.0) -> Matches:
    """What a detector of this ``ability`` finds on ``images``; ``noise``: spread of its own noise at each object.

    An ability higher by 0.1 is worth about 2 AP.
    """
    everywhere_G = ability + images.ease_I[images.obj_image_G] + images.ease_G
    quality_G = everywhere_G + generator.normal(0, noise, len(everywhere_G))
    object_D = np.flatnonzero(quality_G > -2)
    score_D = _share(0.7 * quality_G[object_D] + generator.normal(0, 0.5, len(object_D)))
    wrong = generator.poisson(false_alarms * len(images.ease_I))
    image_D = np.concatenate([images.obj_image_G[object_D], generator.integers(len(images.ease_I), size=wrong)])
    category_D = np.concatenate([images.obj_category_G[object_D], generator.choice(images.obj_category_G, size=wrong)])
    score_D = np.concatenate([score_D, _share(generator.normal(-1, 0.8, wrong) + 0.3 * images.ease_I[image_D[len(object_D) :]])])
    iou_D = np.concatenate([_share(0.8 * quality_G[object_D] + 1.5), np.zeros(wrong)])
    area_D = np.concatenate([images.obj_area_G[object_D], np.exp(generator.normal(7.5, 1.5, wrong))])
    object_D = np.concatenate([object_D, np.full(wrong, -1)])
    return _matches(
        images, *(part[np.lexsort((image_D, -score_D, category_D))] for part in (image_D, category_D, score_D, iou_D, area_D, object_D))
    )


def _share(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def _outside(area_X: Floats) -> NDArray[np.bool_]:
    return np.stack([(area_X < low) | (area_X > high) for low, high in AREAS.values()])


def _matches(images: Images, image_D: Any, category_D: Any, score_D: Any, iou_D: Any, area_D: Any, object_D: Any) -> Matches:
    hit_TD = iou_D >= IOU_THRESHOLDS[:, None]
    outside_ATD = np.repeat(_outside(area_D)[:, None], len(IOU_THRESHOLDS), axis=1)
    return Matches(
        image_ids_I=np.arange(len(images.ease_I)),
        category_ids_C=np.arange(images.categories),
        iou_thresholds_T=IOU_THRESHOLDS.copy(),
        det_category_D=category_D.astype(np.int32),
        det_image_D=image_D.astype(np.int32),
        det_score_D=score_D,
        det_rank_D=np.zeros(len(score_D), np.int32),
        det_index_D=np.arange(len(score_D), dtype=np.int32),
        det_tp_ATD=hit_TD & ~outside_ATD,
        det_ignored_ATD=outside_ATD,
        det_object_TD=np.where(hit_TD, object_D, -1).astype(np.int32),
        det_iou_D=iou_D,
        obj_category_G=images.obj_category_G.copy(),
        obj_image_G=images.obj_image_G.copy(),
        obj_ignored_AG=_outside(images.obj_area_G),
        obj_crowd_G=np.zeros(len(images.ease_G), bool),
        obj_area_G=images.obj_area_G.copy(),
    )
