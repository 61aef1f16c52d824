"""``salt-lab data``: draw the embedded data set, look at a data set, check one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.lazy import LazyGroup
from salt_lab.cli.shared import STUDY_SUFFIXES, open_store, overrides_argument, parse_overrides, read_study, store_option
from salt_lab.errors import SpecError

if TYPE_CHECKING:
    from salt_lab.data import DatasetPaths
    from salt_lab.spec.trial import CocoData, EmbeddedData

source_argument = click.argument("words", nargs=-1, metavar="[STUDY] [KEY=VALUE]...")


@click.group(
    "data",
    cls=LazyGroup,
    modules={"coco": "salt_lab.cli.data_coco", "select": "salt_lab.cli.data_select"},
    short_help="Make, show, check or fetch a data set.",
)
def command() -> None:
    """Make, show, check or fetch a data set: the embedded one, COCO 2017, or anybody's in COCO's format."""


@command.command("make", short_help="Draw the embedded data set.")
@overrides_argument
@store_option
def make(overrides: tuple[str, ...], store_root: Path | None) -> None:
    """Draw the embedded data set into the results folder, as a study with these values would.

    \b
    salt-lab data make data.mark_offset=0.5 data.train_images=1000
    """
    from salt_lab.data import fingerprint, prepare

    data, store = embedded(overrides), open_store(store_root)
    store.check_writable()
    paths = prepare(data, store.data_dir)
    click.echo(f"{fingerprint(data)}: {_summary(paths)}")
    for name in ("train_json", "val_json", "train_images", "val_images"):
        click.echo(f"  {name}: {getattr(paths, name)}")


@command.command("show", short_help="Draw a contact sheet of a data set.")
@source_argument
@store_option
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("contact_sheet.png"), show_default=True, help="Picture."
)
@click.option("-n", "--number", type=click.IntRange(min=1), default=16, show_default=True, help="Images on the sheet.")
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True)
def show(words: tuple[str, ...], store_root: Path | None, output: Path, number: int, split: str) -> None:
    """Write a picture of some images with their boxes: the data of STUDY (its first cell), or without one the embedded set.

    \b
    salt-lab data show experiments/quickstart.yaml -o sheet.png
    salt-lab data show data.mark_offset=0.5
    """
    from salt_lab.data import prepare
    from salt_lab.data.sheet import first_labelled
    from salt_lab.report.sheet import labelled_sheet, write_sheet

    study = words[:1] if words and "=" not in words[0] else ()
    data = read_study(study[0], words[1:]).cells[0].trial.data if study else embedded(words)
    paths = prepare(data, open_store(store_root).data_dir)
    samples = first_labelled(paths, number, split)
    write_sheet(labelled_sheet(samples, paths.classes), output)
    click.echo(f"{len(samples)} images of the {split} split: {output}")


@command.command("check", short_help="Check COCO files before anything trains on them.")
@source_argument
@click.option("--train", metavar="FILE", help="Annotation file for training.")
@click.option("--val", metavar="FILE", help="Annotation file for evaluation.")
@click.option("--images", metavar="FOLDER", help="Folder of the images.")
@click.option("--val-images", metavar="FOLDER", help="Folder of the evaluation images; default: same as --images.")
def check(words: tuple[str, ...], train: str | None, val: str | None, images: str | None, val_images: str | None) -> None:
    """Check the COCO data sets of STUDY, or the one that the options name.

    Files, ids, boxes, categories: where the set is not fit to use, every problem is listed and the exit code is 2.

    \b
    salt-lab data check experiments/bccd.yaml data.images=/data/bccd
    salt-lab data check --train train.json --val val.json --images images
    """
    from salt_lab.data import inspect_coco
    from salt_lab.spec.trial import CocoData

    options = {"--train": train, "--val": val, "--images": images}
    if words:
        if any(value is not None for value in (*options.values(), val_images)):
            raise click.UsageError("give either STUDY or --train, --val and --images, not both")
        sets = study_data(words)
    else:
        lacking = [name for name, value in options.items() if value is None]
        if train is None or val is None or images is None:
            raise click.UsageError(f"missing {', '.join(lacking)}: give STUDY, or --train, --val and --images")
        sets = [CocoData(train=train, val=val, images=images, val_images=val_images)]
    for data in sets:
        if not isinstance(data, CocoData):
            click.echo("embedded data set: nothing to check, it is drawn from its parameters")
            continue
        report = inspect_coco(data)
        for warning in report.warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"fit to use: {_summary(report.paths)}")


def embedded(overrides: tuple[str, ...]) -> EmbeddedData:
    """The embedded data set with ``[data.]key=value`` overrides.

    Raises:
        SpecError: unknown key (the nearest is named) or a value out of range.
    """
    from salt_lab.spec.reading import Source
    from salt_lab.spec.settings import build, layer
    from salt_lab.spec.trial import EmbeddedData

    source = Source(Path("command line"))
    values = {"data.kind": "marks"} | {
        key if key.startswith("data.") else f"data.{key}": value for key, value in parse_overrides(overrides).items()
    }
    data = build(source, layer(source, values, "")).data
    if not isinstance(data, EmbeddedData):
        raise SpecError(
            "command line: these keys describe COCO files; salt-lab data make and show without STUDY are for the embedded data set"
        )
    return data


def study_data(words: tuple[str, ...]) -> list[EmbeddedData | CocoData]:
    """The data sets of a study, each once; ``words`` are STUDY and overrides.

    Raises:
        SpecError: the first word is no study file, or the study is not valid.
    """
    if Path(words[0]).suffix not in STUDY_SUFFIXES:
        raise SpecError(f"'{words[0]}' is no study file (*.yaml): give STUDY first, then key=value")
    study = read_study(words[0], words[1:])
    return list(dict.fromkeys(cell.trial.data for cell in study.cells))


def _summary(paths: DatasetPaths) -> str:
    """Counts of both splits, and the class names in label order."""
    counts = []
    for name, file in (("train", paths.train_json), ("val", paths.val_json)):
        content = json.loads(file.read_bytes())
        counts.append(f"{name} {len(content['images'])} images, {len(content['annotations'])} boxes")
    return f"{'; '.join(counts)}; {len(paths.classes)} classes: {', '.join(paths.classes)}"
