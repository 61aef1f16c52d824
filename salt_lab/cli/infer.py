"""``salt-lab infer``: boxes, and the operator's points, drawn on pictures and videos."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from salt_lab.cli.pictures import Job, plan_job
from salt_lab.cli.shared import existing_file, trust_option
from salt_lab.errors import UserError

if TYPE_CHECKING:
    from salt_lab.train.infer import InferResult


@click.command("infer", short_help="Draw a model's boxes and points on pictures or a video.")
@click.argument("config", type=existing_file)
@click.argument("checkpoint", type=existing_file)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="Picture (.png, .jpg), folder (ending in /) or, for a video, .mp4 or .avi."
)
@click.option("--points", is_flag=True, help="Also draw R-points, C-points and the coarse box of each shown box.")
@click.option("--score-thr", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Show boxes with at least this score.")
@click.option(
    "--json", "numbers", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Also write what is shown as JSON."
)
@click.option("--device", help="cpu, cuda or cuda:N; default a GPU where there is one.")
@trust_option
def command(
    config: Path, checkpoint: Path, images: tuple[Path, ...], output: str, points: bool, score_thr: float, numbers: Path | None,
    device: str | None,
) -> None:  # fmt: skip
    """Run CHECKPOINT of the mmdet-style CONFIG on pictures, folders of pictures or one video, and draw what it finds.

    \b
    salt-lab infer CONFIG CHECKPOINT photo.jpg -o out.png --points    one picture
    salt-lab infer CONFIG CHECKPOINT a.jpg b.jpg -o sheet.png         several on one sheet
    salt-lab infer CONFIG CHECKPOINT photos -o drawn/                 a folder: each under its own name
    salt-lab infer CONFIG CHECKPOINT film.mp4 -o drawn.mp4            a video, every frame (without its sound)

    R-points are green squares on the sides of the coarse box (dashed) and yellow dots inside, C-points orange diamonds. No input is ever
    written over.
    """
    job = plan_job(images, output, numbers, (config, checkpoint))
    from salt_lab.train.infer import Inferencer

    ready = Inferencer(str(config), str(checkpoint), device=device)
    for limit in ready.limits if points else ():
        click.echo(f"--points: {limit}", err=True)
    drawer = Drawer(lambda image: ready(image, points=points, at_least=score_thr), score_thr, points)
    if job.video is not None:
        _draw_video(job.video, job.output, drawer)
    else:
        _draw_pictures(job, drawer)
    if job.json is not None:
        _write_json(job.json, drawer)
        click.echo(f"numbers: {job.json}")
    if drawer.shown == 0:
        hint = f": the highest is {drawer.highest:.2f}, show it with --score-thr {_below(drawer.highest):g}" if drawer.highest > 0 else ""
        click.echo(f"nothing to show: no box with score >= {score_thr:g}{hint}", err=True)
    click.echo(f"{'folder' if job.kind == 'folder' else job.kind}: {job.output}")


class Drawn(NamedTuple):
    """One picture or frame, drawn."""

    picture: Any  #: (H', W', 3) uint8 BGR
    shown: int  #: boxes in it
    found: int  #: boxes that the detector reported


class Drawer:
    """Looks at pictures, draws what is found, and remembers it."""

    def __init__(self, look: Callable[[Any], InferResult], score_thr: float, points: bool) -> None:
        self.look, self.score_thr, self.points = look, score_thr, points
        self.shown, self.highest, self.entries = 0, 0.0, list[dict[str, Any]]()
        self.classes: tuple[str, ...] = ()

    def __call__(self, image: Any, **named: Any) -> Drawn:
        """Draw one picture (a file's name or pixels); ``named`` says in the numbers which one it was."""
        result = self.look(image)
        picture, shown = draw_result(result, self.score_thr, self.points)
        self.shown, self.classes = self.shown + shown, result.classes
        self.highest = max(self.highest, float(result.scores_N.max(initial=0.0)))
        height, width = result.image.shape[:2]
        self.entries.append(named | dict(width=width, height=height, detections=as_numbers(result, self.score_thr, self.points)))
        return Drawn(picture, shown, len(result.scores_N))


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


def as_numbers(result: InferResult, score_thr: float, points: bool) -> list[dict[str, Any]]:
    """The shown detections as plain data, the surest first: class, score (0 to 1), box and, where there are, points; pixels, x before y.

    A detection from a level on which the operator does not act has no points and says so by not having the keys.
    """
    more = dict(coarse_box=result.coarse_N4, r_points=result.r_points, c_points=result.c_points) if points else {}
    found = []
    for at in (result.scores_N >= score_thr).nonzero()[0].tolist():
        label = int(result.labels_N[at])
        entry = dict(label=label, score=round(float(result.scores_N[at]), 4), box=_rounded(result.boxes_N4[at]))
        entry["class"] = result.classes[label] if label < len(result.classes) else None
        rows = {key: array[at] for key, array in more.items() if array is not None}
        found.append(entry | {key: _rounded(row) for key, row in rows.items() if math.isfinite(float(row.sum()))})
    return found


def _rounded(array: Any) -> Any:
    return [[round(float(v), 2) for v in row] if getattr(row, "ndim", 0) else round(float(row), 2) for row in array]


def _draw_pictures(job: Job, drawer: Drawer) -> None:
    """Draw every picture; into a folder as they come, on one sheet at the end."""
    from salt_lab.report.sheet import contact

    drawn = []
    for path in _progress(job.pictures, len(job.pictures), "pictures"):
        one = drawer(str(path), file=str(path))
        click.echo(f"{path}: {one.shown} boxes with score >= {drawer.score_thr:g}, of {one.found}")
        if job.kind == "folder":
            _write_picture(one.picture, job.target(path))
        else:
            drawn.append(one.picture)
    if len(drawn) == 1:
        _write_picture(drawn[0], job.output)
    elif drawn:
        columns = max(3, math.ceil(math.sqrt(len(drawn))))
        _write_picture(contact(drawn, columns, captions=[path.name for path in job.pictures]), job.output)


def _draw_video(source: Path, output: Path, drawer: Drawer) -> None:
    from salt_lab.report.video import VideoReader, VideoWriter

    video, frames = VideoReader(source), 0
    with VideoWriter(output, video.fps) as written:
        for index, frame in enumerate(_progress(video, video.announced, "frames")):
            written.add(drawer(frame, file=str(source), frame=index, seconds=round(index / video.fps, 3)).picture)
            frames = index + 1
    busy = sum(bool(entry["detections"]) for entry in drawer.entries)
    click.echo(f"{source}: {frames} frames at {video.fps:g} a second, {busy} of them with boxes of score >= {drawer.score_thr:g}")
    if video.announced is not None and frames < 0.98 * video.announced:
        click.echo(f"{source}: says it has {video.announced} frames, but only {frames} could be read: it may be cut short", err=True)


def _progress(items: Iterable[Any], total: int | None, what: str) -> Iterator[Any]:
    """A bar with the time that is left, on a terminal and for more than one item; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal or total == 1:
        yield from items
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        yield from progress.track(items, total=total)


def _write_picture(picture: Any, output: Path) -> None:
    import cv2

    written = False
    with contextlib.suppress(OSError, cv2.error):
        output.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(output), picture)
    if not written:
        raise UserError(f"-o {output}: cannot be written; give a file in a writable folder")


def _write_json(path: Path, drawer: Drawer) -> None:
    content = dict(
        score_thr=drawer.score_thr,
        classes=list(drawer.classes),
        boxes="x1 y1 x2 y2, pixels of the picture as read",
        pictures=drawer.entries,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written ({error.strerror}); give a file in a writable folder") from error


def _below(score: float) -> float:
    """A threshold with two digits that the score passes."""
    return math.floor(score * 100) / 100
