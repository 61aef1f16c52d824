"""A study's figures as files. What each shows is drawn in :mod:`salt_lab.report.pictures`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from salt_lab.report.pictures import Picture, gains, learning_curves, study_pictures
from salt_lab.report.style import house_style

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults

__all__ = ["Saved", "gains", "learning_curves", "save_figures"]

#: Also as PDF, for a paper; and AP over each numeric axis.
_ALSO_PDF = ("gains", "learning_curves", "forest")


class Saved(list[Path]):
    """The files written, in order. ``missing``: name of each figure that could not be made -> why."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: dict[str, str] = {}


def save_figures(results: StudyResults, store: Store, folder: Path, *, deep: bool = False) -> Saved:
    """Write the study's figures into ``folder`` as PNG (200 dots an inch), gains, forest, learning curves and AP
    over a numeric axis also as PDF.

    Nothing is written for a figure that would be empty: ``missing`` of what is returned says why.

    Args:
        results, store: the study's records.
        folder: made where it does not exist.
        deep: also score against IoU, points and disagreement of each comparison, and intervals over images in the forest plot; they need detections
            and probes, and a second or two each. False = from the records alone: what the end of every ``salt-lab run`` draws.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures, saved = study_pictures(results, store, deep=deep), Saved()
    saved.missing = pictures.missing
    for picture in pictures.made:
        saved += _save(picture, folder)
    return saved


def _save(picture: Picture, folder: Path) -> list[Path]:
    also_pdf = picture.name in _ALSO_PDF or picture.name.startswith("over_")
    paths = [folder / f"{picture.name}{suffix}" for suffix in ((".png", ".pdf") if also_pdf else (".png",))]
    with house_style():
        for path in paths:
            picture.figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else {"CreationDate": None})
    return paths
