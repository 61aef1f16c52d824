"""Point convolution on a GPU: the Triton kernels against the portable path, torchvision's and mmcv's deformable convolution.

    python benchmarks/point_conv_gpu.py --output benchmarks/results/point_conv_gpu

Forward and backward on the five pyramid levels of an 800 x 1333 image, 256 channels, K = 9, batch 2 and 8, in float32, float16 and bfloat16:
median time by device events after warm-up, rivals in turns, and the most memory that the pass takes beyond its inputs. Points lie as SALT places
them at first, a few cells around each cell; the deformable convolutions get the same points as offsets from the 3x3 grid. Each rival's result and
gradients are first compared with the portable path in float32. A rival that is not installed or does not know a type is listed with the reason.

Per level the work is counted, not measured: multiply-adds, and the bytes that have to move at least and those that the gathering reads through the
caches, so that a reader can divide. ``point_conv_tiles.py`` tries the kernels' tile sizes.

Exit code 2 where there is no CUDA device.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from compiled_mmcv import WHERE, load_compiled
from saving import check_machine, save
from torch import Tensor

from salt_lab.ops.point_conv import point_conv
from salt_lab.ops.portable import install

#: Cells of P3 to P7 of an image of 800 x 1333 pixels, padded to a multiple of 32 as mmdet does (800 x 1344).
LEVELS = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
CHANNELS, POINTS = 256, 9
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: Relative error of result and gradients beyond which a rival computes something else and is not timed; offsets in half precision cost much of it.
TOLERANCE = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.3}
PORTABLE, TRITON, REPEATABLE, TORCHVISION, MMCV = "portable", "Triton", "Triton, repeatable", "torchvision", "mmcv (CUDA)"

Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]


class Rival(NamedTuple):
    """Who computes; ``run`` takes map, points and weight ``(O, C, K)``. ``missing`` says why it cannot, else it is empty. ``repeatable``: torch
    is asked for the same bits in every run."""

    name: str
    run: Convolution
    missing: str = ""
    repeatable: bool = False


def rivals(compiled: Path | None = None) -> list[Rival]:
    """Everybody, the absent with the reason."""
    portable, triton = (functools.partial(point_conv, backend=backend) for backend in ("portable", "triton"))
    return [Rival(PORTABLE, portable), Rival(TRITON, triton), Rival(REPEATABLE, triton, repeatable=True), _torchvision(), _mmcv(compiled)]


def _torchvision() -> Rival:
    try:
        from torchvision.ops import deform_conv2d
    except Exception as error:  # a torchvision that does not fit this torch fails in several ways
        return Rival(TORCHVISION, point_conv, f"does not import: {error}")
    return Rival(TORCHVISION, lambda x, p, w: deform_conv2d(x, _offsets(p).to(x.dtype), _kernel(w), padding=1))


def _mmcv(compiled: Path | None) -> Rival:
    try:
        extension = load_compiled(compiled)
        if extension is None:
            return Rival(MMCV, point_conv, "not compiled here")
        if "not" in extension.get_compiling_cuda_version():
            return Rival(MMCV, point_conv, "compiled without CUDA")
        install()
        from mmcv.ops import deform_conv

        deform_conv.ext_module = extension
    except Exception as error:  # as above
        return Rival(MMCV, point_conv, f"does not import: {error}")
    return Rival(MMCV, lambda x, p, w: deform_conv.deform_conv2d(x, _offsets(p).to(x.dtype), _kernel(w), 1, 1, 1, 1, 1, False, len(x)))


def _offsets(points_NK2HW: Tensor) -> Tensor:
    """Points as offsets from the 3x3 grid: ``(N, 2K, H, W)``, y before x."""
    grid = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return (points_NK2HW - torch.tensor(grid, device=points_NK2HW.device)[:, :, None, None]).flatten(1, 2)


def _kernel(weight_OCK: Tensor) -> Tensor:
    return weight_OCK.unflatten(2, (3, 3))


def inputs_of(batch: int, cells: tuple[int, int], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, ...]:
    """Map (channels last), points in float32, weight, and the gradient that comes back, on the GPU."""
    draw = torch.Generator("cuda").manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, device="cuda")

    x = normal(batch, CHANNELS, *cells).to(dtype, memory_format=torch.channels_last)
    points = 3 * normal(batch, POINTS, 2, *cells)
    weight = (normal(CHANNELS, CHANNELS, POINTS) * (CHANNELS * POINTS) ** -0.5).to(dtype)
    upstream = normal(batch, CHANNELS, *cells).to(dtype, memory_format=torch.channels_last)
    return x.requires_grad_(), points.requires_grad_(), weight.requires_grad_(), upstream


def once(rival: Rival, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Forward and backward; the result and the three gradients."""
    torch.use_deterministic_algorithms(rival.repeatable)
    out = rival.run(*inputs[:3])
    grads = torch.autograd.grad(out, inputs[:3], inputs[3])
    torch.use_deterministic_algorithms(False)
    return (out.detach(), *grads)


def error_of(rival: Rival, dtype: torch.dtype) -> float:
    """Largest relative error of result and gradients on a small level."""
    inputs = inputs_of(2, LEVELS[2], dtype)
    exact = tuple(each.detach().float().requires_grad_() for each in inputs[:3])
    wanted = once(rivals()[0], (*exact, inputs[3].float()))
    return max(float((a.float() - b).norm() / b.norm()) for a, b in zip(once(rival, inputs), wanted, strict=True))


def milliseconds(run: Callable[[], object]) -> float:
    """One call, by device events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def peak_mib(run: Callable[[], object]) -> float:
    """Most memory during a call beyond what was there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def counted(batch: int, cells: tuple[int, int], dtype: torch.dtype) -> dict[str, float]:
    """What forward and backward have to do: GFLOP (two a multiply-add), and GB at least and as gathered, by shape alone.

    "moved": map, points, result, their gradients and the weight, each once in and out. "gathered": four corners of every point for the result,
    the weight's gradient and the points' gradient, and as many float32 additions for the map's. "columns": what a path that writes its columns
    moves beyond that: written and read in both passes, and their gradient.
    """
    places, size = batch * cells[0] * cells[1], dtype.itemsize
    weight, numbers = CHANNELS * CHANNELS * POINTS, places * CHANNELS
    corners = 4 * POINTS * numbers
    return {
        "gflop": 3 * 2 * places * weight / 1e9,
        "gb_moved": (size * (2 * numbers + 2 * numbers + 2 * numbers + 2 * weight) + 4 * 3 * 2 * POINTS * places) / 1e9,
        "gb_gathered": (3 * size + 4) * corners / 1e9,
        "gb_columns": 6 * size * POINTS * numbers / 1e9,
    }


def measure(batch: int, name: str, rounds: int, compiled: Path | None) -> list[dict[str, Any]]:
    """All rivals on all levels, in turns; one row a rival, with its levels."""
    rows, able = {}, []
    for rival in rivals(compiled):
        reason, error = (rival.missing, None) if rival.missing else _checked(rival, name)
        rows[rival.name] = {"batch": batch, "dtype": name, "rival": rival.name, "missing": reason, "error": error, "levels": []}
        able += [] if reason else [rival]
    for cells in LEVELS:
        for rival_name, level in _level(able, inputs_of(batch, cells, DTYPES[name]), rounds).items():
            rows[rival_name]["levels"].append({"cells": list(cells), **level, **counted(batch, cells, DTYPES[name])})
    return list(rows.values())


def _level(able: list[Rival], inputs: tuple[Tensor, ...], rounds: int) -> dict[str, dict[str, Any]]:
    """Median time and peak memory of each rival on one level; the first two turns are not counted."""
    times: dict[str, list[float]] = {rival.name: [] for rival in able}
    for _ in range(rounds + 2):
        for rival in able:
            times[rival.name].append(milliseconds(functools.partial(once, rival, inputs)))
    peaks = {rival.name: peak_mib(functools.partial(once, rival, inputs)) for rival in able}
    return {name: {"ms": statistics.median(all_ms[2:]), "all_ms": all_ms[2:], "peak_mib": peaks[name]} for name, all_ms in times.items()}


def _checked(rival: Rival, name: str) -> tuple[str, float | None]:
    """Why a rival is not timed (empty: it is), and its error."""
    try:
        error = error_of(rival, DTYPES[name])
    except Exception as reason:  # what a library says of a type that it does not know
        torch.use_deterministic_algorithms(False)
        return f"{type(reason).__name__}: {str(reason).strip().splitlines()[:1]}", None
    return ("" if error < TOLERANCE[name] else f"wrong by {error:.1e}"), error


def markdown(head: list[str], body: list[list[str]]) -> str:
    """A table; made here so that a machine with torch and Triton alone can run this file."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body))


def table(rows: list[dict[str, Any]]) -> str:
    """Sum over the levels, and the ratio to the Triton kernels of the same batch and type."""
    texts = []
    for row in rows:
        if row["missing"]:
            texts.append([str(row["batch"]), row["dtype"], row["rival"], row["missing"][:80], *[""] * 5])
            continue
        ms, memory = sum(level["ms"] for level in row["levels"]), max(level["peak_mib"] for level in row["levels"])
        ours = next(each for each in rows if (each["batch"], each["dtype"], each["rival"]) == (row["batch"], row["dtype"], TRITON))
        against = sum(level["ms"] for level in ours["levels"]), max((level["peak_mib"] for level in ours["levels"]), default=0.0)
        ratios = [f"{ms / against[0]:.2f}", f"{memory / against[1]:.2f}"] if ours["levels"] else ["", ""]
        tflops = sum(level["gflop"] for level in row["levels"]) / ms
        texts.append(
            [
                str(row["batch"]),
                row["dtype"],
                row["rival"],
                f"{ms:.2f}",
                ratios[0],
                f"{memory:.0f}",
                ratios[1],
                f"{tflops:.1f}",
                f"{row['error']:.0e}",
            ]
        )
    return markdown(["batch", "type", "who", "ms, five levels", "time / Triton", "peak MiB", "memory / Triton", "TFLOP/s", "error"], texts)


def level_table(rows: list[dict[str, Any]]) -> str:
    """The Triton kernels level by level: time, and what that makes of the counted work."""
    texts = []
    for row in (each for each in rows if each["rival"] == TRITON):
        for level in row["levels"]:
            s = level["ms"] / 1e3
            rates = [f"{level['gflop'] / s / 1e3:.1f}", f"{level['gb_moved'] / s:.0f}", f"{level['gb_gathered'] / s:.0f}"]
            size = f"{level['cells'][0]} x {level['cells'][1]}"
            texts.append([str(row["batch"]), row["dtype"], size, f"{level['ms']:.3f}", f"{level['gflop']:.1f}", *rates])
    return markdown(["batch", "type", "cells", "ms", "GFLOP", "TFLOP/s", "GB/s, at least", "GB/s, gathered"], texts)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Point convolution on a GPU: Triton kernels, portable path, torchvision, mmcv.")
    parser.add_argument("--output", type=Path, required=True, help="folder for point_conv_gpu.json and .md")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--compiled", type=Path, help=WHERE)
    wanted = parser.parse_args()
    need_gpu()
    able = [rival.name for rival in rivals(wanted.compiled) if not rival.missing]
    check_machine(wanted.output / "point_conv_gpu.json", rivals=able)
    rows = [row for batch in wanted.batches for dtype in wanted.dtypes for row in measure(batch, dtype, wanted.rounds, wanted.compiled)]
    text = f"{table(rows)}\n\n## The Triton kernels by level\n\n{level_table(rows)}"
    print(text)
    command = "python benchmarks/point_conv_gpu.py " + " ".join("PATH" if word == str(wanted.compiled) else word for word in sys.argv[1:])
    content = {"command": command, "channels": CHANNELS, "points": POINTS, "levels": LEVELS, "rivals": able, "rows": rows}
    save(wanted.output, "point_conv_gpu", content, text)


def need_gpu() -> None:
    """Leave with 2 and a sentence where there is no CUDA device."""
    if not torch.cuda.is_available():
        print("no CUDA device: this benchmark measures GPUs. Run it where torch.cuda.is_available() is true", file=sys.stderr)
        raise SystemExit(2)


if __name__ == "__main__":
    main()
