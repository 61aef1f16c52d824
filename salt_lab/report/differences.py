"""What differs between any two runs of a study: configuration, environment, what came out; only what differs is told.

Paths are told by their last part: a report may be shown to others, and where a file lay changes no result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from salt_lab.report.words import header, label_text, number
from salt_lab.spec.flat import flatten
from salt_lab.spec.trial import without_folders

if TYPE_CHECKING:
    from salt_lab.record import Record
    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults

#: Groups of facts, in the order in which they are told.
GROUPS = ("outcome", "configuration", "environment")
#: What a run does not have.
ABSENT = "–"
_ENVIRONMENT = ("git_commit", "git_dirty", "diff_sha256", "code_version", "training_code", "python", "packages", "machine")


class Difference(NamedTuple):
    """One fact in which two runs differ; a side without it has :data:`ABSENT`."""

    group: str
    key: str
    first: str
    second: str


def facts(record: Record) -> dict[tuple[str, str], str]:
    """(group, key) -> text of everything about a run that another run may have otherwise. Nothing of a trial that never started."""
    if not record.trial:
        return {}
    here = {("configuration", header(key)): _text(value) for key, value in flatten(without_folders(record.trial)).items()}
    known = {key: record.provenance[key] for key in _ENVIRONMENT if key in record.provenance}
    here |= {("environment", key): _text(value) for key, value in flatten(known).items()}
    here |= {("environment", f"resources.{key}"): _text(value) for key, value in flatten(record.resources).items()}
    here["environment", "data_fingerprint"] = _text(record.data_fingerprint)
    return {**_outcome(record), **here}


def _outcome(record: Record) -> dict[tuple[str, str], str]:
    ap, seconds = (record.metrics or {}).get("AP"), record.cost.get("train_seconds")
    told = {"state": record.state, "attempts": str(record.attempt)}
    told |= {} if ap is None else {"AP": number(ap, 2)}
    told |= {} if seconds is None else {"train (min)": number(seconds / 60)}
    told |= {} if "parameters" not in record.cost else {"parameters": f"{record.cost['parameters']:,}"}
    return {("outcome", key): text for key, text in told.items()}


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return label_text(value) if isinstance(value, (bool, int, float, str)) else json.dumps(value)


def differences(first: Record, second: Record) -> tuple[Difference, ...]:
    """What differs between two runs, in the order of :data:`GROUPS`; empty for two runs that are alike."""
    return differing(facts(first), facts(second))


def differing(first: Mapping[tuple[str, str], str], second: Mapping[tuple[str, str], str]) -> tuple[Difference, ...]:
    """The same of two runs' :func:`facts`."""
    keys = sorted(dict.fromkeys([*first, *second]), key=lambda key: GROUPS.index(key[0]))
    told = [Difference(*key, first.get(key, ABSENT), second.get(key, ABSENT)) for key in keys]
    return tuple(one for one in told if one.first != one.second)


@dataclass(frozen=True)
class Runs:
    """Every run of a study that was started. ``names[i]`` is what a reader calls run i, ``facts[i]`` are its facts."""

    names: tuple[str, ...]
    facts: tuple[Mapping[tuple[str, str], str], ...]
    cells: tuple[str, ...]
    seeds: tuple[int, ...]

    def keys(self) -> list[tuple[str, str]]:
        """Those facts in which any two of the runs differ, in the order of :data:`GROUPS`."""
        every = sorted(dict.fromkeys(key for one in self.facts for key in one), key=lambda key: GROUPS.index(key[0]))
        return [key for key in every if len({one.get(key, ABSENT) for one in self.facts}) > 1]

    def as_data(self) -> dict[str, Any]:
        """Plain data for the page's script: ``runs`` (names), ``keys`` ([group, key]), ``texts``, and for each run the ``rows`` of indexes into
        the texts, a column per key. Each text stands once, so that 50 runs take some kilobytes."""
        keys, texts = self.keys(), dict[str, int]()
        rows = [[texts.setdefault(one.get(key, ABSENT), len(texts)) for key in keys] for one in self.facts]
        return {"runs": list(self.names), "keys": [list(key) for key in keys], "texts": list(texts), "rows": rows}

    def first_two(self, wanted: Sequence[tuple[str, str]]) -> tuple[int, int]:
        """The first (baseline, variant) pair of cells with runs, of the same seed where there is one; else the first two runs."""
        for baseline, variant in wanted:
            found = [(i, j) for i, a in enumerate(self.cells) for j, b in enumerate(self.cells) if (a, b) == (baseline, variant)]
            if found:
                return min(found, key=lambda pair: self.seeds[pair[0]] != self.seeds[pair[1]])
        return 0, min(1, len(self.names) - 1)


def runs_of(results: StudyResults, store: Store) -> Runs:
    """The runs behind a study's results, in its order."""
    from salt_lab.record.folded import brief_records

    names = {cell.key: cell.name for cell in results.study.cells}
    frame = results.frame
    records = brief_records(store, list(frame["trial_id"]), results.study.name)
    told = [
        (f"{names[cell]} seed {seed} ({state})" if state != "done" else f"{names[cell]} seed {seed}", facts(record), cell, int(seed))
        for cell, seed, state, record in zip(frame["cell"], frame["seed"], frame["state"], records, strict=True)
        if record.trial
    ]
    return Runs(*map(tuple, zip(*told, strict=True))) if told else Runs((), (), (), ())
