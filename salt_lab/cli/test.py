"""``salt-lab test``: COCO numbers of one checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import click

from salt_lab.cli.shared import existing_file, show_table


@click.command("test", short_help="COCO numbers of a checkpoint.")
@click.argument("config", type=existing_file)
@click.argument("checkpoint", type=existing_file)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the detections here (COCO result list, gzipped JSON).",
)
def command(config: Path, checkpoint: Path, out: Path | None) -> None:
    """Evaluate CHECKPOINT on the test data of the mmdet-style CONFIG and print the twelve COCO numbers (percent)."""
    from salt_lab.train.single import test_config

    metrics = test_config(str(config), str(checkpoint), out)
    show_table(list(metrics), [["-" if value is None or math.isnan(value) else f"{value:.1f}" for value in metrics.values()]])
    if out is not None:
        click.echo(f"detections: {out}")
