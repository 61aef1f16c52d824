"""``salt-lab test``: COCO numbers of one checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import click

from salt_lab.cli.shared import existing_file, overrides_argument, parse_overrides, show_table


@click.command("test", short_help="COCO numbers of a checkpoint.")
@click.argument("config", type=existing_file)
@click.argument("checkpoint", type=existing_file)
@overrides_argument
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the detections here (COCO result list, JSON; gzipped where the name ends in .gz).",
)
def command(config: Path, checkpoint: Path, overrides: tuple[str, ...], out: Path | None) -> None:
    """Evaluate CHECKPOINT on the test data of the mmdet-style CONFIG and print the twelve COCO numbers (percent)."""
    from salt_lab.train.single import evaluate_config

    metrics = evaluate_config(str(config), str(checkpoint), out, parse_overrides(overrides))
    show_table(list(metrics), [["-" if value is None or math.isnan(value) else f"{value:.1f}" for value in metrics.values()]])
    if out is not None:
        click.echo(f"detections: {out}")
