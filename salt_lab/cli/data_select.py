"""``salt-lab data select``: annotation files with fewer classes, for data sets that cannot teach all."""

from __future__ import annotations

from pathlib import Path

import click

from salt_lab.cli.shared import existing_file


@click.command("select", short_help="Write annotation files with fewer classes.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=existing_file)
@click.option("-o", "--output", required=True, metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path), help="Where to write.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="A class to keep; several times for several, in this order.")
@click.option("--supercategories", is_flag=True, help="Take each class's supercategory as its class.")
@click.option("--rest", metavar="NAME", help="One more class that all the others become; without it their boxes are left out.")
def command(files: tuple[Path, ...], output: Path, classes: tuple[str, ...], supercategories: bool, rest: str | None) -> None:
    """Write each annotation FILE, under its name, into FOLDER with fewer classes. The images stay where they are.

    \b
    salt-lab data select coco_mini/annotations/{train,val}.json --class person -o person
    salt-lab data select coco_mini/annotations/{train,val}.json --class person --rest thing -o person_thing
    salt-lab data select coco_mini/annotations/{train,val}.json --supercategories -o super
    """
    from salt_lab.data.select import select_file

    if not classes and not supercategories:
        raise click.UsageError("name the classes to keep with --class NAME, or take --supercategories")
    if len({file.name for file in files}) < len(files):
        raise click.UsageError("two of the files have the same name: they would be written to the same place")
    for file in files:
        done = select_file(file, output / file.name, classes, supercategories=supercategories, rest=rest)
        click.echo(
            f"{done.path}: {len(done.classes)} classes ({', '.join(done.classes)}), {done.boxes} boxes on {done.with_boxes} of {done.images} "
            f"images; {done.left_out} boxes left out"
        )
