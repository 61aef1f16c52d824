"""``salt-lab convert``: the released SALT-Net weights under our names."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("convert", short_help="Convert released SALT-Net weights to ours.")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
def command(source: Path, target: Path) -> None:
    """Read the released code's checkpoint IN and write OUT, which salt-lab test and infer load. OUT is never overwritten."""
    from salt_lab.models.convert import convert_checkpoint

    tensors = convert_checkpoint(source, target)
    click.echo(f"{tensors} tensors written to {target}")
