"""Calibration: what one trial takes in memory and time, measured in some seconds, in a process of its own.

Runs the real composed model on the real data: some training steps, then the largest batch that the data can give, then an evaluation batch.
A process that runs out of memory is killed alone, and that is an answer too. What is measured: :mod:`salt_lab.train.measure`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from salt_lab.data import fingerprint, prepare
from salt_lab.errors import UserError
from salt_lab.record.calibration import Calibration, cost_parts, machine_kind
from salt_lab.record.provenance import code_version, machine
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.train.memory import peak_rss_gb

#: Seconds of training that are timed.
BUDGET_SECONDS = 8.0
#: A calibration that takes longer than this is given up, seconds: slow disks and huge models take minutes, nothing takes an hour.
LIMIT_SECONDS = 900.0
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def calibrate(
    trial: Trial,
    store: Store,
    *,
    workers: int = 1,
    threads: int | None = 1,
    device: str | None = None,
    at_once: int = 1,
    budget_s: float = BUDGET_SECONDS,
    limit_s: float = LIMIT_SECONDS,
) -> Calibration:
    """Measure ``trial`` on this machine. Writes nothing but its data set, where that is not drawn yet.

    Args:
        trial: what to measure; neither its seed nor its number of epochs matters.
        store: where the embedded data sets are drawn.
        workers: processes that will share the trial's batch; one of them is measured, with its share, without the exchange of gradients.
        threads: CPU threads of the process; None leaves torch's choice, all cores.
        device: "cpu" to leave a GPU alone; None takes what is there.
        at_once: copies that run at the same time, as on a machine whose slots are all taken; the memory is the largest, times are medians.
        budget_s: seconds of training that are timed, at least 3 steps and at most 50.
        limit_s: seconds after which it is given up.

    Returns:
        What was found. A trial that ran out of memory, or failed, is one whose ``ended`` says so.

    Raises:
        DataError: the data set cannot be used.
        UserError: fewer than one worker or copy.
    """
    if workers < 1 or at_once < 1:
        raise UserError(f"workers = {workers}, at_once = {at_once}: both must be at least 1")
    prepare(trial.data, store.data_dir)  # drawn here, so that nobody's clock counts it
    here = machine()
    load = os.getloadavg()[0]
    order = {"trial": trial.model_dump(mode="json"), "store": str(store.root), "workers": workers, "threads": threads}
    order |= {"device": device, "at_once": at_once, "budget_s": budget_s}
    with tempfile.TemporaryDirectory(prefix="salt-lab-calibration-") as folder:
        answers = _measured(order, Path(folder), limit_s)
    return Calibration(
        parts=cost_parts(trial, fingerprint(trial.data), workers),
        machine=machine_kind(here if device != "cpu" else {**here, "gpu": None}),
        threads=threads,
        at_once=at_once,
        load=load,
        time=time.time(),
        **_together(answers, code_version()),
    )


def _together(answers: Sequence[Mapping[str, Any]], code: str) -> dict[str, Any]:
    """Several copies' answers as one: the most memory, the median of each time; the first that failed speaks for all."""
    memory = [answer["memory_gb"] for answer in answers if answer.get("memory_gb") is not None]
    most = max(memory, default=None)
    failed = next((answer for answer in answers if answer["ended"] != "ok"), None)
    if failed is not None:
        return {"ended": failed["ended"], "memory_gb": most, "details": {"code_version": code}}
    times = ("step_seconds", "eval_image_seconds", "setup_seconds", "import_seconds")
    one = {**answers[0], **{name: median(answer[name] for answer in answers) for name in times}}
    return {**one, "memory_gb": most, "largest": tuple(one["largest"]), "details": {**one["details"], "code_version": code}}


def _measured(order: Mapping[str, Any], folder: Path, limit_s: float) -> list[dict[str, Any]]:
    children = [_Child(folder / str(number)) for number in range(order["at_once"])]
    deadline = time.monotonic() + limit_s
    try:
        for child in children:
            child.start(order)
        while any(child.running() for child in children):
            for sign, asked in (("ready", "go"), ("through", "enough")):
                if all(child.ended or (child.folder / sign).exists() for child in children):
                    (folder / asked).touch()
            if time.monotonic() > deadline:
                return [{"ended": f"not through after {limit_s:.0f} s", "memory_gb": max(child.seen_gb for child in children)}]
            time.sleep(0.1)
    finally:
        for child in children:
            child.kill()
    return [child.answer() for child in children]


@dataclass
class _Child:
    """One measuring process, watched from outside: what is known of it when the kernel kills it."""

    folder: Path
    seen_gb: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, order: Mapping[str, Any]) -> None:
        self.folder.mkdir()
        (self.folder / "order.json").write_text(json.dumps(order))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "salt_lab.train.measure", str(self.folder)],
            env=_environment(order),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "stderr").open("wb"),
        )

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def running(self) -> bool:
        """Is it? Its memory is looked at while it is."""
        if self.process is None or self.ended:
            return False
        self.seen_gb = max(self.seen_gb, peak_rss_gb(self.process.pid) or 0.0)
        return True

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()

    def answer(self) -> dict[str, Any]:
        code = self.process.returncode if self.process else None
        if code == 0:
            return json.loads((self.folder / "answer.json").read_text())
        if code == -9:  # nobody but the kernel does that
            return {"ended": "out of memory", "memory_gb": self.seen_gb}
        last = (self.folder / "stderr").read_text(errors="replace").strip().splitlines()[-1:] or ["no word"]
        return {"ended": f"its process ended with code {code}: {last[0][:300]}", "memory_gb": self.seen_gb}


def _environment(order: Mapping[str, Any]) -> dict[str, str]:
    chosen = dict(os.environ)
    if order["threads"]:
        chosen |= dict.fromkeys(_THREADS, str(order["threads"]))
    if order["device"] == "cpu":
        chosen["CUDA_VISIBLE_DEVICES"] = ""
    return chosen
