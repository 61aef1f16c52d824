"""Point convolution on a CPU: the lab's loops against its portable path and mmcv's compiled ``DeformConv2d``.

    python benchmarks/point_conv.py --compiled PATH --output benchmarks/results/point_conv

PATH: mmcv's compiled extension, a folder that holds it, or a built wheel (``compiled_mmcv.py``); without it ours are measured alone.

256 channels, K = 9, batch 2, at 40 x 40 and at 100 x 152 cells, float32, on one thread and on as many as there are cores. Forward and backward (to
map, points and weight), the rivals in turns, medians of the rounds. The deformable convolution gets the same points as offsets from the 3x3 grid.
Each rival's result and three gradients are first compared with the portable path in float64. Peak memory: what the resident memory of a process
that does nothing else grows by at most in one pass, beyond its inputs, each in a process of its own.

The work is counted: multiply-adds of the three products, and the bytes that reading and scattering move at least through the caches.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compiled_mmcv import WHERE, load_compiled
from saving import check_machine, save
from torch import Tensor

from salt_lab.ops.point_conv import point_conv
from salt_lab.ops.portable import install

SIZES, BATCH, CHANNELS, POINTS = ((40, 40), (100, 152)), 2, 256, 9
OURS, PORTABLE, MMCV = "ours (numba)", "portable (torch)", "mmcv, compiled"
AIM, TOLERANCE = 5.0, 1e-4
PEAK = "--peak-of"

Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]


def rivals(compiled: Path | None) -> dict[str, Convolution]:
    """Who is there."""
    found: dict[str, Convolution] = {
        name: functools.partial(point_conv, backend=b) for name, b in ((OURS, "numba"), (PORTABLE, "portable"))
    }
    extension = load_compiled(compiled)
    if extension is not None:
        install()
        from mmcv.ops import deform_conv

        deform_conv.ext_module = extension
        found[MMCV] = lambda x, p, w: deform_conv.deform_conv2d(x, offsets(p), w.unflatten(2, (3, 3)), 1, 1)
    return found


def offsets(points_NK2HW: Tensor) -> Tensor:
    """Points as offsets from the 3x3 grid: ``(N, 2K, H, W)``, y before x."""
    grid = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    return (points_NK2HW - grid[:, :, None, None]).flatten(1, 2)


def inputs_of(cells: tuple[int, int], channels: int = CHANNELS) -> list[Tensor]:
    """Map, points three cells around each cell, weight, and the gradient that comes back."""
    torch.manual_seed(0)
    x, upstream = torch.randn(BATCH, channels, *cells), torch.randn(BATCH, channels, *cells)
    points, weight = 3 * torch.randn(BATCH, POINTS, 2, *cells), torch.randn(channels, channels, POINTS) * (channels * POINTS) ** -0.5
    return [x.requires_grad_(), points.requires_grad_(), weight.requires_grad_(), upstream]


def both(run: Convolution, inputs: list[Tensor]) -> tuple[float, float, list[Tensor]]:
    """Seconds forward, seconds backward, and the result with the three gradients."""
    began = time.perf_counter()
    out = run(*inputs[:3])
    middle = time.perf_counter()
    gradients = torch.autograd.grad(out, inputs[:3], inputs[3])
    return middle - began, time.perf_counter() - middle, [out.detach(), *gradients]


def check(able: dict[str, Convolution]) -> dict[str, float]:
    """Largest relative error (by norm) of result and gradients against the portable path in float64.

    Raises:
        SystemExit: a rival computes something else.
    """
    inputs = inputs_of((17, 23), 32)
    exact = both(able[PORTABLE], [each.detach().double().requires_grad_() for each in inputs])[2]
    errors = {}
    for name, run in able.items():
        pairs = zip(both(run, inputs)[2], exact, strict=True)
        errors[name] = max(float((ours.double() - wanted).norm() / wanted.norm()) for ours, wanted in pairs)
        if not errors[name] < TOLERANCE:
            raise SystemExit(f"{name} is wrong by {errors[name]:.1e}")
    return errors


def measure(able: dict[str, Convolution], cells: tuple[int, int], rounds: int, threads: int) -> list[dict[str, Any]]:
    """One row a rival."""
    torch.set_num_threads(threads)
    inputs = inputs_of(cells)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in able}
    for _ in range(rounds):
        for name, run in able.items():
            times[name].append(both(run, inputs)[:2])
    return [{"cells": list(cells), "threads": threads, "rival": name, "seconds": each, **medians(each)} for name, each in times.items()]


def medians(times: list[tuple[float, float]]) -> dict[str, float]:
    """Of forward, backward and their sum."""
    forward, backward = zip(*times, strict=True)
    total = [sum(pair) for pair in times]
    return {"forward": statistics.median(forward), "backward": statistics.median(backward), "both": statistics.median(total)}


def peak_mib(name: str, cells: tuple[int, int], threads: int, compiled: Path | None) -> float:
    """By how much a fresh process grows, MiB."""
    command = [
        sys.executable,
        __file__,
        PEAK,
        name,
        "--cells",
        *map(str, cells),
        "--threads",
        str(threads),
        *(["--compiled", str(compiled)] if compiled else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def print_peak(run: Convolution, cells: tuple[int, int]) -> None:
    """In the fresh process: libraries and kernels are loaded by a small pass first."""
    both(run, inputs_of((8, 8), 32))
    inputs = inputs_of(cells)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest resident memory so far is forgotten
    before = _highest_kib()
    both(run, inputs)
    print((_highest_kib() - before) / 1024)


def _highest_kib() -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def counted(cells: tuple[int, int]) -> tuple[float, float]:
    """GFLOP of the three products of both passes, and GB that are read or written where columns are read twice and scattered once."""
    columns = BATCH * cells[0] * cells[1] * POINTS * CHANNELS
    return 3 * 2 * columns * CHANNELS / 1e9, 4 * columns * (2 * (4 + 1) + (4 + 4 + 4 + 1)) / 1e9


def table(rows: list[dict[str, Any]], errors: dict[str, float]) -> str:
    """The result in Markdown."""
    head = (
        "| cells | threads | who | forward (s) | backward (s) | both (s) | times ours | peak (MiB) | GFLOP/s | error |\n"
        + "|---" * 10
        + "|"
    )
    lines = []
    for row in rows:
        ours = next(each for each in rows if (each["cells"], each["threads"], each["rival"]) == (row["cells"], row["threads"], OURS))
        flop, _ = counted(row["cells"])
        times = " | ".join(f"{row[part]:.3f}" for part in ("forward", "backward", "both"))
        lines.append(
            f"| {row['cells'][0]} x {row['cells'][1]} | {row['threads']} | {row['rival']} | {times} | {row['both'] / ours['both']:.1f} | "
            f"{row['peak_mib']:.0f} | {flop / row['both']:.0f} | {errors[row['rival']]:.0e} |"
        )
    work = "; ".join(f"{c[0]} x {c[1]}: {counted(c)[0]:.0f} GFLOP, at least {counted(c)[1]:.1f} GB through the caches" for c in SIZES)
    return "\n".join(
        ["# Point convolution on a CPU", "", head, *lines, "", f"Counted for forward and backward: {work}. Aim: {AIM:.0f} times mmcv."]
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Forward and backward over ours, and the peak memory, for each size and number of threads."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from salt_lab.report.style import house_style, look

    groups = list(dict.fromkeys((*row["cells"], row["threads"]) for row in rows))
    names = list(dict.fromkeys(row["rival"] for row in rows))

    def of(name: str) -> list[dict[str, Any]]:
        return [next(row for row in rows if (*row["cells"], row["threads"]) == group and row["rival"] == name) for group in groups]

    fastest = of(OURS)
    with house_style():
        figure, (time_axes, memory_axes) = plt.subplots(1, 2, figsize=(6.6, 2.5), layout="constrained")
        for index, name in enumerate(names):
            mine = of(name)
            at, colour = [place + (index - 1) * 0.27 for place in range(len(groups))], look(index).colour
            ratios = [row["both"] / ours["both"] for row, ours in zip(mine, fastest, strict=True)]
            time_axes.bar(at, ratios, 0.25, color=colour, label=name)
            for x, ratio, row in zip(at, ratios, mine, strict=True):
                time_axes.annotate(f"{row['both']:.2g} s", (x, ratio), ha="center", va="bottom", fontsize=5.5)
            memory_axes.bar(at, [row["peak_mib"] for row in mine], 0.25, color=colour)
        for axes, title in ((time_axes, "time of forward and backward / ours"), (memory_axes, "peak MiB beyond the inputs")):
            axes.set_title(title, loc="left")
            axes.set_xticks(range(len(groups)), [f"{h} x {w}\n{t} thread{'s' * (t > 1)}" for h, w, t in groups])
            axes.grid(axis="x", visible=False)
        figure.legend(*time_axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.savefig(path)
        plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Point convolution on a CPU beside mmcv's compiled operator.")
    parser.add_argument("--output", type=Path, help="folder for point_conv.json and .md; none = print only")
    parser.add_argument("--compiled", type=Path, help=WHERE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument(PEAK, dest="peak_of", help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=int, nargs=2, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    able = rivals(wanted.compiled)
    if wanted.peak_of:
        torch.set_num_threads(wanted.threads[0])
        print_peak(able[wanted.peak_of], wanted.cells)
        return
    if wanted.output:
        check_machine(wanted.output / "point_conv.json", rivals=able)
    errors, rows = check(able), []
    for cells in SIZES:
        for threads in wanted.threads:
            peaks = {name: peak_mib(name, cells, threads, wanted.compiled) for name in able}
            rows += [{**row, "peak_mib": peaks[row["rival"]]} for row in measure(able, cells, wanted.rounds, threads)]
    text = table(rows, errors)
    print(text)
    if wanted.output:
        command = "python benchmarks/point_conv.py" + (" --compiled PATH" if wanted.compiled else "") + f" --rounds {wanted.rounds}"
        content = {
            "command": command,
            "channels": CHANNELS,
            "points": POINTS,
            "batch": BATCH,
            "rivals": list(able),
            "errors": errors,
            "rows": rows,
        }
        save(wanted.output, "point_conv", content, text)
        draw(rows, wanted.output / "point_conv.png")


if __name__ == "__main__":
    main()
