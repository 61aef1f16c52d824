"""Detections as arrays, in the caller's order. Letter: N detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salt_lab.errors import DataError


@dataclass(frozen=True)
class Detections:
    """What a detector said, a row each: the columns of COCO's result form.

    Raises:
        DataError: the columns are not equally long, or boxes are not N x 4.
    """

    image_id_N: NDArray[np.int64]
    category_id_N: NDArray[np.int64]
    boxes_N4: NDArray[np.float64]  #: x, y, width, height in pixels of the original picture
    score_N: NDArray[np.float64]

    def __post_init__(self) -> None:
        n = len(self.score_N)
        shapes = [np.shape(value) for value in (self.image_id_N, self.category_id_N, self.score_N, self.boxes_N4)]
        if shapes != [(n,), (n,), (n,), (n, 4)]:
            raise DataError(f"detections: image_id, category_id, score, boxes of shapes {shapes}: give N, N, N and N x 4")

    def __len__(self) -> int:
        return len(self.score_N)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> Detections:
        """From COCO's result form: image_id, category_id, bbox ``[x, y, width, height]``, score.

        Raises:
            DataError: a row lacks a field or has another thing in it; names the row.
        """
        n = len(rows)
        try:
            found = cls(
                np.fromiter(map(itemgetter("image_id"), rows), np.int64, n),
                np.fromiter(map(itemgetter("category_id"), rows), np.int64, n),
                np.fromiter(chain.from_iterable(map(itemgetter("bbox"), rows)), np.float64, 4 * n).reshape(n, 4),
                np.fromiter(map(itemgetter("score"), rows), np.float64, n),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(_bad_row(rows) or f"detections cannot be read: {error}") from None
        if (np.isnan(found.score_N).any() or np.isnan(found.boxes_N4).any()) and (said := _bad_row(rows)):  # None became NaN
            raise DataError(said)
        return found


def _bad_row(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Which row is to blame, if any."""
    for number, row in enumerate(rows):
        try:
            [float(row[key]) for key in ("image_id", "category_id", "score")]
            if len([float(v) for v in row["bbox"]]) != 4:
                raise ValueError("bbox has not four numbers")
        except KeyError as lacking:
            return f"detection {number}: no field {lacking} in {str(row)[:120]}. COCO's results have image_id, category_id, bbox, score"
        except (TypeError, ValueError) as wrong:
            return f"detection {number}: {wrong}: {str(row)[:120]}. COCO's results have image_id, category_id, bbox [x, y, w, h], score"
    return None
