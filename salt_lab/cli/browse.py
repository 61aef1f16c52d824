"""``salt-lab browse``: a contact sheet of a data set as training sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from salt_lab.cli.shared import STUDY_SUFFIXES, existing_file, open_store, overrides_argument, parse_overrides, read_study, store_option
from salt_lab.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg")


@click.command("browse", short_help="Draw a data set's images and boxes after augmentation.")
@click.argument("source", metavar="CONFIG|STUDY")
@overrides_argument
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("browse.png"), show_default=True, help="Picture."
)
@click.option("-n", "--number", type=click.IntRange(1, 100), default=16, show_default=True, help="Images on the sheet.")
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which images, and what chance does to them.")
@click.option("--cell", metavar="N|NAME", help="STUDY only: whose pipeline, by number or name in salt-lab plan; default the first cell's.")
@store_option
def command(
    source: str, overrides: tuple[str, ...], output: Path, number: int, split: str, seed: int, cell: str | None, store_root: Path | None
) -> None:
    """Write a contact sheet of images and boxes as training sees them: after the pipeline's resizing, flipping and so on.

    \b
    salt-lab browse experiments/bccd.yaml -o sheet.png
    salt-lab browse experiments/bccd.yaml schedule.flip=1.0 --cell 2 -n 9
    salt-lab browse CONFIG --split val train_dataloader.dataset.data_root=DIR

    Boxes have their class's colour; ignored and crowd boxes are grey and hatched. The same --seed gives the same sheet. The images as they
    lie on the disk: salt-lab data show.
    """
    if output.suffix.lower() not in PICTURES:
        raise UserError(f"-o {output}: give a picture's name, ending in {' or '.join(PICTURES)}")
    if Path(source).suffix in STUDY_SUFFIXES:
        config = _study_config(source, overrides, cell, store_root)
    else:
        if cell is not None or store_root is not None:
            raise click.UsageError(f"--cell and --store are for a STUDY (*.yaml), and {source} is none")
        existing_file.convert(source, None, click.get_current_context())
        config = _file_config(source, overrides)
    from salt_lab.report.sheet import labelled_sheet, write_sheet
    from salt_lab.train.browse import augmented

    samples, classes = augmented(config, source, split, number, seed)
    write_sheet(labelled_sheet(samples, classes), output)
    boxes = sum(len(sample.boxes_N4) for sample in samples)
    ignored = sum(int(sample.ignored_N.sum()) for sample in samples)
    more = f" ({ignored} of them ignored or crowd)" if ignored else ""
    click.echo(f"{len(samples)} images of the {split} split, {boxes} boxes{more}: {output}")


def _study_config(source: str, overrides: tuple[str, ...], cell: str | None, store_root: Path | None) -> Any:
    """The composed config of one cell, with its data ready."""
    from salt_lab.cli.train import choose_trial

    trial = choose_trial(read_study(source, overrides), cell or "1", None)
    from salt_lab.compose import compose
    from salt_lab.data import prepare

    return compose(trial, prepare(trial.data, open_store(store_root).data_dir))


def _file_config(source: str, overrides: tuple[str, ...]) -> Any:
    values = parse_overrides(overrides)
    from salt_lab.train.infer import read_config
    from salt_lab.train.single import apply_overrides

    config = read_config(source)
    apply_overrides(config, source, values)
    return config
