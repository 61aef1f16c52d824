"""The mean over classes that COCO's AP is, for any named numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

Named = TypeVar("Named", bound=tuple[float, ...])


def class_mean(values: Iterable[Named]) -> Named:
    """Field by field the mean over classes, as AP is one; a class for which a field is NaN does not enter it.

    Raises:
        ValueError: no class at all.
    """
    rows = list(values)
    if not rows:
        raise ValueError("no class to take a mean over")
    table_CF = np.array(rows, np.float64)
    known_CF = np.isfinite(table_CF)
    count_F = known_CF.sum(axis=0)
    sum_F = np.where(known_CF, table_CF, 0.0).sum(axis=0)
    mean_F = np.divide(sum_F, count_F, out=np.full(len(sum_F), np.nan), where=count_F > 0)
    return type(rows[0])(*mean_F.tolist())
