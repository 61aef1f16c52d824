"""What does it cost to run many short trials? Three ways to run the same trainings, seed by seed to the same numbers.

    python benchmarks/sweep.py --trials 32 --slots 2 --output benchmarks/results/sweep

- ``ours``: ``salt-lab run --executor ray``, whose workers stay warm between trials;
- ``Ray Tune``: a grid over the seeds, plain function trainable: a fresh process per trial, as Tune does it by itself;
- ``shell loop``: ``xargs -P SLOTS``, one ``salt-lab run --executor serial`` per seed.

Each way has a results folder of its own and one thread per trial; wall time is that of the whole command, interpreter and Ray start
included. ``wall / ideal``: ideal is the time spent in epochs and evaluations (by the trials' own records) / slots, of the way where that
was least, since all train the same; ``wall_over_own`` in the JSON takes each way's own. ``overhead``: slot seconds per trial beyond the
ideal. Two medians from the journals, trials after the first of each slot: ``between`` is the time from one trial's end to the start of the
next in its slot, ``to step`` from that end to the next one's first training step, so with imports, model and data set.

The cores must have nothing else to do: the load is written down beside the result.
"""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saving import check_machine, save

from salt_lab.record.store import Store

STUDY = """\
name: sweep
question: What does it cost to run many short trials?
base:
  host: atss
  salt: true
  backbone: {{name: resnet18, base_channels: 8}}
  channels: 64
  head_convs: 1
  data: {{kind: marks, train_images: {images}, val_images: 16, image_size: 64, classes: 2}}
  schedule: {{epochs: 1, batch: 8, image_size: [64, 64], optimizer: adamw, lr: 0.001, warmup_iters: 2}}
seeds: {seeds}
"""
#: Training images of a trial: about 2 to 3 s of training and evaluation on one core of 2026.
IMAGES = 160
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
WAYS = ["ours", "Ray Tune", "shell loop"]
LAB = [sys.executable, "-W", "ignore", "-m", "salt_lab"]


def commands(study: Path, store: Path, trials: int, slots: int) -> dict[str, list[str]]:
    """The command of each way; ``store`` is the folder under which each has its results folder."""
    common = [str(study), "--no-mlflow", "--cpus-per-trial", "1"]
    one = shlex.join([*LAB, "run", *common, "--executor", "serial", "--store", str(store / "shell loop")]) + " 'seeds=[{}]'"
    return {
        "ours": [*LAB, "run", *common, "--executor", "ray", "--max-concurrent", str(slots), "--store", str(store / "ours")],
        "Ray Tune": [sys.executable, "-W", "ignore", __file__, "--tune", str(study), str(store / "Ray Tune"), "--slots", str(slots)],
        "shell loop": ["bash", "-c", f"seq 0 {trials - 1} | xargs -P {slots} -I{{}} {one}"],
    }


def tune(study: str, root: str, slots: int) -> None:
    """Plain Ray Tune: what a page of its documentation would write for :func:`salt_lab.train.trial.run_trial`."""
    import ray
    from ray import tune as ray_tune

    from salt_lab.data import prepare
    from salt_lab.spec.study import load_study

    trials, store = load_study(study).trials(), Store(root)
    prepare(trials[0].data, store.data_dir)

    def train_one(config: dict[str, Any]) -> None:
        from salt_lab.train.trial import run_trial

        run_trial(trials[config["index"]], Store(root), study="sweep", launch_id="tune", threads=1)
        ray_tune.report({"done": 1})

    ray.init(address="local", num_cpus=slots, object_store_memory=128 * 2**20, log_to_driver=False, logging_level="ERROR")
    ray_tune.Tuner(
        ray_tune.with_resources(train_one, {"CPU": 1}),
        param_space={"index": ray_tune.grid_search(list(range(len(trials))))},
        tune_config=ray_tune.TuneConfig(max_concurrent_trials=slots),
        run_config=ray_tune.RunConfig(storage_path=str(Path(root) / "tune"), verbose=0),
    ).fit()


def timed(way: str, command: Sequence[str], log: Path) -> float:
    """Seconds of a command, its output in a file.

    Raises:
        SystemExit: it failed; shows the end of its output.
    """
    started = time.perf_counter()
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **ENVIRONMENT}, check=False).returncode
    seconds = time.perf_counter() - started
    if code:
        raise SystemExit(f"{way} ended with exit code {code}:\n{log.read_text()[-2000:]}")
    return seconds


def measured(store: Store, wall: float, slots: int) -> dict[str, Any]:
    """The row of one way, from its records."""
    records = [store.record(trial_id) for trial_id in store.trial_ids()]
    if unfinished := [record.trial_id for record in records if record.state != "done"]:
        raise SystemExit(f"{store.root}: not done: {', '.join(unfinished)}")
    training = sum(record.cost["train_seconds"] + record.cost["eval_seconds"] for record in records)
    between, to_step = gaps([times(store, record.trial_id) for record in records], slots)
    return {
        "wall_seconds": wall,
        "training_seconds": training,
        "wall_over_own": wall / (training / slots),
        "between_seconds": _spread(between),
        "to_first_step_seconds": _spread(to_step),
    }


def times(store: Store, trial_id: str) -> tuple[float, float, float]:
    """When a trial started, took its first training step, and ended, in seconds of the journal's clock."""
    lines = {line["event"]: line for line in store.journal(trial_id).read()}
    return lines["start"]["time"], lines["epoch"]["time"] - lines["epoch"]["seconds"], lines["done"]["time"]


def gaps(trials: list[tuple[float, float, float]], slots: int) -> tuple[list[float], list[float]]:
    """Seconds from the end of the trial before in the same slot to each trial's start, and to its first step; not of each slot's first.

    A trial is taken to follow, of the slots that are free when it starts, on the one that was freed last.

    >>> gaps([(0, 1, 4), (0, 1, 5), (4.5, 5, 8), (6, 7, 9)], 2)
    ([0.5, 1], [1, 2])
    """
    between, to_step, ends = [], [], []
    for start, step, end in sorted(trials):
        if len(ends) == slots:
            before = max((each for each in ends if each <= start), default=min(ends))
            ends.remove(before)
            between.append(start - before)
            to_step.append(step - before)
        ends.append(end)
    return between, to_step


def _spread(seconds: list[float]) -> dict[str, float] | None:
    """Median, least and most; None where each slot had one trial."""
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)} if seconds else None


def check_same(stores: dict[str, Store]) -> int:
    """All ways must have trained the same trials to the same losses and metrics. Returns the number of trials.

    Raises:
        SystemExit: they have not; names way and trial.
    """
    first, *others = stores.items()
    ids = first[1].trial_ids()
    for way, store in others:
        if store.trial_ids() != ids:
            raise SystemExit(f"{way} has other trials than {first[0]}: {sorted(set(store.trial_ids()) ^ set(ids))}")
        for trial_id in ids:
            ours, theirs = first[1].record(trial_id), store.record(trial_id)
            losses = [{epoch: line["losses"] for epoch, line in record.epochs.items()} for record in (ours, theirs)]
            if losses[0] != losses[1] or ours.metrics != theirs.metrics:
                raise SystemExit(
                    f"trial {trial_id} ended with other numbers in {way} than in {first[0]}: {losses} {ours.metrics} {theirs.metrics}"
                )
    return len(ids)


def table(rows: dict[str, dict[str, Any]], trials: int, slots: int) -> str:
    """The result in Markdown."""
    head = "| way | wall (s) | training (s) | wall / ideal | overhead (s per trial) | between (s) | to step (s) |\n|---|---|---|---|---|---|---|\n"
    lines = "\n".join(_line(way, row) for way, row in rows.items())
    return f"# {trials} short trials on {slots} slots\n\n{head}{lines}\n\nMade by `python benchmarks/sweep.py`; see its first lines."


def _line(way: str, row: dict[str, Any]) -> str:
    spread = [f"{row[key]['median']:.2f}" if row[key] else "" for key in ("between_seconds", "to_first_step_seconds")]
    numbers = [f"{row['wall_seconds']:.1f}", f"{row['training_seconds']:.1f}", f"{row['wall_over_ideal']:.2f}"]
    return "| " + " | ".join([way, *numbers, f"{row['overhead_seconds_per_trial']:.2f}", *spread]) + " |"


def judge(rows: dict[str, dict[str, Any]], trials: int, slots: int) -> None:
    """Put what needs the least training time of all ways into each row."""
    least = min(row["training_seconds"] for row in rows.values())
    for row in rows.values():
        row["wall_over_ideal"] = row["wall_seconds"] / (least / slots)
        row["overhead_seconds_per_trial"] = (row["wall_seconds"] * slots - least) / trials


def _portable(command: Sequence[str], folder: Path) -> str:
    """The command without this machine's paths."""
    named = {str(folder): "FOLDER", sys.executable: "python", __file__: "benchmarks/sweep.py"}
    return functools.reduce(lambda text, path: text.replace(path, named[path]), named, shlex.join(command))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The cost of many short trials: ours, plain Ray Tune, a shell loop.")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--slots", type=int, default=2, help="trials at a time, one core each")
    parser.add_argument("--images", type=int, default=IMAGES, help="training images of a trial: its length")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="only these")
    parser.add_argument("--output", type=Path, help="folder for sweep.json and sweep.md; none = print only")
    parser.add_argument("--tune", nargs=2, metavar=("STUDY", "STORE"), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.tune:
        tune(*wanted.tune, slots=wanted.slots)
        return
    if wanted.output:
        check_machine(wanted.output / "sweep.json")
    with tempfile.TemporaryDirectory(prefix="salt-sweep-") as folder:
        rows = run(Path(folder), wanted.ways, wanted.trials, wanted.slots, wanted.images)
    text = table(rows, wanted.trials, wanted.slots)
    print(text)
    if wanted.output:
        order = f"python benchmarks/sweep.py --trials {wanted.trials} --slots {wanted.slots} --images {wanted.images}"
        order += "" if wanted.ways == WAYS else f" --ways {shlex.join(wanted.ways)}"
        content = {"command": order, "trials": wanted.trials, "slots": wanted.slots, "same_numbers": True, "ways": rows}
        save(wanted.output, "sweep", content, text)


def run(folder: Path, ways: Sequence[str], trials: int, slots: int, images: int) -> dict[str, dict[str, Any]]:
    """Measure each way, after a warm-up that brings the libraries' files into memory for all alike."""
    study = folder / "sweep.yaml"
    study.write_text(STUDY.format(images=images, seeds=list(range(trials))))
    warm_up = [*LAB, "run", str(study), "seeds=[0]", "--no-mlflow", "--executor", "serial", "--store", str(folder / "warm-up")]
    timed("the warm-up", warm_up, folder / "log")
    rows: dict[str, dict[str, Any]] = {}
    for way in ways:
        command = commands(study, folder, trials, slots)[way]
        load = os.getloadavg()[0]
        seconds = timed(way, command, folder / "log")
        rows[way] = {"command": _portable(command, folder), **measured(Store(folder / way), seconds, slots)}
        rows[way]["load_before"] = load
        print(f"{way}: {seconds:.1f} s", flush=True)
    if (count := check_same({way: Store(folder / way) for way in rows})) != trials:
        raise SystemExit(f"{count} trials were trained, not {trials}")
    judge(rows, trials, slots)
    return rows


if __name__ == "__main__":
    main()
