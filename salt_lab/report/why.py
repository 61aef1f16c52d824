"""Why a study's cells are good or bad: the measures of misalignment of every finished trial, over seeds and against the baseline.

Compute first: :mod:`salt_lab.report.why_table` writes down what is computed here. The measures: :mod:`salt_lab.report.why_measures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from salt_lab.errors import DataError, SaltLabError
from salt_lab.evaluate.overlaps import overlaps
from salt_lab.evaluate.probe_data import PROBE, Probe, load_probe
from salt_lab.evaluate.seeds import SeedDifference, difference
from salt_lab.report.matches import matches_of
from salt_lab.report.rows import Spread, spread
from salt_lab.report.why_classes import OVER_CLASSES, ClassColumns, Columns, class_columns, fewest, means, shared
from salt_lab.report.why_data import Truths, read_detections
from salt_lab.report.why_measures import Part, Values, measures_of_detections, measures_of_probe
from salt_lab.report.why_sections import SECTIONS, Section

if TYPE_CHECKING:
    from pathlib import Path

    from salt_lab.evaluate.ground_truth import GroundTruth
    from salt_lab.evaluate.matching import Matches
    from salt_lab.record.store import Store
    from salt_lab.report.results import StudyResults
    from salt_lab.spec.study import Cell

#: Between a cell's name and a seed, where trials are listed.
_SEED = "\N{NO-BREAK SPACE}seed "
#: The measures of one run.
RunValues = Mapping[Part, Values]


@dataclass(frozen=True)
class WhyRow:
    """One cell. ``values``: part -> measure -> mean and SD over the seeds that have it; ``deltas``: likewise against ``baseline``, None without one.

    ``seeds`` are those with anything measured. ``classes``: part -> measure -> seed -> class -> number, behind what is a mean over classes;
    ``delta_classes``: the least number of classes behind a seed of such a delta, which is over the classes that both runs of the seed have.
    """

    key: str
    name: str
    label: Mapping[str, Any]
    baseline: str | None
    seeds: tuple[int, ...]
    values: Mapping[Part, Mapping[str, Spread]]
    deltas: Mapping[Part, Mapping[str, SeedDifference]] | None
    classes: ClassColumns
    delta_classes: Mapping[Part, Mapping[str, int]]

    def value(self, part: Part, measure: str) -> Spread:
        """Of a measure that the cell does not have: NaN over 0 seeds."""
        return self.values.get(part, {}).get(measure, Spread(math.nan, math.nan, 0))

    def delta(self, part: Part, measure: str) -> SeedDifference:
        """Against the baseline; of method "none" where there is nothing to subtract."""
        found = (self.deltas or {}).get(part, {}).get(measure)
        return found or SeedDifference(math.nan, math.nan, math.nan, math.nan, math.nan, 0, "none")


@dataclass(frozen=True)
class Why:
    """A study's measures. ``parts``: the whole, then sizes, then classes. ``missing``: a line for each thing that could not be measured."""

    study: str
    question: str
    label_keys: tuple[str, ...]
    rows: tuple[WhyRow, ...]
    parts: tuple[Part, ...]
    missing: tuple[str, ...]

    def sections(self) -> tuple[Section, ...]:
        """The sections of which any cell has any number."""
        return tuple(section for section in SECTIONS if any(self.has(section, part) for part in self.parts))

    def has(self, section: Section, part: Part) -> bool:
        """Has any cell any number of this section for this part?"""
        return any(row.value(part, measure.key).n for row in self.rows for measure in section.measures)

    @property
    def seeds(self) -> int:
        """The largest number of seeds that a cell has."""
        return max((len(row.seeds) for row in self.rows), default=0)

    def known(self, part: Part, measure: str) -> frozenset[str]:
        """The classes for which any run has this measure; empty where it is no mean over classes."""
        return self.known_classes.get(part, {}).get(measure, frozenset())

    @cached_property
    def known_classes(self) -> Mapping[Part, Mapping[str, frozenset[str]]]:
        """Part -> measure -> the classes for which any run has it."""
        found: dict[Part, dict[str, frozenset[str]]] = {}
        for row in self.rows:
            for part, measures in row.classes.items():
                for key, runs in measures.items():
                    known = found.setdefault(part, {}).get(key, frozenset())
                    found[part][key] = known.union(*runs.values())
        return found


def why(results: StudyResults, store: Store) -> Why:
    """Measure every finished trial of a study from its detections and, where there is one, its probe.

    Takes about 10 s a trial at val2017's size; a trial that cannot be measured here is named in ``missing`` with the reason.
    """
    found = _measure(results, store)
    seeds_of = {cell.key: _seeds(results, cell, found) for cell in results.study.cells}
    by_cell = {
        cell.key: {
            seed: _merged(found.detections.get(identity, {}), found.probes.get(identity, {}))
            for seed, identity in seeds_of[cell.key].items()
        }
        for cell in results.study.cells
    }
    rows = tuple(_row(cell, by_cell) for cell in results.study.cells)
    parts = dict.fromkeys(part for runs in by_cell.values() for values in runs.values() for part in values if not part.within)
    ordered = sorted(parts, key=lambda part: ("all", "size", "class").index(part.kind))
    return Why(results.study.name, results.study.question, results.label_keys, rows, tuple(ordered), found.missing)


def _seeds(results: StudyResults, cell: Cell, found: _Measured) -> dict[int, str]:
    """Seed -> trial id, of the trials with any measure."""
    trials = results.trials_of(cell.key)
    have = {*found.detections, *found.probes}
    return {int(seed): str(identity) for seed, identity in zip(trials["seed"], trials["trial_id"], strict=True) if identity in have}


def _row(cell: Cell, by_cell: Mapping[str, Mapping[int, RunValues]]) -> WhyRow:
    against = None if cell.baseline is None else by_cell.get(cell.baseline, {})
    columns = _columns(by_cell[cell.key])
    values = {part: {key: spread(runs.values()) for key, runs in measures.items()} for part, measures in columns.items()}
    classes = class_columns(columns)
    deltas, counts = (None, {}) if against is None else _deltas((columns, classes), _columns(against))
    return WhyRow(cell.key, cell.name, dict(cell.label), cell.baseline, tuple(by_cell[cell.key]), values, deltas, classes, counts)


def _deltas(
    variant: tuple[Columns, ClassColumns], baseline: Columns
) -> tuple[dict[Part, dict[str, SeedDifference]], dict[Part, dict[str, int]]]:
    """The differences, and how many classes are behind those of means over classes."""
    columns, classes = variant
    others = class_columns(baseline)
    found: dict[Part, dict[str, SeedDifference]] = {}
    counts: dict[Part, dict[str, int]] = {}
    for part, measures in columns.items():
        for key, runs in measures.items():
            against: Mapping[int, float] = baseline.get(part, {}).get(key, {})
            if part.kind != "class" and key in OVER_CLASSES:
                ours, theirs = shared(classes.get(part, {}).get(key, {}), others.get(part, {}).get(key, {}))
                counts.setdefault(part, {})[key] = min(fewest(ours), fewest(theirs))
                runs, against = means(ours), means(theirs)
            found.setdefault(part, {})[key] = difference(runs, against)
    return found, counts


def _columns(runs: Mapping[int, RunValues]) -> dict[Part, dict[str, dict[int, float]]]:
    """Part -> measure -> seed -> number."""
    columns: dict[Part, dict[str, dict[int, float]]] = {}
    for seed, parts in runs.items():
        for part, values in parts.items():
            for key, number in values.items():
                columns.setdefault(part, {}).setdefault(key, {})[seed] = number
    return columns


def _merged(first: RunValues, second: RunValues) -> RunValues:
    return {part: {**first.get(part, {}), **second.get(part, {})} for part in dict.fromkeys([*first, *second])}


class _Measured(NamedTuple):
    """Measures by trial id, of detections and of probes; a line for each trial without."""

    detections: dict[str, RunValues]
    probes: dict[str, RunValues]
    missing: tuple[str, ...]


def _measure(results: StudyResults, store: Store) -> _Measured:
    truths, matched = Truths(store), matches_of(results, store)
    found, unmeasured, unprobed = _Measured({}, {}, ()), [], []
    for cell in results.study.cells:
        for trial in results.trials_of(cell.key).itertuples():
            if trial.state != "done":
                continue
            name, folder, names = f"{cell.name} seed {trial.seed} (trial {trial.trial_id})", store.trial_dir(trial.trial_id), {}
            try:
                truth = truths.of(cell.trial.data)
                names = dict(zip(truth.category_ids_C.tolist(), truth.category_names, strict=True))
                found.detections[trial.trial_id] = _of_detections(matched[trial.trial_id], truth, folder, names)
            except SaltLabError as error:
                unmeasured.append(f"{name}: detections not measured: {error}")
            try:
                probe = load_probe(folder / PROBE)
                found.probes[trial.trial_id] = measures_of_probe(probe, names or _numbered(probe))
                unprobed += [f"{name}: {probe.note}"] if probe.note else []
            except SaltLabError as error:
                unprobed.append(f"{name}: {error}" if (folder / PROBE).exists() else f"{cell.name}{_SEED}{trial.seed}")
    return found._replace(missing=(*unmeasured, *_without_probe(unprobed)))


def _of_detections(matches: Matches | str, truth: GroundTruth, folder: Path, names: Mapping[int, str]) -> dict[Part, Values]:
    if isinstance(matches, str):
        raise DataError(matches)
    if not (np.array_equal(matches.obj_area_G, truth.areas_G) and np.array_equal(matches.image_ids_I, truth.image_ids_I)):
        raise DataError(f"{truth.name}: not the annotations that the trial's detections were matched with. Name those in data.val")
    return measures_of_detections(overlaps(matches, truth, read_detections(folder)), names)


def _numbered(probe: Probe) -> dict[int, str]:
    """Names for classes whose data set is not here."""
    return {number: f"class {number}" for number in sorted(set(probe.category_P.tolist()))}


def _without_probe(trials: Sequence[str]) -> list[str]:
    if not trials:
        return []
    by_cell: dict[str, list[str]] = {}
    for name, seed, number in (text.partition(_SEED) for text in trials):
        by_cell.setdefault(name, []).extend([number] if seed else [])
    named = [f"{name} seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" if seeds else name for name, seeds in by_cell.items()]
    many = "1 trial has" if len(trials) == 1 else f"{len(trials)} trials have"
    remedy = "salt-lab probe STUDY makes it where a checkpoint is left"
    return [f"{many} no {PROBE}, so nothing is known of positive locations and points: {'; '.join(named)}. {remedy}"]
