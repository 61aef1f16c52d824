"""What a trial was measured to cost before it was run: calibrations, kept in ``STORE/calibrations/<key>.jsonl``, each measurement a line.

The key stands for what determines memory and seconds per step and nothing else: the model, the image size, the batch of one worker,
precision, optimiser, running mean, the data's kind, and the kind of machine. Seeds, learning rates and the number of epochs are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from salt_lab.record.journal import Journal
from salt_lab.record.store import Store
from salt_lab.spec.trial import EmbeddedData, Trial, canonical, digest

#: Fields of the schedule that change what a step or an evaluation takes; all the others change how many there are, or the result alone.
STEP_FIELDS = ("image_size", "optimizer", "amp", "ema")
#: Those that came later: in the parts only where they are not as before, so that earlier calibrations stay known.
LATER_STEP_FIELDS = ("memory_format",)
#: Toggles of the operator in which two cells may differ and still be alike in cost, to within some tens of percent **(ours)**.
ALIKE_SALT = ("enabled",)


def cost_parts(trial: Trial, data_fingerprint: str, workers: int = 1) -> dict[str, Any]:
    """What determines a trial's memory and its seconds per step, as plain data.

    The embedded data count by what their images look like, not by how many there are; a COCO set by its fingerprint.

    Args:
        trial: the trial.
        data_fingerprint: of its data, see :func:`salt_lab.data.fingerprint`.
        workers: processes that share ``schedule.batch``.
    """
    plain = canonical(trial)
    backbone = {key: value for key, value in plain["backbone"].items() if key != "init"}
    schedule = {key: plain["schedule"].get(key) for key in STEP_FIELDS}
    schedule |= {key: plain["schedule"][key] for key in LATER_STEP_FIELDS if key in plain["schedule"]}
    if isinstance(trial.data, EmbeddedData):
        data: Any = {key: plain["data"][key] for key in ("kind", "image_size", "classes", "max_objects")}
    else:
        data = data_fingerprint
    model = {key: plain.get(key) for key in ("host", "salt", "channels", "head_convs", "quality")}
    return {**model, "backbone": backbone, "data": data, "schedule": {**schedule, "batch": trial.schedule.batch / workers}}


def cost_key(parts: Mapping[str, Any]) -> str:
    """12 hex digits of :func:`cost_parts`: trials of one key cost the same per step."""
    return digest(dict(parts))


def alike_key(parts: Mapping[str, Any]) -> str:
    """Trials of one such key cost about the same: they differ in the operator's toggles at most, and not in whether it is there."""
    return digest({**parts, "salt": {key: parts["salt"].get(key) for key in ALIKE_SALT}, "quality": None})


def machine_kind(machine: Mapping[str, Any]) -> str:
    """The kind of machine in words: its GPU where it has one, else processor and number of cores; "unknown" where nothing was written.

    >>> machine_kind({"gpu": "8x NVIDIA H200", "cpu": "Xeon", "cores": 192})
    'NVIDIA H200'
    >>> machine_kind({"gpu": None, "cpu": "Xeon", "cores": 2})
    'Xeon, 2 cores'
    """
    if machine.get("gpu"):
        count, times, name = str(machine["gpu"]).partition("x ")
        return name if times and count.isdigit() else str(machine["gpu"])
    return f"{machine['cpu']}, {machine.get('cores')} cores" if machine.get("cpu") else "unknown"


@dataclass(frozen=True)
class Calibration:
    """One measurement of one kind of trial on one kind of machine.

    Attributes:
        parts: what was measured, see :func:`cost_parts`.
        machine: the kind of machine, see :func:`machine_kind`.
        ended: "ok", "out of memory", or the error in one line; only an "ok" has times.
        memory_gb: GiB that one worker takes: on a GPU what torch reserved and the CUDA context, on a CPU the process's peak of resident
            memory. Of one that ran out of memory: what it had when it was last seen, so at least that.
        device: "cuda" or "cpu".
        threads: CPU threads of the process.
        at_once: copies that were measured at the same time; more than one slow each other as a full machine does.
        load: the machine's load before the measurement, runnable processes; near 0 is a quiet machine.
        step_seconds: seconds of one training step, loading included: median; without the time for which other work had its core.
        steps: timed steps.
        steps_per_epoch: of the trial's data and batch.
        train_images, val_images: images of the trial's data that are trained and evaluated on.
        eval_image_seconds: seconds of one evaluated image, loading and post-processing included.
        setup_seconds: from the trial's start to its first step, imports not included (a warm worker has made them).
        import_seconds: what a fresh process takes for its imports.
        checkpoint_mb: MiB of one checkpoint.
        largest: height and width of the largest training batch, pixels, as padded.
        details: further numbers: allocated_gb, reserved_gb, context_gb, rss_gb, code_version, and stolen, the share of time that others had its core.
        time: unix seconds.
    """

    parts: dict[str, Any]
    machine: str
    ended: str
    memory_gb: float | None = None
    device: str = "cpu"
    threads: int | None = None
    at_once: int = 1
    load: float | None = None
    step_seconds: float | None = None
    steps: int = 0
    steps_per_epoch: int = 0
    train_images: int = 0
    val_images: int = 0
    eval_image_seconds: float | None = None
    setup_seconds: float | None = None
    import_seconds: float | None = None
    checkpoint_mb: float | None = None
    largest: tuple[int, int] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0

    @property
    def key(self) -> str:
        """Name of its file: what was measured, and where."""
        return calibration_key(self.parts, self.machine)

    @property
    def ok(self) -> bool:
        """Did it come to its end?"""
        return self.ended == "ok"


def calibration_key(parts: Mapping[str, Any], machine: str) -> str:
    """12 hex digits over :func:`cost_parts` and the kind of machine."""
    return digest({"parts": dict(parts), "machine": machine})


def keep_calibration(store: Store, found: Calibration) -> Path:
    """Add a measurement to those of its key; earlier ones stay. Returns the file.

    Raises:
        StoreError: it cannot be written.
    """
    path = _folder(store) / f"{found.key}.jsonl"
    content = asdict(found)
    time = content.pop("time")
    Journal(path).append("calibrated", **content, **({"time": time} if time else {}))
    return path


def calibrations(store: Store) -> list[Calibration]:
    """All measurements of a results folder, oldest first; lines that cannot be read are passed over."""
    found = [_read(line) for path in _folder(store).glob("*.jsonl") for line in Journal(path).read()]
    return sorted((one for one in found if one is not None), key=lambda one: one.time)


def _folder(store: Store) -> Path:
    return store.root / "calibrations"


def _read(line: Mapping[str, Any]) -> Calibration | None:
    known = {one.name for one in fields(Calibration)}
    try:
        content = json.loads(json.dumps({key: value for key, value in line.items() if key in known}))
        content["largest"] = tuple(content["largest"]) if content.get("largest") else None
        return Calibration(**content)
    except TypeError:
        return None
