"""Which classes stand behind a mean over classes: the same ones on both sides of a difference, and those that are missing, by name.

A run that finds nothing of a class has no number for it (no location error, no false alarms), so that its mean over classes is over fewer of them.
To subtract another run's mean over all of them would compare classes, not runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from salt_lab.report.why_measures import ALL, Part
from salt_lab.report.why_sections import SECTIONS

if TYPE_CHECKING:
    from salt_lab.report.why import Why, WhyRow
    from salt_lab.report.why_sections import Section

#: Part -> measure -> seed -> number.
Columns = Mapping[Part, Mapping[str, Mapping[int, float]]]
#: Seed -> class -> number; classes without one are left out.
Classes = Mapping[int, Mapping[str, float]]
ClassColumns = Mapping[Part, Mapping[str, Classes]]
#: Measures that are, as a whole and by size, means over classes.
OVER_CLASSES = frozenset(measure.key for section in SECTIONS if section.over == "classes" for measure in section.measures)
#: With more than this many missing classes the others are counted, not named.
_NAMED = 5


def class_columns(columns: Columns) -> ClassColumns:
    """The classes behind each number of the whole and of each size that is a mean over classes."""
    found: dict[Part, dict[str, dict[int, dict[str, float]]]] = {}
    for part, measures in columns.items():
        if part.kind != "class":
            continue
        whole = found.setdefault(Part("size", part.within) if part.within else ALL, {})
        for key in OVER_CLASSES & measures.keys():
            for seed, number in measures[key].items():
                if not math.isnan(number):
                    whole.setdefault(key, {}).setdefault(seed, {})[part.name] = number
    return found


def shared(variant: Classes, baseline: Classes) -> tuple[Classes, Classes]:
    """Of each seed that both arms have the classes that both of its runs have; arms that cannot be paired: the classes that all runs have."""
    common = {seed: variant[seed].keys() & baseline[seed].keys() for seed in sorted(variant.keys() & baseline.keys())}
    common = {seed: classes for seed, classes in common.items() if classes}
    if len(common) < 2 <= min(len(variant), len(baseline)):
        every = set.intersection(*(set(run) for run in (*variant.values(), *baseline.values())))
        if every:
            return _only(variant, dict.fromkeys(variant, every)), _only(baseline, dict.fromkeys(baseline, every))
    return _only(variant, common), _only(baseline, common)


def _only(runs: Classes, kept: Mapping[int, Iterable[str]]) -> Classes:
    return {seed: {name: runs[seed][name] for name in sorted(names)} for seed, names in kept.items()}


def means(runs: Classes) -> dict[int, float]:
    """Seed -> mean over its classes."""
    return {seed: fmean(numbers.values()) for seed, numbers in runs.items()}


def fewest(runs: Classes) -> int:
    """The least number of classes behind any seed; 0 where there is no seed."""
    return min((len(numbers) for numbers in runs.values()), default=0)


def left_out(why: Why, section: Section, parts: Iterable[Part]) -> tuple[str, ...]:
    """A line for each run and part that lacks classes that the study has: which classes, in which measures of the section.

    Nothing is said of a measure that a cell does not have in any run (the table shows no number) or that is not a mean over classes.
    """
    if section.over != "classes":
        return ()
    wanted = dict.fromkeys(ALL if part.kind == "class" else part for part in parts)
    return tuple(line for part in wanted for row in why.rows for seed in row.seeds for line in _left_out(why, section, part, row, seed))


def _left_out(why: Why, section: Section, part: Part, row: WhyRow, seed: int) -> list[str]:
    titles: dict[tuple[str, ...], list[str]] = {}
    for measure in section.measures:
        runs = row.classes.get(part, {}).get(measure.key, {})
        lacking = sorted(why.known(part, measure.key) - runs.get(seed, {}).keys()) if runs else []
        if lacking:
            titles.setdefault(tuple(lacking), []).append(f'"{measure.title}"' if "," in measure.title else measure.title)
    where = f" of {part.name} objects" if part.name else ""
    said = [f"{_named(lacking)}{where} in {', '.join(names)}" for lacking, names in titles.items()]
    return [f"{row.name} seed {seed}: no {'; no '.join(said)}"] if said else []


def _named(classes: tuple[str, ...]) -> str:
    more = len(classes) - _NAMED
    return " or ".join(classes) if more <= 1 else f"{', '.join(classes[:_NAMED])} and {more} more classes"


def seeds_left_out(why: Why) -> tuple[str, ...]:
    """A line for each cell that has fewer seeds than others."""
    every = {seed for row in why.rows for seed in row.seeds}
    short = [row for row in why.rows if row.seeds and len(row.seeds) < why.seeds]
    return tuple(f"{row.name}: no measures of seed {', '.join(map(str, sorted(every - set(row.seeds))))}" for row in short)
