"""What the notebooks in ``analysis/`` ask of the library, so that they need no logic of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from salt_lab.errors import StoreError
from salt_lab.record.commands import command_for
from salt_lab.report.compare import Comparison, compare
from salt_lab.report.differences import differences
from salt_lab.report.rows import study_table

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.report.pictures import Pictures
    from salt_lab.report.results import StudyResults


class TwoRuns(NamedTuple):
    """A variant's run and its baseline's with the same seed: their ids and names, the cells' comparison, a frame of what differs between the
    runs, and pictures of the pair (with the reason where one is missing)."""

    variant: str
    baseline: str
    names: tuple[str, str]
    seed: int
    comparison: Comparison
    differences: Any
    pictures: Pictures


def need_results(results: StudyResults, store: Store) -> None:
    """Raises StoreError, with what to run, where no trial of the study is done in this results folder."""
    if not (results.frame["state"] == "done").any():
        study = results.study
        raise StoreError(f"{store.root}: no trial of study '{study.name}' is done there. Run it: {command_for('run', study, store)}")


def two_runs(results: StudyResults, store: Store, cell: str | None = None, resamples: int = 1000) -> TwoRuns:
    """Everything about two runs side by side, of the first seed that both have finished.

    Args:
        results, store: the study's records.
        cell: name of the variant's cell as the table says it; None = the first comparison that has two finished runs.
        resamples: of the comparison's bootstrap.

    Raises:
        SpecError: the study has no such cell.
        StoreError: no such pair is done, with what to run.
    """
    from salt_lab.report.pictures import Pictures
    from salt_lab.report.pictures.pairs import pair_pictures
    from salt_lab.report.pictures.study import Arms, add_picture, arms_of

    need_results(results, store)
    wanted = None if cell is None else results.study.cell(cell).key
    found = list(arms_of(results, study_table(results)))
    chosen = [(name, arms) for name, arms in found if isinstance(arms, Arms) and wanted in (None, arms.key)]
    if not chosen:
        what = "two runs to compare" if cell is None else f"'{cell}' and its baseline with the same seed"
        raise StoreError(f"{store.root}: {what} are not done there. Run: {command_for('run', results.study, store)}")
    name, arms = chosen[0]
    pictures = Pictures()
    for called, draw in pair_pictures(results, store, study_table(results)):
        if called.endswith(f"_{name}"):
            add_picture(pictures, called, draw)
    records = [store.record(identity) for identity in (arms.baseline, arms.variant)]
    told = _frame(differences(*records), arms.names)
    return TwoRuns(arms.variant, arms.baseline, arms.names, arms.seed, compare(results, store, resamples)[arms.key], told, pictures)


def _frame(found: Any, names: tuple[str, str]) -> Any:
    import pandas as pd

    return pd.DataFrame([tuple(one) for one in found], columns=["", "what", *names])
