"""What ``salt-lab infer`` reads and where it writes: pictures, a folder or a video in; a picture, a sheet, a folder or a video out.

Everything that can be known from names alone is refused here, before a model is built. Nothing is ever written over what is read.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from salt_lab.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg")
WRITTEN_VIDEOS = (".mp4", ".avi")
MAX_SHEET = 100  # pictures on one contact sheet


class Job(NamedTuple):
    """What to look at and where the result goes."""

    pictures: tuple[Path, ...]  #: in this order; empty for a video
    video: Path | None
    output: Path
    kind: Literal["picture", "folder", "video"]  #: several pictures in one "picture" are a contact sheet
    json: Path | None

    def target(self, picture: Path) -> Path:
        """Where the picture drawn from ``picture`` goes in a folder: the same name (.png added where it has no picture's suffix)."""
        return self.output / (picture.name if picture.suffix.lower() in PICTURES else f"{picture.name}.png")


def plan_job(inputs: Sequence[Path], output: str, json: Path | None = None, others: Sequence[Path] = ()) -> Job:
    """Sort out the inputs and check the output against them.

    Args:
        inputs: pictures and folders of pictures, or one video.
        output: a picture's name, a video's name, or a folder: one that exists, or a name that ends in a slash.
        json: where the detections go as numbers; None writes none.
        others: further files that must not be written over (config, checkpoint).

    Raises:
        UserError: a folder without pictures, a video among pictures, an output of the wrong kind, one that is an input or lies in an input
            folder, or two pictures that would get one name.
    """
    pictures, videos = _gather(inputs)
    path = Path(output)
    if videos:
        if len(videos) > 1 or pictures:
            raise UserError(f"{videos[0]}: one video at a time, without other inputs; run the command once for each")
        if path.suffix.lower() not in WRITTEN_VIDEOS or path.is_dir():
            raise UserError(f"-o {output}: a video becomes a video: give a name that ends in {' or '.join(WRITTEN_VIDEOS)}")
        job = Job((), videos[0], path, "video", json)
    elif path.is_dir() or output.endswith(("/", os.sep)):
        job = Job(tuple(pictures), None, path, "folder", json)
    elif path.suffix.lower() in PICTURES:
        if len(pictures) > MAX_SHEET:
            raise UserError(
                f"-o {output}: {len(pictures)} pictures are too many for one sheet (at most {MAX_SHEET}): give a folder, -o {path.stem}/"
            )
        job = Job(tuple(pictures), None, path, "picture", json)
    else:
        raise UserError(
            f"-o {output}: give a picture's name (ending in {', '.join(PICTURES[:3])}), or a folder (one that is there, or a name ending in /)"
        )
    _protect(job, inputs, others)
    return job


def _gather(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    pictures: list[Path] = []
    videos: list[Path] = []
    for path in inputs:
        if path.is_dir():
            pictures += _pictures_in(path)
        else:
            (videos if path.suffix.lower() in VIDEOS else pictures).append(path)
    return list(dict.fromkeys(pictures)), list(dict.fromkeys(videos))


def _pictures_in(folder: Path) -> list[Path]:
    """The folder's own pictures in a person's order (2.png before 10.png); hidden files and subfolders are not looked at."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    found = [entry for entry in entries if entry.suffix.lower() in PICTURES and entry.is_file()]
    if found:
        return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)])
    folders = sum(entry.is_dir() for entry in entries)
    videos = [entry.name for entry in entries if entry.suffix.lower() in VIDEOS]
    hint = f"; its {folders} subfolders are not searched: name one of them" if folders else ""
    hint += f"; it has videos: give one of them by name, {sorted(videos)[0]}" if videos else ""
    raise UserError(f"{folder}: no pictures in this folder ({', '.join(PICTURES)}){hint}")


def _protect(job: Job, inputs: Sequence[Path], others: Sequence[Path]) -> None:
    """Refuse an output that is an input, lies in an input folder, or would get two pictures' worth."""
    read = {path.resolve() for path in (*job.pictures, *([job.video] if job.video else []), *others)}
    targets = [job.target(picture) for picture in job.pictures] if job.kind == "folder" else [job.output]
    for target in (*targets, *([job.json] if job.json else [])):
        if target.resolve() in read:
            raise UserError(f"{target}: is an input and would be written over: give another output")
    for folder in (path for path in inputs if path.is_dir()):
        if folder.resolve() in (job.output.resolve(), *job.output.resolve().parents):
            raise UserError(f"-o {job.output}: lies in the input folder {folder}, where the next run would read it: give another place")
    double = [name for name, count in Counter(target.name for target in targets).items() if count > 1]
    if double:
        raise UserError(f"-o {job.output}: two pictures are called {double[0]} and would be one file there: give one folder at a time")
    if job.json is not None and job.json.suffix.lower() != ".json":
        raise UserError(f"--json {job.json}: give a name that ends in .json")
