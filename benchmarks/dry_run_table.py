"""The table of a dry run: what was measured in each cell, what follows from it, and what mmdet publishes beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: A 1x training of FCOS with R-50 on COCO on 8 V100, hours, as its authors' README has it (experiments/paper/README.md).
FCOS_HOURS, FCOS_HOST = 6.5, "fcos"


class Row(NamedTuple):
    """One distinct cell. ``names``: study and cell, every one that it stands for. ``trials``: distinct trials, its seeds.

    ``memory_gb``, GiB: of the process without a GPU, of the GPU with one. ``gpu_gb``: of one of the study's GPUs, estimated without one.
    ``hours``: of the whole trial on the study's GPUs, measured on one; None without one. ``key``: of trial and images. ``code``: version of the
    training code that ran; None = unknown.
    """

    key: str
    names: tuple[str, ...]
    trials: int
    host: str
    ended: str
    images: int
    memory_gb: float | None
    gpu_gb: float | None
    gflops: float | None
    hours: float | None
    details: dict[str, Any]
    code: str | None = None


def known_rows(path: Path) -> dict[str, Row]:
    """The cells that ran before, by key."""
    if not path.exists():
        return {}
    rows = [Row(**{**row, "names": tuple(row["names"])}) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    return {row.key: row for row in rows}


def published_memory() -> dict[str, float]:
    """Host -> GiB that mmdet's model zoo lists for training its 1x R-50 with 2 images a GPU, where it lists any."""
    import yaml

    import salt_lab.report

    path = Path(str(salt_lab.report.__file__)).with_name("published.yaml")
    found: dict[str, float] = {}
    for row in _rows_with_memory(yaml.safe_load(path.read_text(encoding="utf-8"))):
        if set(row["trial"]) == {"host"} and row.get("schedule") == "1x":
            found.setdefault(row["trial"]["host"], row["memory_gb"])
    return found


def _rows_with_memory(content: Any) -> Iterable[dict[str, Any]]:
    if isinstance(content, dict):
        if {"memory_gb", "trial"} <= content.keys():
            yield content
        content = list(content.values())
    if isinstance(content, list):
        for inner in content:
            yield from _rows_with_memory(inner)


def v100_hours(rows: Sequence[Row]) -> dict[str, float]:
    """Key -> hours of one trial on 8 V100, by the GFLOPs of its cell over those of FCOS; empty where FCOS itself is not among the rows."""
    base = next((row.gflops for row in rows if row.host == FCOS_HOST and row.gflops and is_plain(row)), None)
    return {row.key: FCOS_HOURS * row.gflops / base for row in rows if row.gflops} if base else {}


def table(rows: Sequence[Row], device: str) -> str:
    """As markdown."""
    cpu = all(row.hours is None for row in rows)
    star, estimated = ("*", "Columns with * are estimates; ") if cpu else ("", "")
    lines = [
        f"# Dry run at full size\n\nDevice: {device}. {estimated}what they are made of: `benchmarks/dry_run.py`.\n",
        f"| study: cell | seeds | ended | images | process GiB | kept GiB an image | GFLOPs | GPU GiB{star} | mmdet's GiB | 8-GPU hours{star} |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    published, hours = published_memory(), v100_hours(rows) if cpu else {row.key: row.hours for row in rows}
    beside = {row.key: published.get(row.host) for row in rows if is_plain(row)}
    for row in rows:
        numbers = [row.memory_gb, row.details.get("kept_gb"), row.gflops, row.gpu_gb, beside.get(row.key), hours.get(row.key)]
        told = [f"{value:.2f}" if value is not None else "-" for value in numbers]
        lines.append(f"| {' | '.join(['<br>'.join(row.names), str(row.trials), row.ended, str(row.images), *told])} |")
    return "\n".join(
        [*lines, "", *_below(rows, beside, hours, f"the study's GPUs, each like {device}" if not cpu else "8 V100, by arithmetic alone")]
    )


def _below(rows: Sequence[Row], beside: Mapping[str, float | None], hours: Mapping[str, float | None], what: str) -> list[str]:
    known = [(row, each) for row in rows if (each := hours.get(row.key)) is not None]
    lines = [f"{sum(row.trials for row, _ in known)} distinct trials: {sum(each * row.trials for row, each in known):.0f} hours on {what}."]
    if ratios := sorted(theirs / row.gpu_gb for row in rows if row.gpu_gb and (theirs := beside.get(row.key))):
        lines.append(
            f"mmdet's published memory, the peak of a whole training, is {ratios[0]:.2f} to {ratios[-1]:.2f} times ours "
            f"({len(ratios)} hosts without SALT): allow as much for the others."
        )
    return lines


def is_plain(row: Row) -> bool:
    """Is it the host alone, as mmdet has it? Read from the losses of its step."""
    return row.details.get("losses") is not None and row.details.get("heads", "").startswith("SALT") is False
