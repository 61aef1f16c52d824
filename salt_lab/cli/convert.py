"""``salt-lab convert``: the released SALT-Net weights under our names."""

from __future__ import annotations

from pathlib import Path

import click

from salt_lab.cli.shared import trust_option


@click.command("convert", short_help="Convert released SALT-Net weights to ours.")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@trust_option
def command(source: Path, target: Path) -> None:
    """Read the released code's checkpoint IN and write OUT (safetensors where the name ends in .safetensors). OUT is never overwritten.

    The other commands read a released checkpoint as it is; a converted one is for other programs, and for sharing.
    """
    from salt_lab.models.convert import convert_checkpoint

    tensors = convert_checkpoint(source, target)
    click.echo(f"{tensors} tensors written to {target}")
