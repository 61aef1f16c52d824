"""Data sets in COCO's format: the embedded one drawn from a seed, and anybody's own, checked before anything runs.

Importing this room is cheap (no numpy, no cv2): ``salt-lab plan`` asks it for fingerprints.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from salt_lab.data.fingerprint import fingerprint
from salt_lab.data.paths import DatasetPaths
from salt_lab.spec.trial import CocoData, EmbeddedData

if TYPE_CHECKING:
    from salt_lab.data.coco import CocoReport

__all__ = ["DatasetPaths", "check_coco", "fingerprint", "inspect_coco", "prepare"]


def prepare(data: EmbeddedData | CocoData, root: Path) -> DatasetPaths:
    """Make ``data`` ready for training: draw the embedded set once into ``root/<fingerprint>``, or check a COCO one where it lies.

    Raises:
        DataError: the COCO files have problems; the message lists them.
        StoreError: the embedded set cannot be written under ``root``.
    """
    if isinstance(data, CocoData):
        return check_coco(data)
    from salt_lab.data.marks import generate

    return generate(data, root)


def check_coco(data: CocoData) -> DatasetPaths:
    """See :func:`salt_lab.data.coco.check_coco`."""
    from salt_lab.data import coco

    return coco.check_coco(data)


def inspect_coco(data: CocoData) -> CocoReport:
    """See :func:`salt_lab.data.coco.inspect_coco`."""
    from salt_lab.data import coco

    return coco.inspect_coco(data)
