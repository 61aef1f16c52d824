"""``salt-lab infer``: boxes, and the operator's points, drawn on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salt_lab.cli.shared import existing_file
from salt_lab.errors import UserError

if TYPE_CHECKING:
    from salt_lab.train.infer import InferResult

PICTURES = (".png", ".jpg", ".jpeg")


@click.command("infer", short_help="Draw a model's boxes and points on images.")
@click.argument("config", type=existing_file)
@click.argument("checkpoint", type=existing_file)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=existing_file)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Picture to write (.png or .jpg).",
)
@click.option("--points", is_flag=True, help="Also draw R-points, C-points and the coarse box of each shown box.")
@click.option("--score-thr", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Show boxes with at least this score.")
@click.option("--device", help="cpu, cuda or cuda:N; default a GPU where there is one.")
def command(
    config: Path, checkpoint: Path, images: tuple[Path, ...], output: Path, points: bool, score_thr: float, device: str | None
) -> None:
    """Run CHECKPOINT of the mmdet-style CONFIG on each IMAGE and write the pictures; several images become one contact sheet."""
    if output.suffix.lower() not in PICTURES:
        raise UserError(f"-o {output}: give a picture's name, ending in {' or '.join(PICTURES)}")
    from salt_lab.report.draw import contact
    from salt_lab.train.infer import Inferencer

    look = Inferencer(str(config), str(checkpoint), device=device)
    drawn = []
    for path in images:
        result = look(str(path))
        picture, shown = draw_result(result, score_thr, points)
        drawn.append(picture)
        click.echo(f"{path}: {shown} boxes with score >= {score_thr:g}, of {len(result.scores_N)}")
        if points and result.r_points is None:
            click.echo(f"{path}: no points to draw: this model's head has no SALT operator", err=True)
    _write(drawn[0] if len(drawn) == 1 else contact(drawn, columns=min(3, len(drawn))), output)
    click.echo(f"picture: {output}")


def draw_result(result: InferResult, score_thr: float, points: bool) -> tuple[Any, int]:
    """Draw what a detector found.

    Args:
        result: boxes, scores, labels and points of one image, with the image (H, W, 3) uint8 BGR.
        score_thr: lowest score that is shown, 0 to 1.
        points: draw R-points, C-points and coarse boxes too, where the model has them.

    Returns:
        The picture (H', W', 3) uint8 BGR, and the number of boxes in it.
    """
    from salt_lab.report.draw import draw_detections

    keep = result.scores_N >= score_thr
    arrays = (result.r_points, result.c_points, result.coarse_N4)
    r_points, c_points, coarse = (array[keep] if points and array is not None else None for array in arrays)
    labels, scores = result.labels_N[keep].tolist(), result.scores_N[keep].tolist()
    picture = draw_detections(result.image, result.boxes_N4[keep], labels, scores, result.classes, r_points, c_points, coarse)
    return picture, len(scores)


def _write(picture: Any, output: Path) -> None:
    import cv2

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(output), picture)
    except (OSError, cv2.error):
        written = False
    if not written:
        raise UserError(f"-o {output}: cannot be written; give a file in a writable folder")
