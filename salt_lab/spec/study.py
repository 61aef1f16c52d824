"""A study: a question, a base trial, what varies, the seeds, and what is compared with what. One YAML file; it expands to cells.

:func:`load_study` checks everything that can be known without the data, before anything runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salt_lab.errors import SpecError, did_you_mean
from salt_lab.spec.compare import cell_key, compared, read_baseline
from salt_lab.spec.early_stop import EarlyStop, read_early_stop
from salt_lab.spec.exclude import excluded
from salt_lab.spec.expansion import Draft, expand, mapping, read_plan, sequence
from salt_lab.spec.naming import labels, names
from salt_lab.spec.overrides import apply_to_document, base_layer, check_fields, parse_overrides
from salt_lab.spec.reading import NOTHING, Source, read_study_file
from salt_lab.spec.resources import Resources, read_resources
from salt_lab.spec.retention import Retention, read_retention
from salt_lab.spec.settings import Layer, build, layer, over
from salt_lab.spec.trial import Trial, active, flatten


@dataclass(frozen=True)
class Cell:
    """One row of the study's table: a trial for each seed.

    ``key`` is a hash of the canonical trial without its seed; ``label`` holds the dotted keys in which the study's cells differ, without
    those that have no effect here; ``baseline`` is the key of the cell it is compared with, None for a baseline itself.
    """

    trial: Trial
    key: str
    name: str
    seeds: tuple[int, ...]
    label: dict[str, Any] = field(hash=False)
    baseline: str | None = None

    def trials(self) -> tuple[Trial, ...]:
        """The cell's trials, one per seed of the study, in the study's order."""
        return tuple(self.trial.model_copy(update={"seed": seed}) for seed in self.seeds)


@dataclass(frozen=True)
class Compare:
    """What is compared with what: the baseline of a cell is the cell that is equal to it once these keys are set. Empty = no comparison."""

    baseline: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Study:
    """A study read, checked and expanded. ``cells`` are unique, in the order of the file; ``resources`` are what each trial runs on."""

    name: str
    question: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    source: Path
    compare: Compare = Compare()
    overrides: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    early_stop: EarlyStop | None = None
    retention: Retention = field(default_factory=Retention)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the study should know before it runs, a sentence each."""
        heavy = [cell.name for cell in self.cells if cell.trial.sdr_outvotes]
        if not heavy:
            return ()
        named = f"'{heavy[0]}'" + (f" and {len(heavy) - 1} more" if len(heavy) > 1 else "")
        what = "the coarse box learns the refined one there, not the ground truth"
        return (f"SDR is as heavy as the coarse loss or heavier in {named}: {what} (docs/findings.md).",)

    def trials(self) -> tuple[Trial, ...]:
        """Every trial: the cells in order, and for each its seeds."""
        return tuple(trial for cell in self.cells for trial in cell.trials())

    def cell(self, selector: str) -> Cell:
        """The cell with this name or key. Raises SpecError with the near match."""
        for one in self.cells:
            if selector in (one.name, one.key):
                return one
        raise SpecError(f"{self.source}: {did_you_mean('cell', selector, [one.name for one in self.cells])}.")


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file, put the overrides (``key=value``) over it, check it and expand it.

    Raises SpecError, one line that names file, field, value and next step, for everything that is wrong with the file, a field, a value,
    an override or a comparison. The data set's files are not looked at; environment variables in its paths are put in.
    """
    source = Source(Path(path))
    document = read_study_file(source)
    check_fields(source, document)
    for_base = apply_to_document(source, document, parse_overrides(source, overrides))
    plan = read_plan(source, document)
    base = layer(source, mapping(source, document.get("base"), "base", "{host: atss}"), "base")
    base = over(base, base_layer(source, for_base, plan))
    drafts = excluded(source, expand(source, base, plan), document.get("exclude"))
    baseline = read_baseline(source, document.get("compare"))
    seeds = _seeds(source, document.get("seeds", [0]))
    cells = _cells(source, drafts, baseline, seeds)
    return Study(
        name=_name(source, document.get("name")),
        question=_question(source, document.get("question")),
        cells=cells,
        seeds=seeds,
        source=source.path,
        compare=Compare({key: setting.value for key, setting in baseline.items()}),
        overrides=tuple(overrides),
        resources=read_resources(source, document.get("resources")),
        early_stop=read_early_stop(source, document.get("early_stop"), cells),
        retention=read_retention(source, document.get("retention")),
    )


def _cells(source: Source, drafts: list[Draft], baseline: Layer, seeds: tuple[int, ...]) -> tuple[Cell, ...]:
    trials = [build(source, draft.layer, seeds[0]) for draft in drafts]
    unique: dict[str, tuple[Trial, Draft]] = {}
    given: dict[str, str] = {}
    for trial, draft in zip(trials, drafts, strict=True):
        unique.setdefault(cell_key(trial), (trial, draft))
        if draft.name:
            given.setdefault(cell_key(trial), draft.name)
    kept = [trial for trial, _ in unique.values()]
    marks = labels(kept)
    spoken = [given.get(key) or name or _alone(trial) for key, name, trial in zip(unique, names(marks), kept, strict=True)]
    _check_names(source, spoken)
    pairs = compared(source, dict(zip(unique, spoken, strict=True)), {key: draft for key, (_, draft) in unique.items()}, baseline)
    return tuple(
        Cell(trial=trial, key=key, name=name, seeds=seeds, label=label, baseline=pairs.get(key))
        for key, trial, name, label in zip(unique, kept, spoken, marks, strict=True)
    )


def _alone(trial: Trial) -> str:
    flat = flatten(active(trial))
    return names([{key: flat[key] for key in ("host", "salt.enabled")}])[0]


def _check_names(source: Source, spoken: Sequence[str]) -> None:
    for name in spoken:
        if spoken.count(name) > 1:
            raise source.error("cases", NOTHING, f"two cells are named '{name}': give each its own name")


def _seeds(source: Source, seeds: Any) -> tuple[int, ...]:
    for index, seed in enumerate(sequence(source, seeds, "seeds", "integers")):
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise source.error(f"seeds[{index}]", seed, "a seed is an integer from 0 on, e.g. seeds: [0, 1, 2]")
        if seed in seeds[:index]:
            raise source.error(f"seeds[{index}]", seed, "is there twice: the same seed gives the same trial, take another one")
    return tuple(seeds)


def _name(source: Source, name: Any) -> str:
    chosen = source.path.stem if name is None else name
    if not isinstance(chosen, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", chosen):
        raise source.error("name", chosen, "a study's name is a folder's name: letters, digits, '.', '_' and '-', at most 100 of them")
    return chosen


def _question(source: Source, question: Any) -> str:
    if question is not None and not isinstance(question, str):
        raise source.error("question", question, "must be text: what does this study ask?")
    return " ".join((question or "").split())
