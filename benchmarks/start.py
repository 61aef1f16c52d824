"""How long does one wait? Each command in fresh processes beside what its libraries alone take, and a trial's way to its first step.

    python benchmarks/start.py --output benchmarks/results/start

Commands: median wall and processor seconds of ``--rounds`` fresh processes, in turn, so that another load of the machine meets all alike.
Compiled files (``.pyc``) are there and the disk's pages in memory: a first round is thrown away. ``big`` is a study of 129 trials, all of
them recorded. The rival of the light commands is ``mlflow --version``, of ``doctor`` ``import torch``, without which it could not say whether torch
works. Where the time goes is counted from processes that each import one library more.

First step: seconds from the start of the process (``cold``), or from the end of the trial before (``warm``), to the end of the first training
step: batch 8, 64 x 64 pixels, the smallest model, ``salt-lab run --executor serial``. The rival is mmengine's own Runner on the configuration file
that our trial wrote, in a fresh process: it keeps no record, counts no FLOPs and asks no git.

The cores should have nothing else to do; processor seconds tell what a busy machine hides.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from saving import check_machine, save
from scale import record_all, without_fsync

from salt_lab.cli.shared import read_study
from salt_lab.record.store import Store
from salt_lab.schedule.preflight import jobs_of

ROOT = Path(__file__).resolve().parents[1]
LAB = [sys.executable, "-m", "salt_lab"]
PORTABLE = "import salt_lab.ops.portable as p; p.install(); "  # mmdet does not import without mmcv's ops, compiled or ours
#: Seconds that the issue asks for.
AIMS = {"--help": 0.5, "plan quickstart": 0.5, "plan big": 0.5, "status quickstart": 0.5, "status big": 0.5, "doctor": 3.0}
#: What a command is compared with.
RIVALS = dict.fromkeys(AIMS, "mlflow --version") | {"doctor": "import torch"}
#: A plan's libraries, one more in each process: label -> Python.
LAYERS = {
    "Python": "pass",
    "click": "import click",
    "PyYAML": "import click, yaml",
    "pydantic": "import click, yaml, pydantic; pydantic.BaseModel, pydantic.Field",
    "our types": "import click, salt_lab.spec.study",
    "reading the study": "import click; from salt_lab.spec.study import load_study; load_study('experiments/quickstart.yaml')",
}
BIG = """\
name: scale
base: {{host: atss, salt: true, data: {{kind: marks}}}}
axes: {{salt.points: [5, 9, 16]}}
seeds: {seeds}
"""
TRIAL = """\
name: start
base:
  host: atss
  salt: true
  backbone: {name: resnet18, base_channels: 8}
  channels: 64
  head_convs: 1
  data: {kind: marks, train_images: 8, val_images: 8, image_size: 64, classes: 2}
  schedule: {epochs: 1, batch: 8, image_size: [64, 64], optimizer: adamw, lr: 0.001, warmup_iters: 2}
seeds: [0, 1, 2]
"""
#: mmengine's Runner on a config file, until the first epoch, of one step, has ended.
PLAIN = """\
import os, sys, time
from mmengine.config import Config
config = Config.fromfile(sys.argv[1])
from mmengine.hooks import Hook
from mmengine.runner import Runner
class Stop(Hook):
    def after_train_iter(self, runner, *rest, **more):
        print(time.time(), flush=True)
        os._exit(0)
config.work_dir = sys.argv[2]
runner = Runner.from_cfg(config)
runner.register_hook(Stop())
runner.train()
"""


class Took(NamedTuple):
    """Seconds of one process."""

    wall: float
    cpu: float


def environment() -> dict[str, str]:
    """One thread each, and compiled files kept as Python does by itself."""
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
    return {**plain, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}


def timed(command: Sequence[str]) -> Took:
    """Seconds of a command.

    Raises:
        SystemExit: it failed; shows the end of what it said.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return Took(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def commands(folder: Path) -> dict[str, list[str]]:
    """Our commands, their rivals and the layers below them, by name; makes the big study and its records in ``folder``."""
    big, store = folder / "big.yaml", Store(folder / "runs")
    big.write_text(BIG.format(seeds=list(range(43))), encoding="utf-8")
    study = read_study(str(big))
    with without_fsync():
        record_all(study, [job.trial_id for job in jobs_of(study.trials())], store)
    quick, kept = "experiments/quickstart.yaml", "benchmarks/results/quickstart"
    ours = {
        "--help": ["--help"],
        "plan quickstart": ["plan", quick, "--store", str(folder / "none")],
        "plan big": ["plan", str(big), "--store", str(store.root)],
        "status quickstart": ["status", quick, "--store", kept],
        "status big": ["status", str(big), "--store", str(store.root)],
        "doctor": ["doctor", "--store", str(folder / "none")],
    }
    python = {
        **LAYERS,
        "import torch": "import torch",
        "import ray": "import ray",
        "import mmdet, Runner": f"{PORTABLE}from mmengine.runner import Runner; import mmdet.models, mmdet.datasets",
    }
    return {
        **{name: [*LAB, *words] for name, words in ours.items()},
        "mlflow --version": [sys.executable, "-m", "mlflow", "--version"],
        **{name: [sys.executable, "-c", code] for name, code in python.items()},
    }


def rounds(all_commands: dict[str, list[str]], number: int, heavy: int) -> dict[str, dict[str, float]]:
    """Medians of each command, after a round that counts for nothing; those that take seconds are run ``heavy`` times."""
    first = {name: timed(command) for name, command in all_commands.items()}
    took: dict[str, list[Took]] = {name: [] for name in all_commands}
    for turn in range(number):
        for name, command in all_commands.items():
            if turn < heavy or first[name].cpu < 1:
                took[name].append(timed(command))
    return {name: summary([one.wall for one in each], [one.cpu for one in each]) for name, each in took.items()}


def summary(wall: Sequence[float], cpu: Sequence[float] = ()) -> dict[str, float]:
    """Medians, and the least wall time."""
    found = {"wall_seconds": statistics.median(wall), "least_wall_seconds": min(wall), "runs": len(wall)}
    return found | ({"cpu_seconds": statistics.median(cpu)} if cpu else {})


def first_steps(folder: Path, number: int) -> dict[str, dict[str, float]]:
    """Seconds to the end of the first step: cold, warm, and mmengine's Runner. Every launch has a results folder of its own."""
    study = folder / "start.yaml"
    study.write_text(TRIAL, encoding="utf-8")
    cold, warm, plain = list[float](), list[float](), list[float]()
    for turn in range(number + 1):
        store = Store(folder / f"trials-{turn}")
        began = time.time()
        timed([*LAB, "run", str(study), "--executor", "serial", "--no-mlflow", "--cpus-per-trial", "1", "--store", str(store.root)])
        lines = [{line["event"]: line["time"] for line in store.journal(name).read()} for name in store.trial_ids()]
        times = sorted(lines, key=lambda line: line["start"])
        told = mmengine_alone(store.trial_dir(store.trial_ids()[0]) / "config.py", folder / f"plain-{turn}")
        if turn:  # the first draws the data set and fills the disk's memory
            cold.append(times[0]["epoch"] - began)
            warm += [after["epoch"] - before["done"] for before, after in itertools.pairwise(times)]
            plain.append(told)
    return {"cold": summary(cold), "warm": summary(warm), "mmengine's Runner, cold": summary(plain)}


def mmengine_alone(config: Path, work_dir: Path) -> float:
    """Seconds from the start of a process to the end of the Runner's first step."""
    began = time.time()
    words = [sys.executable, "-c", PLAIN, str(config), str(work_dir)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"mmengine's Runner on {config} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1]) - began


def table(took: dict[str, dict[str, float]], steps: dict[str, dict[str, float]]) -> str:
    """The result in Markdown."""
    head = "| command | wall (ms) | CPU (ms) | aim (ms) | rival | wall / rival's |\n|---|---|---|---|---|---|"
    ours = [
        f"| `salt-lab {name}` | {_ms(took[name])} | {_ms(took[name], 'cpu_seconds')} | {1000 * aim:.0f} | `{RIVALS[name]}` | "
        f"{took[name]['wall_seconds'] / took[RIVALS[name]]['wall_seconds']:.2f} |"
        for name, aim in AIMS.items()
    ]
    others = [f"| `{name}` | {_ms(one)} | {_ms(one, 'cpu_seconds')} | | | |" for name, one in took.items() if name not in (*AIMS, *LAYERS)]
    floor, parts = 0.0, []
    for name in LAYERS:
        parts.append(f"{name} {1000 * (took[name]['cpu_seconds'] - floor):.0f}")
        floor = took[name]["cpu_seconds"]
    parts.append(f"records, code version and printing {1000 * (took['plan quickstart']['cpu_seconds'] - floor):.0f}")
    theirs = steps["mmengine's Runner, cold"]["wall_seconds"]
    ways = [f"| {name} | {one['wall_seconds']:.2f} | {one['wall_seconds'] / theirs:.2f} |" for name, one in steps.items()]
    return "\n".join(
        [
            "# From the return key to the answer",
            "",
            head,
            *ours,
            *others,
            "",
            f"`plan quickstart` by what is asked for, CPU ms: {', '.join(parts)}.",
            "",
            "| first training step | wall (s) | / mmengine's Runner |\n|---|---|---|",
            *ways,
            "",
            f"Of a cold start {took['import mmdet, Runner']['wall_seconds']:.2f} s are the imports of torch, mmengine and mmdet, with or without us.",
            "",
            "Made by `python benchmarks/start.py`; see its first lines.",
        ]
    )


def _ms(one: dict[str, float], key: str = "wall_seconds") -> str:
    return f"{1000 * one[key]:.0f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Seconds to the answer of each light command, and to a trial's first step.")
    parser.add_argument("--rounds", type=int, default=9, help="fresh processes of each light command")
    parser.add_argument("--heavy", type=int, default=3, help="the same for those that take seconds, and for the first step")
    parser.add_argument("--output", type=Path, help="folder for start.json and start.md; none = print only")
    wanted = parser.parse_args()
    if wanted.output:
        check_machine(wanted.output / "start.json")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="salt-start-") as folder:
        took = rounds(commands(Path(folder)), wanted.rounds, wanted.heavy)
        steps = first_steps(Path(folder), wanted.heavy)
    text = table(took, steps)
    print(text)
    if wanted.output:
        order = f"python benchmarks/start.py --rounds {wanted.rounds} --heavy {wanted.heavy}"
        save(wanted.output, "start", {"command": order, "load_before": load, "commands": took, "first_step": steps}, text)


if __name__ == "__main__":
    main()
