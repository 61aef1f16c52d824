"""A computed table as a grid of texts: which columns, in which words, what is best. The writers of md, LaTeX and HTML only set it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from salt_lab.errors import UserError, did_you_mean
from salt_lab.record import COCO_NAMES
from salt_lab.report.intervals import interval_notes
from salt_lab.report.rows import TABLE_METRICS, Row, Table
from salt_lab.report.words import (
    COST_MEANING,
    NO_DELTA,
    caption,
    cost_texts,
    delta_text,
    header,
    label_text,
    metric_text,
    number,
    speed_texts,
)

if TYPE_CHECKING:
    from salt_lab.report.published import Beside, PublishedRow

COSTS = ("params (M)", "GFLOPs", "train (min)", "peak (MB)")
SPEED = ("train (img/s)", "inference (ms)", "input")
PUBLISHED = "published"


class Entry(NamedTuple):
    """One cell of a table: ``best`` is the part in front that stands in bold, "" in most."""

    rest: str
    best: str = ""

    @property
    def text(self) -> str:
        """The whole, without the bold."""
        return self.best + self.rest


@dataclass(frozen=True)
class View:
    """What to show of a table: ``cost`` speed and input size too; ``metrics`` after AP; ``published`` what others have reported."""

    cost: bool = False
    metrics: tuple[str, ...] = TABLE_METRICS
    published: Beside | None = None


@dataclass(frozen=True)
class Grid:
    """A table as texts. The first ``left`` columns are words, then come ``accuracy`` columns of numbers, then what they cost.

    ``body`` are the study's rows and ``below`` those of others (published), which stand apart. ``notes`` belong under the table, ``warnings``
    must be seen with it.
    """

    head: tuple[str, ...]
    body: tuple[tuple[Entry, ...], ...]
    below: tuple[tuple[Entry, ...], ...]
    left: int
    accuracy: int
    caption: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def chosen_metrics(text: str | None) -> tuple[str, ...]:
    """``AP50,AP75`` as columns; AP comes first, asked for or not. None = the usual six.

    Raises UserError for a name that is none of COCO's twelve.
    """
    if text is None:
        return TABLE_METRICS
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in COCO_NAMES:
            raise UserError(f"--metrics {text}: {did_you_mean('metric', name, COCO_NAMES)}")
    return tuple(dict.fromkeys(["AP", *wanted]))


def make_grid(table: Table, view: View) -> Grid:
    """Head, rows and notes of ``table`` as a reader sees them."""
    labels = _label_head(table, view)
    head = (*labels, "AP", *_compared_head(table, view), *view.metrics[1:], *COSTS, *(SPEED if view.cost else ()))
    best = {name: table.best(name) for name in view.metrics}
    body = tuple(_entries(table, row, view, best) for row in table.rows)
    below = tuple(_published_entries(one, head, len(labels)) for one in (view.published.below if view.published else ()))
    notes = (*interval_notes(table.intervals), *(view.published.notes if view.published else ()))
    text = caption(table) + (f" {COST_MEANING}" if view.cost else "")
    accuracy = len(_compared_head(table, view)) + len(view.metrics)
    return Grid(head, body, below, len(labels), accuracy, text, notes, table.evidence.warnings)


def _label_head(table: Table, view: View) -> list[str]:
    named = table.titled or bool(view.published and view.published.below and not table.label_keys)
    return [*(["cell"] if named else []), *(header(key) for key in table.label_keys)]


def _compared_head(table: Table, view: View) -> list[str]:
    return [*([PUBLISHED] if view.published else []), *(["delta"] if table.compared else [])]


def _entries(table: Table, row: Row, view: View, best: dict[str, frozenset[str]]) -> tuple[Entry, ...]:
    labels = [label_text(row.label.get(key)) for key in table.label_keys]
    if len(_label_head(table, view)) > len(labels):
        labels = [row.title or row.name, *labels]
    beside = [view.published.text(row.key)] if view.published else []
    delta = [delta_text(row)] if table.compared else []
    ap, *others = (_metric(row, name, row.key in best[name]) for name in view.metrics)
    spent = [*cost_texts(row), *(speed_texts(row) if view.cost else ())]
    return (*map(Entry, labels), ap, *map(Entry, [*beside, *delta]), *others, *map(Entry, spent))


def _metric(row: Row, name: str, best: bool) -> Entry:
    text = metric_text(row, name)
    mean = number(row.metrics[name].mean)
    return Entry(text[len(mean) :], mean) if best else Entry(text)


def _published_entries(row: PublishedRow, head: Sequence[str], left: int) -> tuple[Entry, ...]:
    """Somebody else's numbers under ours; what was not reported has a dash, and nothing of it is bold."""
    texts = [f"{row.title} (published, COCO) [{row.tags}]", *[NO_DELTA] * (left - 1)]
    texts += [number(row.metrics[name]) if name in row.metrics else NO_DELTA for name in head[left:]]
    return tuple(map(Entry, texts))
