"""From a record to MLflow's words: parameters, metric points, tags, status. Pure: no MLflow, no disk."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from salt_lab.record.fold import Record
from salt_lab.spec.trial import flatten

#: MLflow's limits, characters.
MAX_PARAM, MAX_TAG, MAX_NAME = 6000, 8000, 250
#: A trial stopped early is KILLED: a run that says FINISHED has the numbers of a whole training. The tag salt_lab.state says "stopped".
STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "stopped": "KILLED", "running": "RUNNING"}
#: Costs that a finished trial's run gets at its last epoch.
SPENT = (
    "train_seconds", "eval_seconds", "peak_memory_mb", "train_images_per_second", "inference_ms", "inference_p10_ms", "inference_p90_ms",
)  # fmt: skip
#: What a study's folder shows (its page where one was made, its tables and pictures): artifacts of the latest launch's run, in the folder ``study``.
REPORT = ("report.html", "table.md", "table.html", "table.csv", "table.runs.csv", "figures/*.png")
#: Files of a trial's folder that MLflow gets, as patterns.
ARTIFACTS = ("config.py", "detections.json.gz", "train.log", "record.jsonl", "uncommitted*.patch")


class Point(NamedTuple):
    """One metric value; ``time_ms`` is when it happened, unix milliseconds, ``step`` the epoch, ``final`` a number of the finished trial."""

    name: str
    value: float
    time_ms: int
    step: int
    final: bool = False


def params(record: Record) -> dict[str, str]:
    """The trial's fields under dotted names, and under ``effective.`` what was read back from the built model. Values cut at 6000."""
    effective = {f"effective.{key}": value for key, value in record.built.get("effective", {}).items()}
    return {clean_name(key): as_text(value)[:MAX_PARAM] for key, value in {**flatten(record.trial), **effective}.items()}


def points(record: Record) -> list[Point]:
    """Every number by epoch: the COCO numbers, ``loss/<name>``, lr, speed and memory; then the costs. Undefined numbers are left out."""
    rows = [row for epoch, content in record.epochs.items() for row in _numbers(_epoch_numbers(content), content["time"], epoch)]
    rows += [row for epoch, content in record.evals.items() for row in _numbers(content["metrics"], content["time"], epoch)]
    found = {(row.name, row.step): row for row in rows}
    for row in _final(record):
        before = found.get((row.name, row.step))
        time_ms = before.time_ms if before and same(before.value, row.value) else row.time_ms
        found[row.name, row.step] = row._replace(time_ms=time_ms, final=True)
    return list(found.values())


def delta(variant: Record, baseline: Record) -> list[Point]:
    """What the variant gains over its baseline of the same seed, AP points, at its last epoch; empty until both are done."""
    ap, other = ((record.metrics or {}).get("AP") if record.state == "done" else None for record in (variant, baseline))
    if ap is None or other is None:
        return []
    time = max(variant.time or 0.0, baseline.time or 0.0)
    return [Point("delta_AP", float(ap) - float(other), int(time * 1000), int(variant.cost.get("epochs", 0)), final=True)]


def missing(points: Sequence[Point], there: Mapping[tuple[str, int], float]) -> list[Point]:
    """The points to send to a run that has ``there``, (name, step) -> value.

    A step that is there is left alone: MLflow cannot replace a point, and an epoch repeated after a resume shall be one. Only a final number
    that contradicts it is added: MLflow shows the newest of a step, and that must be the record's.
    """
    return [
        point
        for point in points
        if (point.name, point.step) not in there or (point.final and not same(there[point.name, point.step], point.value))
    ]


def tags(record: Record, study: str) -> dict[str, str]:
    """Provenance and state as tags; those MLflow's pages know (commit, source) under MLflow's own names."""
    source = record.provenance
    words = {
        "kind": "trial",
        "study": study,
        "trial_id": record.trial_id,
        "launch_id": record.launch_id,
        "attempt": record.attempt,
        "state": record.state,
        "reason": record.reason or "",
        "data_fingerprint": record.data_fingerprint,
        "code_version": ", ".join(record.code_versions),
        "training_code": ", ".join(record.training_codes),
        "record": record.number,
        "python": source.get("python"),
        **{key: source.get(key) for key in ("git_commit", "git_dirty", "diff_sha256")},
        **{f"package.{key}": value for key, value in (source.get("packages") or {}).items()},
        **{f"machine.{key}": value for key, value in (source.get("machine") or {}).items()},
    }
    return {**_own(words), **_source(source.get("git_commit"))}


def launch_tags(launch: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a launch's parent run; the question is shown as the run's description."""
    words = {
        "kind": "launch",
        **{key: launch.get(key) for key in ("study", "launch_id", "code_version", "training_code", "ray_job_id")},
        **{key: launch.get(key) for key in ("git_commit", "git_dirty", "diff_sha256")},
    }
    return {**_own(words), **_source(launch.get("git_commit")), "mlflow.note.content": as_text(launch.get("question") or "")[:MAX_TAG]}


def launch_params(launch: Mapping[str, Any]) -> dict[str, str]:
    """What a launch asked: question, study file, number of trials."""
    words = {"study": launch["study"], "question": launch.get("question"), "source": launch.get("source"), "trials": len(launch["trials"])}
    words |= {"early_stop": launch["early_stop"]} if launch.get("early_stop") else {}
    return {key: as_text(value)[:MAX_PARAM] for key, value in words.items()}


def launch_status(states: Sequence[str]) -> str:
    """A launch runs while a trial of it does; then the worst end of its trials is its own. A trial never started was cut off; one stopped
    early has ended as it should."""
    for state in ("running", "failed", "interrupted", "new"):
        if state in states:
            return STATUS.get(state, "KILLED")
    return "FINISHED"


def record_number(tags: Mapping[str, str]) -> int:
    """Which of the trial's records a run is of; runs from before there could be several are of the first."""
    number = tags.get("salt_lab.record", "1")
    return int(number) if number.isdigit() else 1


def record_in_launch(journals: Sequence[Sequence[dict[str, Any]]], launch: Mapping[str, Any], trial_id: str) -> int:
    """Position of the journal that ``launch`` wrote to or, where it wrote nothing, found: the trial's records, oldest first, the latest last."""
    mine = [i for i, lines in enumerate(journals) if any(_started_by(line, launch) for line in lines)]
    if mine:
        return mine[-1]
    if trial_id in launch.get("set_aside", ()):
        return len(journals) - 1  # it wanted a new one and did not come to begin it
    return max((i for i, lines in enumerate(journals) if lines and lines[0]["time"] <= launch["time"]), default=len(journals) - 1)


def _started_by(line: Mapping[str, Any], launch: Mapping[str, Any]) -> bool:
    return line["event"] == "start" and line.get("launch_id") == launch["launch_id"]


def lines_in_launch(lines: Sequence[dict[str, Any]], launch: Mapping[str, Any], ended: float | None = None) -> list[dict[str, Any]]:
    """The part of a trial's journal up to the end of ``launch``: later launches' attempts are left out, earlier ones are kept. A trial
    that it did not start is as it was when the launch ``ended`` (unix seconds) or, where that is not known, began."""
    mine = [i for i, line in enumerate(lines) if _started_by(line, launch)]
    if not mine:
        return [line for line in lines if line["time"] <= (ended or launch["time"])]
    later = (i for i, line in enumerate(lines) if i > mine[-1] and line["event"] == "start")
    return list(lines[: next(later, len(lines))])


def same(one: float, other: float) -> bool:
    """Equal as far as a database keeps a double."""
    return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-300)


def clean_name(name: str) -> str:
    """A name that MLflow takes: letters, digits, ``_-. :/``, at most 250."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:MAX_NAME]


def as_text(value: Any) -> str:
    """Strings as they are, everything else as JSON: true, null, [1333, 800]."""
    return value if isinstance(value, str) else json.dumps(value)


def _epoch_numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    losses = {f"loss/{name}": value for name, value in content.get("losses", {}).items()}
    return {**losses, **{name: content.get(name) for name in ("lr", "seconds", "images_per_second", "memory_mb")}}


def _final(record: Record) -> list[Point]:
    """Costs, and the finished trial's 12 numbers at its last epoch."""
    if record.time is None:
        return []
    model = {key: record.cost.get(key) for key in ("parameters", "gflops")}
    spent = {key: record.cost.get(key) for key in SPENT} if record.metrics is not None else {}
    last = record.cost.get("epochs", 0)
    return [*_numbers(model, record.started or record.time, 0), *_numbers({**(record.metrics or {}), **spent}, record.time, last)]


def _numbers(values: Mapping[str, Any], time: float, step: int) -> list[Point]:
    return [Point(clean_name(name), float(value), int(time * 1000), step) for name, value in values.items() if value is not None]


def _own(words: Mapping[str, Any]) -> dict[str, str]:
    return {clean_name(f"salt_lab.{key}"): as_text(value)[:MAX_TAG] for key, value in words.items() if value is not None}


def _source(commit: str | None) -> dict[str, str]:
    known = {"mlflow.source.name": "salt-lab", "mlflow.source.type": "LOCAL"}
    return {**known, "mlflow.source.git.commit": commit} if commit else known
