"""The training step: a host against the host with SALT, our point convolution against the deformable convolutions of mmcv and torchvision.

    python benchmarks/training_step.py --output benchmarks/results/training_step                      # GPU, or the small CPU form
    python benchmarks/training_step.py --compiled FOLDER --output benchmarks/results/training_step    # CPU, with mmcv's compiled operator
    python benchmarks/training_step.py --size 800 1333 --hosts atss --rounds 1 --name full_size --compiled FOLDER --output ...  # CPU, full size

A whole step as the lab's trials make it: images from the loader, normalised and padded, forward, losses, backward, SGD. ResNet-50 with its first
stage and batch norm frozen, 80 classes, pictures of noise with 7 boxes each (COCO's mean). On a GPU: 800 x 1333, batch 2 and 8, mixed
precision (mmengine's AmpOptimWrapper, float16), channels last, seconds by the wall clock after waiting for the device. On a CPU: float32, one
image of 192 x 320 unless told otherwise, one thread, the host with contiguous memory too, and processor seconds: those that this process had a
core, since wall seconds say little where others work too. Arms take turns; medians. Ratios are to the host of the same batch, channels last.

The arms "on mmcv" and "on torchvision" are the same model, weights and points; only ``point_conv`` in its two layers is theirs: K = 9, offsets
are the points minus the 3 x 3 grid, in the type that autocast gives a convolution. Before an arm is timed, its losses and gradients in float32 are
compared with our portable path. What is missing is listed with the reason.

Memory is what the step takes beyond the process before it, plus the weights and the optimiser's state: torch's allocator on a GPU, resident
memory on a CPU. What limits: multiply-adds of the forward pass are counted (``salt_lab.train.flops``; a step makes about three times as many), so
the table says by how much a step may grow on arithmetic alone. ``--profile`` adds where the time goes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compiled_mmcv import WHERE
from saving import check_machine, save
from training_step_arms import Arm, Step, arms, build_step, disagreement, made_batch
from training_step_parts import parts_of, top_operators
from training_step_picture import draw

HOSTS = ("fcos", "atss", "gfl")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
#: Relative difference of losses and gradients beyond which an arm is not timed; where a point lies on a cell's edge there are two gradients.
TOLERANCE = 1e-3


def measure(host: str, batch: int, given: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """All arms of one host and batch, in turns; one row an arm, the absent with their reason."""
    able: list[tuple[Arm, Step]] = []
    rows: dict[str, dict[str, Any]] = {}
    kept: dict[tuple[bool, bool], Step] = {}
    for arm in arms(device, given.compiled):
        row = rows[arm.name] = {"host": host, "batch": batch, "arm": arm.name, "missing": arm.missing, "difference": None}
        if arm.missing:
            continue
        kind = (arm.salt, arm.channels_last)
        kept[kind] = step = kept.get(kind) or build_step(host, arm, device, given.amp, tuple(given.size))
        _check(row, arm, step)
        row |= {"gmac_forward": step.gmac}
        able += [] if row["missing"] else [(arm, step)]
    data = made_batch(batch, tuple(given.size))
    times: dict[str, list[float]] = {arm.name: [] for arm, _ in able}
    for _ in range(given.warmup + given.rounds):
        for arm, step in able:
            times[arm.name].append(seconds(arm, step, data, CLOCKS[given.clock]))
    for arm, step in able:
        spent = times[arm.name][given.warmup :]
        rows[arm.name] |= {"s": statistics.median(spent), "all_s": spent, "peak_mib": step.peak_mib(arm, data)}
        if given.profile:
            rows[arm.name] |= {"parts_s": parts_of(arm, step, data), "operators": top_operators(arm, step, data)}
    return list(rows.values())


def _check(row: dict[str, Any], arm: Arm, step: Step) -> None:
    """An arm that computes something else than ours, or cannot compute at all, is not timed."""
    if arm.rival is None and arm.backend == "portable":
        return
    try:
        row["difference"] = disagreement(arm, step, made_batch(2, (160, 224)))
    except Exception as error:  # what a library says of a build that does not fit
        row["missing"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
        return
    if not row["difference"] < TOLERANCE:
        row["missing"] = f"differs from our portable path by {row['difference']:.1e}"


def seconds(arm: Arm, step: Step, data: dict[str, Any], clock: Callable[[], float]) -> float:
    """One step."""
    step.wait()
    began = clock()
    step.run(arm, data)
    step.wait()
    return clock() - began


def table(rows: list[dict[str, Any]]) -> str:
    """Time, memory and counted arithmetic of each arm, and their ratios to the host's."""
    lines = [
        "| host | batch | arm | s/step | time / host | peak MiB | memory / host | GMAC forward | arithmetic / host | GMAC/s |",
        "|" + "---|" * 10,
    ]
    hosts = {(row["host"], row["batch"]): row for row in rows if row["arm"] == "host"}
    for row in rows:
        begin = [row["host"], str(row["batch"]), row["arm"]]
        if row["missing"]:
            lines.append(f"| {' | '.join([*begin, row['missing'], *[''] * 6])} |")
            continue
        own = hosts[row["host"], row["batch"]]
        ratios = [f"{row[key] / own[key]:.2f}" for key in ("s", "peak_mib", "gmac_forward")]
        rate = 3 * row["batch"] * row["gmac_forward"] / row["s"]
        cells = [f"{row['s']:.3f}", ratios[0], f"{row['peak_mib']:.0f}", ratios[1], f"{row['gmac_forward']:.1f}", ratios[2], f"{rate:.0f}"]
        lines.append(f"| {' | '.join([*begin, *cells])} |")
    return "\n".join(lines)


def profile_text(rows: list[dict[str, Any]]) -> str:
    """Where a step's time goes: by part of the model, then by operator."""
    texts = []
    for row in (each for each in rows if "parts_s" in each):
        whole = sum(row["parts_s"].values())
        parts = ", ".join(f"{name} {value:.3f} ({100 * value / whole:.0f} %)" for name, value in row["parts_s"].items())
        operators = ", ".join(f"`{name}` {100 * share:.0f} %" for name, share in row["operators"].items())
        texts.append(f"- **{row['host']}, batch {row['batch']}, {row['arm']}**: {parts}. By operator: {operators}.")
    return "\n".join(texts)


def main() -> None:
    """Command line."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the result: JSON, table, picture")
    parser.add_argument("--name", default="training_step", help="name of the files there")
    parser.add_argument("--hosts", nargs="+", default=list(HOSTS))
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8] if on_gpu else [1])
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=[800, 1333] if on_gpu else [192, 320])
    parser.add_argument("--rounds", type=int, default=10 if on_gpu else 3, help="timed turns")
    parser.add_argument("--warmup", type=int, default=3 if on_gpu else 1, help="turns before those")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall" if on_gpu else "cpu", help="wall or processor seconds")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--compiled", type=Path, help=WHERE)
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default=on_gpu, help="mixed precision (GPU)")
    parser.add_argument("--profile", action="store_true", help="where the time goes: a step by parts, another by operators")
    given = parser.parse_args()
    able = [arm.name for arm in arms("cuda" if on_gpu else "cpu", given.compiled) if not arm.missing]
    check_machine(given.output / f"{given.name}.json", rivals=able)
    torch.set_num_threads(given.threads if not on_gpu else torch.get_num_threads())
    torch.set_flush_denormal(True)  # as a trial does
    rows = []
    for host in given.hosts:
        for batch in given.batches:
            rows += measure(host, batch, given, "cuda" if on_gpu else "cpu")
            print(f"{host}, batch {batch}: measured", flush=True)
    text = "\n\n".join(each for each in (_title(given), table(rows), profile_text(rows)) if each)
    print(text)
    settings = {key: getattr(given, key) for key in ("size", "rounds", "warmup", "threads", "clock", "amp")}
    command = "python benchmarks/training_step.py " + " ".join("FOLDER" if word == str(given.compiled) else word for word in sys.argv[1:])
    save(given.output, given.name, {"command": command, "settings": settings, "rivals": able, "rows": rows}, text)
    draw(rows, given.output / f"{given.name}.png")


def _title(given: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {given.threads} thread(s)"
    precision = "float16 by autocast" if given.amp else "float32"
    return f"# The training step\n\n{device}; {given.size[0]} x {given.size[1]}, {precision}. What the columns mean: `benchmarks/training_step.py`."


if __name__ == "__main__":
    main()
