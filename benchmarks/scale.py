"""What do tables cost with 10,000 recorded trials? Seconds and memory of load and tabulate, from journals and from MLflow's SQLite file.

    python benchmarks/scale.py --output benchmarks/results/scale

A study of CELLS cells and SEEDS seeds is recorded by the code that records real ones (nothing is trained; fsync is left out while the records
are made), then each command runs in a fresh process: wall seconds, processor seconds and peak memory of that process, interpreter and imports
included; the journals are in the system's file cache. ``no cache``: the folded records in STORE/cache are deleted first. For MLflow,
``--delivered`` trials go through the real delivery, which is timed; the others are copies of their rows (latest metrics, params, tags; not the
curves) under the other trials' ids. Processor seconds are what to compare when others use the machine: the load is written down.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saving import check_machine, save

from salt_lab.data import fingerprint
from salt_lab.record import COCO_NAMES, FolderRecorder, Store
from salt_lab.record.provenance import provenance
from salt_lab.spec.study import Study, load_study
from salt_lab.spec.trial import Trial, canonical, trial_id

STUDY = """\
name: scale
question: What do {trials} records cost?
base: {{host: atss, data: marks, schedule: {{epochs: 12, eval_every: 4}}}}
axes:
  schedule.lr: {rates}
  salt.enabled: [false, true]
seeds: {seeds}
compare: {{baseline: {{salt.enabled: false}}}}
"""
LOSSES = ("loss", "loss_cls", "loss_bbox", "loss_centerness", "loss_coarse", "loss_sdr")
LIBRARY = (
    "import sys; from salt_lab.report.results import load_results, load_results_from_mlflow; from salt_lab.report.rows import study_table;"
    "from salt_lab.record import Store; from salt_lab.spec.study import load_study; study, where = load_study(sys.argv[1]), sys.argv[2];"
    "results = load_results_from_mlflow(study, where) if '://' in where else load_results(study, Store(where));"
    "table = study_table(results); assert (results.frame['state'] == 'done').all() and len(results.frame) == int(sys.argv[3])"
)
CLIENT = "import sys; from salt_lab.record.mlflow_store import stored_runs; assert len(stored_runs(sys.argv[1], 'scale')) == int(sys.argv[2]) + 1"
#: A small parent: a child's peak memory counts from its parent's at the fork.
WATCH = (
    "import resource, subprocess, sys, time; start = time.perf_counter(); code = subprocess.run(sys.argv[1:]).returncode;"
    "wall = time.perf_counter() - start; use = resource.getrusage(resource.RUSAGE_CHILDREN);"
    "print(f'\\n{wall} {use.ru_utime + use.ru_stime} {use.ru_maxrss / 1024}'); sys.exit(code)"
)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def without_fsync() -> Iterator[None]:
    """Records made for a benchmark need not survive a power cut."""
    real = os.fsync
    os.fsync = lambda fd: None  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = real


def record_all(study: Study, ids: list[str], store: Store) -> None:
    """A finished record of every trial: 12 epochs, 3 evaluations, 10 KB."""
    launch, made_by, draw = store.new_launch(study, ids), provenance(), random.Random(0)
    for trial, name in zip(study.trials(), ids, strict=True):
        with store.lock(name):
            _record(trial, FolderRecorder(store, name), launch, made_by, draw)
    store.end_launch(study.name, launch)


def _record(trial: Trial, recorder: FolderRecorder, launch: str, made_by: dict[str, Any], draw: random.Random) -> None:
    told = {"trial": canonical(trial), "study": "scale", "launch_id": launch, "data_fingerprint": fingerprint(trial.data)}
    recorder.start(**told, provenance=made_by, resources={"workers": 1, "cpus": 1, "gpus": 0})
    effective = {"host": "atss", "salt.enabled": trial.salt.enabled, "schedule.lr": trial.schedule.lr, "seed": trial.seed}
    recorder.built(effective=effective, parameters=32_000_000, gflops=205.3, input_size=(800, 1280))
    ap, metrics = 39.0 + trial.salt.enabled + draw.gauss(0, 0.3), {}
    for epoch in range(1, 13):
        losses = {name: draw.random() / epoch for name in LOSSES}
        recorder.epoch(epoch, losses=losses, lr=0.01, seconds=40 + draw.random(), images_per_second=50 + draw.random(), memory_mb=2154.25)
        if epoch % 4 == 0:
            metrics = {name: ap + i + draw.random() for i, name in enumerate(COCO_NAMES)}
            recorder.eval(epoch, metrics)
    timing = {"ms": 30.0, "p10_ms": 29.0, "p90_ms": 31.0, "repeats": 20, "threads": 1}
    recorder.done(metrics=metrics, train_seconds=500.0, eval_seconds=20.0, peak_memory_mb=2155.0, epochs=12, inference=timing)


def deliver(store: Store, ids: list[str], database: Path, number: int) -> float:
    """Fill an MLflow database with the trials; returns the seconds that a real delivery of one takes."""
    from salt_lab.record.mlflow_store import MlflowStore

    mlflow = MlflowStore(Store(database.parent), f"sqlite:///{database}")
    mlflow.store = store
    mlflow.open_launch("scale", store.launches("scale")[0]["launch_id"])
    started = time.perf_counter()
    for name in ids[:number]:
        if not mlflow.deliver(name):
            raise SystemExit(f"MLflow took no delivery: {mlflow.last_error}")
    seconds = (time.perf_counter() - started) / number
    _copy_rows(database, ids, number)
    return seconds


def _copy_rows(database: Path, ids: list[str], number: int) -> None:
    with sqlite3.connect(database) as mlflow:
        runs = dict(mlflow.execute("SELECT value, run_uuid FROM tags WHERE key = 'salt_lab.trial_id'"))
        for i, name in enumerate(ids[number:]):
            source, copy = runs[ids[i % number]], uuid.uuid4().hex
            for table in ("runs", "latest_metrics", "params", "tags"):
                columns = [row[1] for row in mlflow.execute(f"PRAGMA table_info({table})")]
                values = ", ".join("?" if column == "run_uuid" else column for column in columns)
                mlflow.execute(
                    f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE run_uuid = ?", (copy, source)
                )
            mlflow.execute("UPDATE tags SET value = ? WHERE key = 'salt_lab.trial_id' AND run_uuid = ?", (name, copy))


def measure(command: list[str], log: Path) -> dict[str, float]:
    """Wall and processor seconds and peak memory, MiB, of one fresh process.

    Raises:
        SystemExit: it failed; shows the end of its output.
    """
    with log.open("wb") as file:
        process = subprocess.run(
            [sys.executable, "-I", "-c", WATCH, *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT},
            check=False,
        )
    *_, last = log.read_text().splitlines()
    if process.returncode:
        raise SystemExit(f"{command} ended with exit code {process.returncode}:\n{log.read_text()[-2000:]}")
    return dict(zip(("wall_seconds", "cpu_seconds", "peak_mib"), map(float, last.split()), strict=True))


def measured(study: Path, store: Store, database: Path, trials: int, log: Path) -> list[dict[str, Any]]:
    """A row per command, the one without cache before the same with it."""
    lab, code = [sys.executable, "-W", "ignore", "-m", "salt_lab"], [sys.executable, "-W", "ignore", "-c"]
    folder, uri = ["--store", str(store.root)], f"sqlite:///{database}"
    plan = [
        ("load and tabulate (library)", [*code, LIBRARY, str(study), str(store.root), str(trials)], True),
        ("salt-lab table --no-intervals", [*lab, "table", str(study), *folder, "--no-intervals"], True),
        ("salt-lab table", [*lab, "table", str(study), *folder], False),
        ("salt-lab status", [*lab, "status", str(study), *folder], False),
        ("salt-lab plan", [*lab, "plan", str(study), *folder], False),
        ("load and tabulate from MLflow's SQLite file", [*code, LIBRARY, str(study), uri, str(trials)], False),
        ("the same runs through MLflow's client, loaded only", [*code, CLIENT, uri, str(trials)], False),
    ]
    rows = []
    for name, command, cold_too in plan:
        for cold in (True, False) if cold_too else (False,):
            if cold:
                shutil.rmtree(store.root / "cache", ignore_errors=True)
            rows.append({"what": name + (", no cache" if cold else ""), **measure(command, log)})
            print(table_line(rows[-1]), flush=True)
    archive = log.parent / "archive"
    for name, command in (
        ("salt-lab export", [*lab, "export", str(study), str(archive), *folder]),
        ("salt-lab import --no-mlflow", [*lab, "import", str(archive), "--store", str(log.parent / "imported"), "--no-mlflow"]),
    ):
        rows.append({"what": name, **measure(command, log)})
        print(table_line(rows[-1]), flush=True)
    return rows


def table_line(row: dict[str, Any]) -> str:
    """One line of the Markdown table."""
    return f"| {row['what']} | {row['wall_seconds']:.1f} | {row['cpu_seconds']:.1f} | {row['peak_mib']:.0f} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Seconds and memory of tables from many recorded trials.")
    parser.add_argument("--output", type=Path, required=True, help="folder for scale.json and scale.md")
    parser.add_argument("--cells", type=int, default=1000, help="even")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--delivered", type=int, default=50, help="trials that are really delivered to MLflow")
    wanted = parser.parse_args()
    check_machine(wanted.output / "scale.json")
    with tempfile.TemporaryDirectory(prefix="salt-lab-scale-") as folder:
        save(wanted.output, "scale", *result(Path(folder), wanted.cells, wanted.seeds, wanted.delivered))


def result(folder: Path, cells: int, seeds: int, delivered: int) -> tuple[dict[str, Any], str]:
    """Make the records, measure, and put it into words: the JSON's content and the Markdown."""
    path, store, trials, load_before = folder / "scale.yaml", Store(folder / "runs"), cells * seeds, os.getloadavg()[0]
    rates = [round(0.0001 * (i + 1), 6) for i in range(cells // 2)]
    path.write_text(STUDY.format(trials=trials, rates=rates, seeds=list(range(seeds))), encoding="utf-8")
    study = load_study(path)
    ids = [trial_id(trial, fingerprint(trial.data)) for trial in study.trials()]
    (folder / "mlflow").mkdir()
    with without_fsync():
        record_all(study, ids, store)
        per_trial = deliver(store, ids, folder / "mlflow" / "mlflow.db", delivered)
    rows = measured(path, store, folder / "mlflow" / "mlflow.db", trials, folder / "log")
    sizes = {"journals_mib": sum(store.journal(name).size() for name in ids) / 2**20}
    sizes |= {"cache_mib": sum(path.stat().st_size for path in store.root.glob("cache/*.sqlite")) / 2**20}
    facts = {"cells": cells, "seeds": seeds, "trials": trials, "load_before": load_before, "delivery_seconds_per_trial": per_trial, **sizes}
    content = {"command": "python " + " ".join(["benchmarks/scale.py", *sys.argv[1:]]), **facts, "rows": rows}
    head = f"# {trials} recorded trials\n\nMade by `{content['command']}`; machine and versions are in `scale.json`.\n" + (
        f"{cells} cells, {seeds} seeds, 12 epochs and 3 evaluations a trial: {sizes['journals_mib']:.0f} MiB of journals, "
        f"{sizes['cache_mib']:.0f} MiB of cache. Fresh processes, interpreter and imports included.\n"
        f"Load of the machine before: {load_before:.1f} on {os.cpu_count()} cores; where others use it, read processor seconds.\n"
        f"Real delivery to MLflow: {1000 * per_trial:.0f} ms a trial.\n\n| what | wall s | processor s | peak MiB |\n|---|--:|--:|--:|\n"
    )
    return content, head + "\n".join(map(table_line, rows))


if __name__ == "__main__":
    main()
