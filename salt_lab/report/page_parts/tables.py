"""The page's smaller tables: what is sure, what it cost, what went wrong, where it all comes from. Texts only; the template sets them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from salt_lab.report.companion import runs_table
from salt_lab.report.grid import Grid, View, make_grid
from salt_lab.report.intervals import METHODS
from salt_lab.report.page_parts.answer import Pair
from salt_lab.report.why_classes import left_out
from salt_lab.report.why_measures import ALL
from salt_lab.report.why_words import change, delta_mark, legend, sentences, value_mark
from salt_lab.report.words import COST_MEANING, MINUS, NO_DELTA, header, label_text, number, series_name, signed

if TYPE_CHECKING:
    from salt_lab.record import Record
    from salt_lab.report.results import StudyResults
    from salt_lab.report.rows import Table
    from salt_lab.report.why import Why, WhyRow
    from salt_lab.report.why_sections import Measure, Section

#: What became of trials, in the order and the words in which the page counts them.
STATES = {
    "done": "finished",
    "running": "running",
    "stopped": "stopped early",
    "interrupted": "interrupted",
    "failed": "failed",
    "new": "not started",
}


class Cell(NamedTuple):
    """A table's cell: ``text``, and what stands small under it."""

    text: str
    below: str = ""


@dataclass(frozen=True)
class Plain:
    """A table of texts. The first ``left`` columns are words; ``note`` is what its reader must know."""

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[Cell, ...], ...]
    left: int
    note: str = ""


def counts(results: StudyResults) -> list[tuple[str, int]]:
    """How many trials are in each state, in the order of :data:`STATES`, those that occur."""
    found = Counter(results.frame["state"])
    return [(word, found[state]) for state, word in STATES.items() if found[state]]


def troubles(results: StudyResults) -> Plain:
    """A line per trial that is not finished, with its reason; trials never started are one line for each cell."""
    names = {cell.key: cell.name for cell in results.study.cells}
    lines = [
        (names[trial.cell], str(trial.seed), STATES[trial.state], trial.reason or "", trial.trial_id)
        for trial in results.frame.itertuples()
        if trial.state not in ("done", "new")
    ]
    waiting: dict[str, list[str]] = {}
    for trial in results.frame[results.frame["state"] == "new"].itertuples():
        waiting.setdefault(names[trial.cell], []).append(str(trial.seed))
    lines += [(name, ", ".join(seeds), STATES["new"], "", "") for name, seeds in waiting.items()]
    return Plain("", ("cell", "seed", "state", "reason", "trial"), _cells(lines), 5)


def accuracy_grid(grid: Grid, table: Table) -> Grid:
    """The main table without what it cost, which has a table of its own on the page, and without the question in its caption."""
    said = f"Study {table.study}.{f' {table.question.strip()}' if table.question else ''} "
    return replace(_columns(grid, list(range(grid.left + grid.accuracy))), caption=grid.caption.removeprefix(said))


def cost_table(table: Table) -> Plain:
    """All that the records know of what a cell costs."""
    grid = make_grid(table, View(cost=True))
    kept = [*range(grid.left), grid.left, *range(grid.left + grid.accuracy, len(grid.head))]
    narrow = _columns(grid, kept)
    body = tuple(tuple(Cell(_true(entry.text)) for entry in line) for line in narrow.body)
    return Plain("", narrow.head, body, narrow.left, COST_MEANING)


def _columns(grid: Grid, kept: Sequence[int]) -> Grid:
    body, below = (tuple(tuple(line[at] for at in kept) for line in lines) for lines in (grid.body, grid.below))
    return replace(grid, head=tuple(grid.head[at] for at in kept), body=body, below=below)


def spent(results: StudyResults) -> str:
    """How long all finished trials trained together; "" where no record says."""
    seconds = results.frame.loc[results.frame["state"] == "done", "train_seconds"].dropna()
    if not len(seconds):
        return ""
    hours = float(seconds.sum()) / 3600
    text = f"{number(hours * 60)} minutes" if hours < 2 else f"{number(hours)} hours"
    return f"The {len(seconds)} finished trial{'s' * (len(seconds) > 1)} trained for {text} in all, evaluation left out."


def sureness(pairs: Sequence[Pair]) -> Plain | None:
    """Each comparison with all that is known of how sure it is; None where nothing has an interval."""
    known = [pair for pair in pairs if pair.found and pair.found.method != "none"]
    if not known:
        return None
    lines = []
    for pair in known:
        one = pair.found
        assert one is not None
        interval = f"[{_true(signed(one.low))}, {_true(signed(one.high))}]"
        texts = [interval, str(one.pairs or NO_DELTA), _p(one.p), _p(one.p_adjusted), _share(one.better), one.method]
        lines.append((pair.name, _true(signed(one.delta)) + one.mark, *texts))
    note = (
        "Δ and interval in AP points. p adjusted: Holm's correction over the study's comparisons; * under 0.05, ** under 0.01. Better: probability "
        "that a run of the cell has a higher AP than one of its baseline (one seed: the share of resampled image sets in which it has)."
    )
    used = [name for name in METHODS if any(pair.found and pair.found.method == name for pair in known)]
    note += "".join(f" From {name}: {METHODS[name]}." for name in used)
    head = ("cell", "ΔAP", "95 % interval", "common seeds", "p", "p adjusted", "better", "from")
    return Plain("", head, _cells(lines), 1, note)


def _p(value: float) -> str:
    return NO_DELTA if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _share(value: float) -> str:
    return NO_DELTA if math.isnan(value) else f"{100 * value:.0f} %"


class Changes(NamedTuple):
    """What the measures say of one cell against its baseline, a line each."""

    title: str
    lines: tuple[str, ...]


def why_changes(why: Why) -> list[Changes]:
    """The sentences of :func:`salt_lab.report.why_words.sentences`, taken apart at their semicolons."""
    rows = {row.key: row for row in why.rows}
    titles = {
        f"{row.name} against {rows[row.baseline].name}: ": f"{_series(row)} against {_series(rows[row.baseline])}"
        for row in why.rows
        if row.baseline in rows
    }
    found = []
    for text in sentences(why):
        start = next((start for start in titles if text.startswith(start)), "")
        parts = _true(text.removeprefix(start)).removesuffix(".").split("; ")
        found.append(Changes(titles.get(start, ""), tuple(part[0].upper() + part[1:] for part in parts)))
    return found


def _series(row: WhyRow) -> str:
    return series_name(row.label, row.name)


def why_tables(why: Why) -> list[Plain]:
    """A table for each kind of measure, over all objects: a row per cell, its change against the baseline under each number."""
    return [_why_table(why, section) for section in why.sections() if why.has(section, ALL)]


def _why_table(why: Why, section: Section) -> Plain:
    measures = [one for one in section.measures if any(row.value(ALL, one.key).n for row in why.rows)]
    keys = why.label_keys or ("cell",)
    head = (*(header(key) for key in keys), *(measure.title for measure in measures))
    rows = [row for row in why.rows if any(row.value(ALL, one.key).n for one in measures)]
    body = tuple((*_labels(why, row), *(_measured(why, row, one) for one in measures)) for row in rows)
    notes = [section.meaning, *legend(why, section, [ALL]), *(f"{line}." for line in left_out(why, section, [ALL]))]
    return Plain(section.title, head, body, len(keys), " ".join(notes))


def _labels(why: Why, row: WhyRow) -> tuple[Cell, ...]:
    return tuple(Cell(label_text(row.label.get(key))) for key in why.label_keys) or (Cell(row.name),)


def _measured(why: Why, row: WhyRow, measure: Measure) -> Cell:
    values = row.value(ALL, measure.key)
    if not values.n:
        return Cell(NO_DELTA)
    against = row.delta(ALL, measure.key)
    compared = row.baseline is not None and not math.isnan(against.delta)
    below = _true(change(measure, against)) + delta_mark(why, row, ALL, measure.key) if compared else ""
    text = f"{values.mean * measure.scale:.{measure.digits}f}{value_mark(why, row, ALL, measure.key)}"
    return Cell(_true(text), below)


def provenance_table(results: StudyResults) -> Plain:
    """Which code, data and machine the finished trials are from: a line for each combination."""
    done = results.frame[results.frame["state"] == "done"]
    kinds = ["commit", "code", "training_code", "data_fingerprint", "machine"]
    lines = [(*map(_known, key), str(len(rows))) for key, rows in done.groupby(kinds, dropna=False, sort=False)]
    return Plain("", ("commit", "sources", "training code", "data", "machine", "finished trials"), _cells(lines), 5)


def packages_table(records: Sequence[Record]) -> Plain:
    """Package -> version; several where the trials had several."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        packages = {"python": record.provenance.get("python"), **(record.provenance.get("packages") or {})}
        for name, version in packages.items():
            found.setdefault(name, {})[str(version or "not installed")] = None
    lines = [(name, ", ".join(versions)) for name, versions in found.items()]
    return Plain("", ("package", "version"), _cells(lines), 2)


def runs_of_page(results: StudyResults) -> Plain:
    """A line per trial that was started: its cell, seed, state and ids, as in a table's companion file."""
    import csv
    import io

    rows = [row for row in csv.DictReader(io.StringIO(runs_table(results))) if row["state"] != "new"]
    lines = [
        (
            row["label"],
            row["seed"],
            row["state"],
            number(float(row["AP"])) if row["AP"] else NO_DELTA,
            row["trial_id"],
            row["run_id"] or NO_DELTA,
        )
        for row in rows
    ]
    return Plain("", ("cell", "seed", "state", "AP", "trial", "MLflow run"), _cells(lines), 3)


def _known(value: object) -> str:
    return str(value) if isinstance(value, str) else "not recorded"


def _cells(lines: Sequence[Sequence[str]]) -> tuple[tuple[Cell, ...], ...]:
    return tuple(tuple(Cell(text) for text in line) for line in lines)


def _true(text: str) -> str:
    """With true minus signs."""
    return MINUS.sub("−", text)
