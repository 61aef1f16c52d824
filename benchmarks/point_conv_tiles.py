"""Which tiles suit a GPU: forward and backward of point convolution with other sizes for one kernel at a time.

    python benchmarks/point_conv_tiles.py forward --dtype bfloat16 --output benchmarks/results/point_conv_tiles

On the finest level of an 800 x 1333 image, batch 2, 256 channels, K = 9: median time of the whole pass, so a difference is that kernel's. Best first;
the winner belongs into ``TILES`` of ``salt_lab/ops/triton_launch.py``. "map" is the repeatable gradient's kernel. Exit code 2 without a CUDA device.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from point_conv_gpu import DTYPES, LEVELS, Rival, inputs_of, markdown, milliseconds, need_gpu, once
from saving import check_machine, save

from salt_lab.ops import triton_launch
from salt_lab.ops.point_conv import point_conv

#: Tried: cells, input channels, output channels, warps, stages.
SIZES = ((32, 64, 128), (32, 64, 128, 256), (32, 64, 128, 256), (4, 8), (1, 2, 3))


def tune(kind: str, name: str, rounds: int) -> list[dict[str, Any]]:
    """Every size once, best first; what does not compile or fit comes last with its reason."""
    key, found = (kind, DTYPES[name].itemsize), []
    run = functools.partial(
        once, Rival(kind, functools.partial(point_conv, backend="triton"), repeatable=kind == "map"), inputs_of(2, LEVELS[0], DTYPES[name])
    )
    for sizes in itertools.product(*SIZES):
        if sizes[0] * max(sizes[1:3]) > 64 * 256 or sizes[1] * sizes[2] > 64 * 256:
            continue  # more sums than registers
        triton_launch.TILES[key] = triton_launch.Tiles(*sizes)
        triton_launch.forget_fitting()
        found.append({"kind": kind, "dtype": name, "tiles": list(sizes), **_time(run, rounds)})
        print(json.dumps(found[-1]), flush=True)
    return sorted(found, key=lambda each: each.get("ms", float("inf")))


def _time(run: functools.partial[Any], rounds: int) -> dict[str, Any]:
    """The median after two turns, or why there is none."""
    try:
        times = [milliseconds(run) for _ in range(rounds + 2)]
    except Exception as error:  # a compiler's or a driver's
        return {"missing": f"{type(error).__name__}: {error}"[:120]}
    return {"ms": statistics.median(times[2:])}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Tile sizes of one point convolution kernel on this GPU.")
    parser.add_argument("kind", choices=list(triton_launch.KERNELS))
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16")
    parser.add_argument("--output", type=Path, required=True, help="folder for <kind>_<dtype>.json and .md")
    parser.add_argument("--rounds", type=int, default=10)
    wanted = parser.parse_args()
    need_gpu()
    name = f"{wanted.kind}_{wanted.dtype}"
    check_machine(wanted.output / f"{name}.json")
    rows = tune(wanted.kind, wanted.dtype, wanted.rounds)
    best = [["x".join(map(str, row["tiles"])), f"{row['ms']:.3f}"] for row in rows if "ms" in row]
    table = markdown(["cells x inputs x outputs x warps x stages", "ms, forward and backward"], best)
    print("\n".join(table.splitlines()[:12]))
    save(wanted.output, name, {"command": "python benchmarks/point_conv_tiles.py " + " ".join(sys.argv[1:]), "rows": rows}, table)


if __name__ == "__main__":
    main()
