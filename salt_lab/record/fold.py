"""From journal lines to the state of a trial: the one place that knows how events supersede each other.

- ``done`` is final: what follows it is ignored.
- A ``start`` opens an attempt; it supersedes an earlier failure, interruption or early stop, and the epochs after the one it resumed from.
- Within an attempt the later line of an epoch wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from salt_lab.record.journal import last_of
from salt_lab.record.training_code import NOT_RECORDED

#: The 12 numbers of a COCO evaluation, percent.
COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
VANISHED = "the process ended without a word (killed, or the machine went down)"
Line = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """What is known about one trial.

    Attributes:
        trial_id: 12 hex digits.
        state: "new", "running", "interrupted", "failed", "stopped" (by early stopping) or "done".
        trial: the canonical trial, nested.
        study: name of the study whose launch started the latest attempt.
        launch_id: that launch.
        attempt: number of the latest attempt, from 1; 0 where there was none.
        epochs: epoch (from 1) -> losses, lr, seconds, images_per_second, memory_mb, time.
        evals: epoch -> ``{"metrics": {the 12 numbers in percent, None where undefined}, "time": ...}``.
        metrics: the 12 numbers of the finished trial; None before.
        built: what the built model said of itself: effective (flat), parameters, gflops, input_size [h, w].
        cost: as far as known: parameters, gflops, train_seconds, eval_seconds, peak_memory_mb, epochs, train_images_per_second (see
            :func:`train_speed`), inference_ms (median of one image at built.input_size), inference_p10_ms, inference_p90_ms,
            inference_repeats, inference_threads.
        provenance: of the latest attempt, see :func:`salt_lab.record.provenance.provenance`.
        reason: why it failed, was interrupted or stopped, one line.
        rungs: epoch -> the comparison with other trials after which it went on: ap, threshold (None: too few others), places, peers
            (trial id -> AP), time. See :mod:`salt_lab.train.early_stop`.
        stopped: the comparison that stopped it, with its epoch; None unless the state is "stopped".
        run_id: the trial's MLflow run; None where it was not delivered.
        data_fingerprint: of the data it trained on.
        code_versions: of all attempts, in order, without repeats: more than one means that the code changed half way.
        training_codes: versions of the training code (:mod:`salt_lab.record.training_code`) of the attempts that the record builds on, those
            since the latest start from scratch, in order, without repeats; "not recorded" stands for an attempt from before there were any.
        resources: what the latest attempt ran on: workers, cpus (of each worker), gpus (of the trial); empty in records from before they
            were kept.
        note: what the latest attempt found wrong with later checkpoints than the one it goes on from, one line; None = nothing.
        look: where these are another trial's weights, evaluated on other images (:mod:`salt_lab.train.look`): trial_id and the time (trained) of
            that trial's end, its epoch, the annotation file's name (images), provenance of the evaluation. None = a trained trial.
        number: which record of the trial it is, from 1; those before were set aside (:meth:`salt_lab.record.store.Store.set_aside`).
        started, time: unix seconds of the first and the latest event.
    """

    trial_id: str
    state: str = "new"
    trial: dict[str, Any] = field(default_factory=dict)
    study: str | None = None
    launch_id: str | None = None
    attempt: int = 0
    epochs: dict[int, dict[str, Any]] = field(default_factory=dict)
    evals: dict[int, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, float | None] | None = None
    built: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    rungs: dict[int, dict[str, Any]] = field(default_factory=dict)
    stopped: dict[str, Any] | None = None
    run_id: str | None = None
    data_fingerprint: str | None = None
    code_versions: tuple[str, ...] = ()
    training_codes: tuple[str, ...] = ()
    resources: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    look: dict[str, Any] | None = None
    number: int = 1
    started: float | None = None
    time: float | None = None

    def is_final(self, study: str, early_stopping: bool) -> bool:
        """Is there nothing left to train for ``study``? Done; or, where it stops trials early, stopped by its own comparison."""
        return self.state == "done" or (self.state == "stopped" and early_stopping and self.study == study)


def fold(trial_id: str, lines: Sequence[Line], *, alive: Callable[[], bool], run_id: str | None = None) -> Record:
    """Fold a journal.

    Args:
        trial_id: the trial's id.
        lines: the journal, oldest first.
        alive: is the process of an attempt without an end still there? Asked only when needed.
        run_id: the trial's MLflow run, where known.
    """
    if not lines:
        return Record(trial_id, run_id=run_id)
    lines = _up_to_done(lines)
    start, built, done = last_of(lines, "start"), _content(last_of(lines, "built")), _content(last_of(lines, "done"))
    attempt = _latest_attempt(lines)
    state, reason = _state(attempt, alive)
    epochs = _by_epoch(lines, "epoch")
    return Record(
        trial_id,
        state=state,
        trial=start.get("trial", {}),
        study=start.get("study"),
        launch_id=start.get("launch_id"),
        attempt=start.get("attempt", 0),
        epochs=epochs,
        evals=_by_epoch(lines, "eval"),
        metrics=done.pop("metrics", None),
        built=built,
        cost={**{key: built[key] for key in ("parameters", "gflops") if key in built}, **train_speed(epochs), **done},
        provenance=start.get("provenance") or {},
        reason=reason,
        rungs=_by_epoch(lines, "rung"),
        stopped=_content(last_of(attempt, "stopped")) if state == "stopped" else None,
        run_id=run_id,
        data_fingerprint=start.get("data_fingerprint"),
        code_versions=_code_versions(lines),
        training_codes=_training_codes(lines),
        resources=start.get("resources") or {},
        note=start.get("note"),
        look=start.get("look"),
        started=lines[0]["time"],
        time=lines[-1]["time"],
    )


def train_speed(epochs: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """``train_images_per_second``: the median over the epochs, loading included, without epoch 1 (warm-up) where there are others; empty
    before the first.

    >>> train_speed({1: {"images_per_second": 20.0}, 2: {"images_per_second": 50.0}, 3: {"images_per_second": 52.0}})
    {'train_images_per_second': 51.0}
    """
    speeds = {epoch: content["images_per_second"] for epoch, content in epochs.items() if content.get("images_per_second") is not None}
    warm = [speed for epoch, speed in speeds.items() if epoch > 1] or list(speeds.values())
    return {"train_images_per_second": median(warm)} if warm else {}


def _up_to_done(lines: Sequence[Line]) -> Sequence[Line]:
    end = next((i + 1 for i, line in enumerate(lines) if line["event"] == "done"), len(lines))
    return lines[:end]


def _latest_attempt(lines: Sequence[Line]) -> Sequence[Line]:
    begin = max((i for i, line in enumerate(lines) if line["event"] == "start"), default=0)
    return lines[begin:]


def _state(attempt: Sequence[Line], alive: Callable[[], bool]) -> tuple[str, str | None]:
    ends = [line for line in attempt if line["event"] in ("done", "failed", "interrupted", "stopped")]
    if ends:
        return ends[-1]["event"], ends[-1].get("reason")
    if alive():
        return "running", None
    return "interrupted", VANISHED


def _by_epoch(lines: Sequence[Line], event: str) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        if line["event"] == "start":
            found = {epoch: content for epoch, content in found.items() if epoch <= line.get("resumed_epoch", 0)}
        elif line["event"] == event:
            found[line["epoch"]] = {key: value for key, value in line.items() if key not in ("event", "epoch")}
    return dict(sorted(found.items()))


def _code_versions(lines: Sequence[Line]) -> tuple[str, ...]:
    starts = [line for line in lines if line["event"] == "start"]
    versions = [(line.get("provenance") or {}).get("code_version") for line in starts]
    return tuple(dict.fromkeys(str(version) for version in versions if version))


def _training_codes(lines: Sequence[Line]) -> tuple[str, ...]:
    starts = [line for line in lines if line["event"] == "start"]
    scratch = max((i for i, line in enumerate(starts) if not _resumed(line)), default=0)
    return tuple(dict.fromkeys(str((line.get("provenance") or {}).get("training_code") or NOT_RECORDED) for line in starts[scratch:]))


def _resumed(start: Line) -> bool:
    """Does the attempt go on from a checkpoint, of an epoch or from amid one?"""
    return any(value for key, value in start.items() if key.startswith("resumed"))


def _content(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in ("event", "time")}
