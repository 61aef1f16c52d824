"""Published numbers: what others have reported on COCO (published.yaml), and which of it a trial of ours can be held against.

Only a real match shows a number: the same host, operator, backbone, weights and schedule, to the last field, on all of COCO 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from salt_lab.data.fingerprint import image_names
from salt_lab.data.paths import coco_files
from salt_lab.errors import DataError
from salt_lab.record import COCO_NAMES
from salt_lab.spec.parts import MMDET
from salt_lab.spec.trial import SCHEDULES, CocoData, Trial, canonical, flatten, unflatten

if TYPE_CHECKING:
    from salt_lab.report.results import StudyResults

#: Images of COCO 2017 by split, and the annotation files that hold them.
COCO_IMAGES = {"instances_train2017.json": 118_287, "instances_val2017.json": 5_000}
#: What a published number has nothing to say about: where the files lie, which seed, how often it was evaluated.
_FREE = ("data.", "seed", "schedule.eval_every")
NOTHING = "-"


@dataclass(frozen=True)
class PublishedRow:
    """One model as its authors or a zoo report it. ``metrics``: AP and, where known, its parts, percent on val2017; ``test_dev``: AP there.

    ``trial``: what a trial must be, over the schedule's recipe, to be this model; None where no trial of the lab can be.
    ``memory_gb`` (training, a GPU) and ``inference_ms`` (an image on a V100) are None where the source lists none.
    """

    id: str
    model: str
    backbone: str
    schedule: str
    metrics: Mapping[str, float]
    sources: tuple[str, ...]
    test_dev: float | None = None
    note: str = ""
    config: str | None = None
    trial: Mapping[str, Any] | None = None
    memory_gb: float | None = None
    inference_ms: float | None = None

    @property
    def title(self) -> str:
        """Model, backbone and schedule in a few words."""
        return f"{self.model}, {self.backbone} {self.schedule}"

    @property
    def tags(self) -> str:
        """Its sources' tags."""
        return ", ".join(self.sources)


@dataclass(frozen=True)
class Published:
    """Everything in published.yaml. ``noise`` and ``statements`` are as written there; ``sources``: tag -> ``{text, where}``."""

    rows: tuple[PublishedRow, ...]
    sources: Mapping[str, Mapping[str, str]]
    noise: Mapping[str, Any]
    statements: tuple[Mapping[str, Any], ...]
    recipes: Mapping[str, Mapping[str, Any]]


class Coco(NamedTuple):
    """Is a data set all of COCO 2017? ``counted``: its images were counted here; else only the files' names say so. ``why``: why it is not."""

    whole: bool
    counted: bool = False
    why: str = ""


@lru_cache(maxsize=1)
def published() -> Published:
    """The published numbers that the package carries."""
    import yaml

    document = yaml.safe_load((files("salt_lab.report") / "published.yaml").read_text(encoding="utf-8"))
    rows = tuple(_row(entry) for entry in document["rows"])
    return Published(rows, document["sources"], document["noise"], tuple(document["statements"]), document["recipes"])


def _row(entry: Mapping[str, Any]) -> PublishedRow:
    metrics = {name: float(entry[name]) for name in COCO_NAMES if name in entry}
    rest = {key: value for key, value in entry.items() if key not in metrics}
    return PublishedRow(**rest | {"metrics": metrics, "sources": tuple(entry["sources"]), "note": " ".join(entry.get("note", "").split())})


def whole_coco(data: Any) -> Coco:
    """Is this trial's data all of COCO 2017, trained on train2017 and evaluated on val2017?

    The annotation files must have their names, and where they are on this machine also COCO's number of images.
    """
    if not isinstance(data, CocoData):
        return Coco(False, why="the lab's embedded data set")
    found = {Path(data.train).name, Path(data.val).name}
    if (Path(data.train).name, Path(data.val).name) != tuple(COCO_IMAGES):
        return Coco(False, why=f"{' and '.join(sorted(found))}, not {' and '.join(COCO_IMAGES)}")
    try:
        paths = coco_files(data)
        counts = {name: len(image_names(path)) for name, path in zip(COCO_IMAGES, (paths.train_json, paths.val_json), strict=True)}
    except (OSError, DataError):
        return Coco(True)
    wrong = [f"{name} with {count:,} images of {COCO_IMAGES[name]:,}" for name, count in counts.items() if count != COCO_IMAGES[name]]
    return Coco(not wrong, counted=True, why=", ".join(wrong))


def match(trial: Trial) -> PublishedRow | str:
    """The published row of exactly this trial, or the reason why there is none. Its data are not looked at: :func:`whole_coco` does that."""
    ours = _recipe(trial)
    near: tuple[int, str] | None = None
    for row, wanted in _candidates():
        differ = [key for key in {**wanted, **ours} if ours.get(key) != wanted.get(key)]
        if not differ:
            return row
        if not {"host", "salt.enabled"} & set(differ):
            near = min(near or (99, ""), (len(differ), _differs(row, differ, ours, wanted)))
    if near:
        return near[1]
    return f"nothing published of SALT on {trial.host}" if trial.salt.enabled else f"nothing published of {trial.host}"


def _differs(row: PublishedRow, keys: list[str], ours: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    said = ", ".join(f"{key} {_say(wanted.get(key))}, here {_say(ours.get(key))}" for key in keys[:3])
    return f"nothing published for this recipe: {row.title} has {said}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _say(value: Any) -> str:
    return "none" if value is None else str(value)


@lru_cache(maxsize=1)
def _candidates() -> tuple[tuple[PublishedRow, dict[str, Any]], ...]:
    """Every row that a trial of the lab can be, with what such a trial is."""
    numbers = published()
    found = []
    for row in numbers.rows:
        recipe = numbers.recipes.get(row.schedule)
        if recipe is not None and row.trial is not None:
            found.append((row, _recipe(_trial(recipe, row.trial))))
        if recipe is not None and row.config is not None:
            own = {**(row.trial or {}), "host": f"{MMDET}{row.config}", "backbone": {"name": "host", "init": "host"}}
            found.append((row, _recipe(_trial(recipe, own))))
    return tuple(found)


def _trial(recipe: Mapping[str, Any], own: Mapping[str, Any]) -> Trial:
    """A trial of a recipe (a preset schedule, a backbone) with a row's own dotted keys over it."""
    flat = flatten({**recipe, "schedule": SCHEDULES[recipe["schedule"]]})
    flat = {key: value for key, value in flat.items() if not ("backbone" in own and key.startswith("backbone."))}
    return Trial.model_validate(unflatten({**flat, **flatten(own)}))


def _recipe(trial: Trial) -> dict[str, Any]:
    return {key: value for key, value in flatten(canonical(trial)).items() if not key.startswith(_FREE)}


@dataclass(frozen=True)
class Beside:
    """Published numbers beside a study's: ``rows`` by cell key; ``below``: rows to stand under the table; ``notes``: sources, and why a cell
    has none."""

    rows: Mapping[str, PublishedRow]
    below: tuple[PublishedRow, ...]
    notes: tuple[str, ...]

    def text(self, key: str) -> str:
        """``39.4 [MF]``, or a dash."""
        row = self.rows.get(key)
        return f"{row.metrics['AP']:.1f} [{row.tags}]" if row else NOTHING


def beside(results: StudyResults, *, everything: bool = False) -> Beside:
    """What has been published of a study's cells; with ``everything`` also every published row, to stand below, whatever the study's data."""
    cells = {cell.key: (cell.trial, whole_coco(cell.trial.data)) for cell in results.study.cells}
    found = {key: match(trial) for key, (trial, coco) in cells.items() if coco.whole}
    rows = {key: row for key, row in found.items() if isinstance(row, PublishedRow)}
    below = published().rows if everything else ()
    notes = (
        *_why_not([coco for _, coco in cells.values()], bool(rows)),
        *_sources([*rows.values(), *below]),
        *_remarks(list(rows.values())),
    )
    return Beside(rows, below, notes)


def _why_not(data: list[Coco], any_row: bool) -> tuple[str, ...]:
    elsewhere = list(dict.fromkeys(coco.why for coco in data if not coco.whole))
    notes = []
    if elsewhere:
        notes.append(f"No published number is comparable where the data are not all of COCO 2017 (here: {'; '.join(elsewhere)}).")
    if len(elsewhere) == 0 and not any_row:
        notes.append("Nothing is published for any of these rows.")
    if any(coco.whole and not coco.counted for coco in data):
        notes.append("The data are COCO 2017 by their files' names; they are not on this machine, so their images were not counted.")
    return tuple(notes)


def _sources(rows: list[PublishedRow]) -> tuple[str, ...]:
    tags = dict.fromkeys(tag for row in rows for tag in row.sources)
    said = "; ".join(f"[{tag}] {published().sources[tag]['text']}, {published().sources[tag]['where']}" for tag in tags)
    return (f"Published AP is on val2017, one run each, with seeds and machines of their own: {said}.",) if rows else ()


def _remarks(rows: list[PublishedRow]) -> tuple[str, ...]:
    """What must be known of the rows that stand beside ours."""
    said = "; ".join(dict.fromkeys(f"{row.title}: {row.note}" for row in rows if row.note))
    return (f"Published rows: {said}.",) if said else ()
