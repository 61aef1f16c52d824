"""The largest batch that a data set can give, from its annotations alone: what a trial's memory has to be enough for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Picture(NamedTuple):
    """One training image as its annotations describe it: height and width in pixels, number of boxes."""

    height: int
    width: int
    boxes: int


class Largest(NamedTuple):
    """The images of the largest batch (their places in the data set), and its padded height and width in pixels."""

    places: tuple[int, ...]
    height: int
    width: int


def largest_batch(pictures: Sequence[Picture], batch: int, image_size: tuple[int, int], divisor: int = 32) -> Largest:
    """The batch that pads to the largest area: the tallest and the widest image of one orientation, filled up with those of most boxes.

    A training batch holds images of one orientation only (mmdet's AspectRatioBatchSampler).

    Args:
        pictures: all images of the data set, at least one.
        batch: images of a batch.
        image_size: longest and shortest side after resizing, which keeps the ratio.
        divisor: batches are padded to a multiple of it.
    """
    resized = [_resized(picture, image_size) for picture in pictures]
    found = []
    for upright in (True, False):
        group = [place for place, picture in enumerate(pictures) if (picture.width < picture.height) == upright]
        if group:
            tallest, widest = (max(group, key=lambda place: (resized[place][side], pictures[place].boxes)) for side in (0, 1))
            crowded = sorted(group, key=lambda place: -pictures[place].boxes)[:batch]
            places = tuple(dict.fromkeys([tallest, widest, *crowded]))[:batch]
            sides = [max(resized[place][side] for place in places) for side in (0, 1)]
            found.append(Largest(places, *(-(-side // divisor) * divisor for side in sides)))
    return max(found, key=lambda one: one.height * one.width * len(one.places))


def _resized(picture: Picture, image_size: tuple[int, int]) -> tuple[int, int]:
    factor = min(
        max(image_size) / max(picture.height, picture.width),
        min(image_size) / min(picture.height, picture.width),
    )
    return round(picture.height * factor), round(picture.width * factor)
