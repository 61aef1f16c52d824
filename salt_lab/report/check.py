"""Ours against published: does a study reproduce what others report, within the spread that they report between two runs?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from salt_lab.report.published import Coco, PublishedRow, match, published, whole_coco
from salt_lab.report.rows import Row, Spread, Table, study_table
from salt_lab.report.words import delta_text

if TYPE_CHECKING:
    from salt_lab.report.results import StudyResults
    from salt_lab.spec.study import Cell


@dataclass(frozen=True)
class Verdict:
    """One cell against what is published of it. ``difference``: our mean AP, to the decimal that the other has, minus theirs; None where there is
    nothing to compare. ``said``: agrees, lower by x, higher by x, nothing published, not run on COCO, no result yet; ``why`` in more words."""

    key: str
    name: str
    ours: Spread
    published: PublishedRow | None
    difference: float | None
    said: str
    why: str = ""

    @property
    def disagrees(self) -> bool:
        """Is there a number that ours is too far from?"""
        return self.said.startswith(("lower", "higher"))


@dataclass(frozen=True)
class Check:
    """All verdicts of a study, in its order, and what the paper states of gains in general, which is no number to be checked against."""

    verdicts: tuple[Verdict, ...]
    noise: float
    statements: tuple[str, ...]

    @property
    def disagrees(self) -> bool:
        """Does any cell disagree with a published number?"""
        return any(one.disagrees for one in self.verdicts)


def stated_noise(*, same_seed: bool = False) -> float:
    """The largest AP difference between two runs of one recipe that mmdetection's maintainers call normal: 0.2 with one seed, else 0.3.

    The published runs name no seed, so :func:`check_study` takes 0.3. Sources in published.yaml, ``noise``.
    """
    return float(published().noise["same_seed" if same_seed else "other_seed"]["AP"])


def check_study(results: StudyResults, noise: float | None = None) -> Check:
    """Hold every cell of a study against the published number of the same model, recipe and data.

    Args:
        results: the study's records.
        noise: AP points that two runs of one recipe may lie apart; None = :func:`stated_noise`.
    """
    allowed = stated_noise() if noise is None else noise
    table = study_table(results)
    cells = {cell.key: cell for cell in results.study.cells}
    coco = {key: whole_coco(cell.trial.data) for key, cell in cells.items()}
    verdicts = tuple(_verdict(row, cells[row.key], coco[row.key], allowed) for row in table.rows)
    return Check(verdicts, allowed, _statements(table, coco, cells))


def _verdict(row: Row, cell: Cell, coco: Coco, noise: float) -> Verdict:
    ours = row.metrics["AP"]
    if not coco.whole:
        return Verdict(row.key, row.name, ours, None, None, "not run on COCO", coco.why)
    found = match(cell.trial)
    if isinstance(found, str):
        return Verdict(row.key, row.name, ours, None, None, "nothing published", found)
    if ours.n == 0:
        return Verdict(row.key, row.name, ours, found, None, "no result yet", row.state)
    if row.selected:
        return Verdict(row.key, row.name, ours, found, None, "not compared", "early stopping chose its seeds by their AP")
    counted = "" if coco.counted else "COCO 2017 by its files' names; not counted here"
    return Verdict(row.key, row.name, ours, found, *_compare(ours.mean, found.metrics["AP"], noise), counted)


def _compare(ours: float, theirs: float, noise: float) -> tuple[float, str]:
    """Ours is rounded to theirs' decimals first: a published 39.4 may have been 39.35."""
    digits = max(1, len(f"{theirs!r}".partition(".")[2]))
    difference = round(round(ours, digits) - theirs, digits)
    if abs(difference) <= noise + 1e-9:
        return difference, "agrees"
    return difference, f"{'lower' if difference < 0 else 'higher'} by {abs(difference):.1f}"


def _statements(table: Table, coco: dict[str, Coco], cells: dict[str, Cell]) -> tuple[str, ...]:
    """The paper's statements on gains beside our deltas on COCO; no verdict, because no host has a number."""
    gains = [row for row in table.rows if row.delta is not None and cells[row.key].trial.salt.enabled]
    if not gains:
        return ()
    ours = [f"{row.name} {delta_text(row)}" for row in gains if coco[row.key].whole and row.delta and row.delta.n]
    said = f"ours on COCO: {'; '.join(ours)}" if ours else "no delta of ours on COCO yet"
    return tuple(
        f"{one['about']}: {one['delta_AP']} AP is stated ({_where(one['sources'])}), with {one['hosts']}: a statement, nothing to check; {said}."
        for one in published().statements
        if one["about"].startswith("SALT")
    )


def _where(tags: list[str]) -> str:
    return ", ".join(published().sources[tag]["text"] for tag in tags)
