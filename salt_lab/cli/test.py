"""``salt-lab test``: COCO numbers of one checkpoint, or a result file for COCO's server."""

from __future__ import annotations

import math
from pathlib import Path

import click

from salt_lab.cli.shared import existing_file, overrides_argument, parse_overrides, show_table, trust_option


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
@click.option("--gpus", type=click.IntRange(min=0), default=0, metavar="N", help="GPUs that share the images; default one if there is one.")
@click.option("--format-only", is_flag=True, help="Images without ground truth (test-dev): write --out and a zip of it for COCO's server.")
@trust_option
def command(config: Path, checkpoint: Path, overrides: tuple[str, ...], out: Path | None, gpus: int, format_only: bool) -> None:
    """Evaluate CHECKPOINT on the test data of the mmdet-style CONFIG and print the twelve COCO numbers (percent).

    \b
    salt-lab test CONFIG CHECKPOINT --gpus 8
    salt-lab test CONFIG CHECKPOINT --format-only --out detections_test-dev2017_MODEL_results.json \\
      test_dataloader.dataset.ann_file=annotations/image_info_test-dev2017.json test_dataloader.dataset.data_prefix.img=test2017/

    On a machine without a GPU, --gpus N takes N processes.
    """
    from salt_lab.train.single import evaluate_config
    from salt_lab.train.together import is_first

    metrics = evaluate_config(str(config), str(checkpoint), out, parse_overrides(overrides), gpus=gpus, format_only=format_only)
    if not is_first():
        return
    if not format_only:
        show_table(list(metrics), [["-" if value is None or math.isnan(value) else f"{value:.1f}" for value in metrics.values()]])
    if out is not None:
        click.echo(f"detections: {out}")
    if format_only and out is not None:
        click.echo(f"next: upload {out.with_suffix('.zip')} to COCO's evaluation server (cocodataset.org, Detection, Upload)")
