"""How does the time of a training step grow with image area, K, channels and ground-truth boxes: ATSS with SALT beside ATSS without, in one run.

    python benchmarks/scaling_train.py --clock cpu --output benchmarks/results/scaling_train
    python benchmarks/scaling_train.py --device cuda --output benchmarks/results/scaling_train_gpu

The model is the one that a trial composes; a step is mmengine's ``train_step``: normalisation and padding, forward, losses with the host's
assigner, backward, optimiser. Pictures are noise, boxes and classes drawn from a seed, weights untrained; no loading. One quantity changes, the
others stay at the base (:data:`BASES`: small on a CPU, a ResNet-50 at 800 x 800 on a GPU). Each round goes through all points, at each host and
SALT in turn, a step that is not timed and one that is, so what else the machine does falls on all; shown is the least of ``--rounds``, per image
(others can only add). On a GPU the rounds of a point follow each other. K is SALT's alone: the host's line there is flat but for noise.

**The exponent**: part of a step does not depend on x at all, and would hide in a slope of log(time) over log(x) how the rest grows. So
``t(x) = a + b x^p`` is fitted with a, b >= 0: for each p from 0.25 to 3 the best a and b by non-negative least squares of relative errors, and of
these p the best. p is then the log-log slope of the marginal part t - a; the share of b x^p at the largest x says how much of the step it
describes, and "p between" are the p whose error is at most a tenth above the best one's or within 1 %: a wide range means that x hardly
matters, or that the points are noisy. The plain slope, of the whole time, is given beside it.

``--clock cpu`` counts processor seconds of this process (one thread), so that others on the machine hardly count; for CPUs alone.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from saving import check_machine, save
from scipy.optimize import nnls

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
WAYS = ("ATSS", "ATSS + SALT")
BEGAN = time.perf_counter()
CLASSES = 80


class Point(NamedTuple):
    """What a step is made of: side of the square pictures in pixels, K, channels of neck and head, boxes per image."""

    side: int
    points: int
    channels: int
    boxes: int


class Base(NamedTuple):
    """The network and the point from which one quantity at a time is changed; boxes are changed in pictures of ``crowded_side``, since what
    they cost grows with the cells that each is compared with."""

    backbone: dict[str, Any]
    convs: int
    batch: int
    point: Point
    crowded_side: int
    sides: tuple[int, ...]


BASES = {
    "cpu": Base(dict(name="resnet18", base_channels=16), 1, 2, Point(160, 9, 64, 8), 256, (64, 96, 128, 160, 224, 320, 448)),
    "cuda": Base(dict(name="resnet50"), 4, 2, Point(800, 9, 256, 8), 800, (320, 448, 640, 800, 1024)),
}
KS, CHANNELS, BOXES = (4, 6, 9, 13, 18, 25), (64, 96, 128, 192, 256), (1, 3, 10, 30, 100, 300)
#: What limits each, in words; counted from shapes, not measured.
LIMITS = {
    "image area (pixels)": "every layer works once per cell, so p = 1 is the least there is; a below-one p on a small picture is the fixed cost "
    "of starting a few hundred operators, which `a` takes up.",
    "K (points)": "each point reads 4 corners of C numbers per cell and branch and writes one (bytes: 4 C K, not reused), then C x C multiply-adds "
    "(arithmetic: C^2 K); both are linear in K, and the rest of the step does not know K.",
    "channels": "towers, lateral and point convolutions are C x C per cell (p = 2, arithmetic); reading corners, GroupNorm and the predictors are "
    "C per cell (p = 1, bytes); what is between is their mixture. The backbone does not change, and is in `a`.",
    "boxes (per image)": "the host's assigner compares every box with every anchor (p = 1, bytes: cells x boxes distances and overlaps), the losses "
    "work on the positives, a few per box; the network does not know the boxes. SALT adds two box losses on the same positives. "
    "With `--keep-denormal` a step with one box takes longer on a CPU than one with ten: gradients too small for normal numbers are slow there; "
    "trials count them as 0.",
}


def axes(base: Base) -> dict[str, list[tuple[float, Point]]]:
    """Quantity -> (x, what is run)."""
    at = base.point
    return {
        "image area (pixels)": [(side**2, at._replace(side=side)) for side in base.sides],
        "K (points)": [(points, at._replace(points=points)) for points in KS],
        "channels": [(channels, at._replace(channels=channels)) for channels in CHANNELS],
        "boxes (per image)": [(boxes, at._replace(boxes=boxes, side=base.crowded_side)) for boxes in BOXES],
    }


def built(base: Base, at: Point, salt: bool, device: str) -> tuple[Any, Any]:
    """The composed model in training mode, and its optimiser."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.optim import build_optim_wrapper

    from salt_lab.compose import compose
    from salt_lab.spec.trial import Trial

    toggles = {"enabled": True, "points": at.points} if salt else False
    schedule = dict(epochs=1, batch=base.batch, image_size=(at.side, at.side), optimizer="adamw", lr=1e-4)
    spec = dict(host="atss", salt=toggles, backbone=base.backbone, channels=at.channels, head_convs=base.convs, schedule=schedule)
    config = compose(Trial.model_validate(spec))
    config.model.bbox_head.num_classes = CLASSES
    torch.manual_seed(0)
    model = MODELS.build(config.model).to(device).train()
    return model, build_optim_wrapper(model, config.optim_wrapper)


def made_batch(base: Base, at: Point) -> dict[str, Any]:
    """Pictures of noise; boxes of 1/20 to 1/2 of the side, anywhere inside."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    draw = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(base.batch):
        extent_G2 = at.side * (0.05 + 0.45 * torch.rand(at.boxes, 2, generator=draw))
        start_G2 = torch.rand(at.boxes, 2, generator=draw) * (at.side - extent_G2)
        size = (at.side, at.side)
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        labels_G = torch.randint(CLASSES, (at.boxes,), generator=draw)
        sample.gt_instances = InstanceData(bboxes=torch.cat([start_G2, start_G2 + extent_G2], 1), labels=labels_G)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=labels_G[:0])
        samples.append(sample)
    inputs = [torch.randint(256, (3, at.side, at.side), generator=draw, dtype=torch.uint8) for _ in samples]
    return {"inputs": inputs, "data_samples": samples}


class Bench:
    """Models that are ready, and what they took: seconds per image by point and way."""

    def __init__(self, base: Base, device: str, clock: Callable[[], float]) -> None:
        self.base, self.device, self.clock = base, device, clock
        self.seconds: dict[Point, dict[str, list[float]]] = {}
        self._ready: dict[Point, tuple[dict[str, Any], Any]] = {}

    def measure(self, at: Point, steps: int) -> None:
        """Some steps of both ways in turn, after one of each that is not timed. On a CPU the models are kept for the next time."""
        models, batch = self._ready.get(at) or self._made(at)
        if self.device == "cpu":
            self._ready[at] = models, batch
        known = self.seconds.setdefault(at, {way: [] for way in WAYS})
        for number in range(steps + 1):
            for way, (model, optimiser) in models.items():
                took = self._step(model, optimiser, batch)
                if number:
                    known[way].append(took / self.base.batch)

    def _made(self, at: Point) -> tuple[dict[str, Any], Any]:
        models = {way: built(self.base, at, salt, self.device) for way, salt in zip(WAYS, (False, True), strict=True)}
        return models, made_batch(self.base, at)

    def _step(self, model: Any, optimiser: Any, batch: Any) -> float:
        began = self.clock()
        model.train_step(batch, optim_wrapper=optimiser)
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return self.clock() - began


class Fit(NamedTuple):
    """``a + b x^p``: see above. ``share`` of ``b x^p`` at the largest x; ``plain``: slope of log t over log x."""

    p: float
    a: float
    b: float
    low: float
    high: float
    share: float
    plain: float


def fitted(x: Sequence[float], seconds: Sequence[float]) -> Fit:
    """The exponent of the marginal part."""
    x_N, t_N = np.asarray(x, float), np.asarray(seconds, float)
    unit = x_N.max()
    tried = []
    for p in np.arange(0.25, 3.001, 0.05):
        columns = np.stack([1 / t_N, (x_N / unit) ** p / t_N], axis=1)
        (a, b), error = nnls(columns, np.ones_like(t_N))
        tried.append((error / np.sqrt(len(t_N)), p, a, b))
    least, p, a, b = min(tried)
    near = [one[1] for one in tried if one[0] <= max(1.1 * least, 0.01)]
    plain = np.polyfit(np.log(x_N), np.log(t_N), 1)[0]
    return Fit(*(float(value) for value in (p, a, b / unit**p, min([*near, p]), max([*near, p]), b / (a + b), plain)))


def run(base: Base, rounds: int, device: str, clock: Callable[[], float]) -> dict[str, Any]:
    """Every axis: x, least seconds per image of each way, all seconds, and the fits. A point of several axes is measured once for all."""
    bench, wanted = Bench(base, device, clock), axes(base)
    points = list(dict.fromkeys(at for steps in wanted.values() for _, at in steps))
    for number in range(rounds if device == "cpu" else 1):
        for at in points:
            bench.measure(at, 1 if device == "cpu" else rounds)
        print(f"round {number + 1}: {time.perf_counter() - BEGAN:.0f} s", flush=True)
    found: dict[str, Any] = {}
    for name, steps in wanted.items():
        xs, every = [x for x, _ in steps], [bench.seconds[at] for _, at in steps]
        least = {way: [min(one[way]) for one in every] for way in WAYS}
        fits = {way: fitted(xs, least[way])._asdict() for way in WAYS if way != WAYS[0] or name != "K (points)"}
        found[name] = {"x": xs, "seconds_per_image": least, "all": every, "fits": fits}
    return found


def arithmetic(base: Base) -> dict[str, float]:
    """GFLOPs (multiply-adds) of a forward pass of one image at the base, by way: the lab's count."""
    from salt_lab.train.flops import gflops

    at = base.point
    models = {way: built(base, at, salt, "cpu")[0] for way, salt in zip(WAYS, (False, True), strict=True)}
    return {way: gflops(model, at.side, at.side) or float("nan") for way, model in models.items()}


def table(found: dict[str, Any], said: str) -> str:
    """As markdown: every point, then the exponents."""
    lines = [f"# Time per image of training\n\n{said}\n", "| | x | ATSS (ms) | ATSS + SALT (ms) | ratio |\n|---|---|---|---|---|"]
    for name, axis in found.items():
        for x, host, salt in zip(axis["x"], *axis["seconds_per_image"].values(), strict=True):
            lines.append(f"| {name} | {x:,.0f} | {1000 * host:.1f} | {1000 * salt:.1f} | {salt / host:.2f} |")
    lines.append("\nt = a + b x^p; share: of b x^p at the largest x; plain: slope of the whole time.\n")
    lines.append("| | way | p | p between | a (ms) | share | plain |\n|---|---|---|---|---|---|---|")
    for name, axis in found.items():
        for way, fit in axis["fits"].items():
            between = f"{fit['low']:.2f} to {fit['high']:.2f}"
            lines.append(
                f"| {name} | {way} | {fit['p']:.2f} | {between} | {1000 * fit['a']:.1f} | {100 * fit['share']:.0f} % | {fit['plain']:.2f} |"
            )
    return "\n".join([*lines, "\nWhat limits each:\n", *(f"- **{name}**: {words}" for name, words in LIMITS.items())])


def speeds(base: Base, found: dict[str, Any], counted: dict[str, float]) -> list[str]:
    """What the base's step is of the machine's arithmetic, in words."""
    at = KS.index(base.point.points)
    seconds = {way: found["K (points)"]["seconds_per_image"][way][at] for way in WAYS}
    rates = [f"{way}: {3 * counted[way]:.2f} billion multiply-adds, {3 * counted[way] / seconds[way]:.1f} billion/s" for way in WAYS]
    more, longer = counted[WAYS[1]] / counted[WAYS[0]], seconds[WAYS[1]] / seconds[WAYS[0]]
    return [
        f"\nForward and backward of an image at the base (three times the lab's count of the forward pass): {'; '.join(rates)}.",
        f"SALT makes {more:.2f} times the host's multiply-adds in {longer:.2f} times its time"
        + (": what is beyond is bytes (corners) and the number of operators." if longer > more else "."),
    ]


def draw(found: dict[str, Any], path: Path) -> None:
    """Two by two: time per image against each quantity, both axes logarithmic, with the fits."""
    import matplotlib.pyplot as plt

    from salt_lab.report.style import house_style, look

    with house_style():
        figure, panels = plt.subplots(2, 2, figsize=(6.6, 4.8), layout="constrained")
        for panel, (name, axis) in zip(panels.flat, found.items(), strict=True):
            for number, way in enumerate(WAYS):
                style, fit = look(number), axis["fits"].get(way)
                label = (
                    way if fit is None else f"{way}: p = {fit['p']:.2f} ({fit['low']:.2f} to {fit['high']:.2f}), {100 * fit['share']:.0f} %"
                )
                panel.plot(axis["x"], 1000 * np.array(axis["seconds_per_image"][way]), style.marker, color=style.colour, label=label)
                if fit is not None:
                    fine = np.geomspace(min(axis["x"]), max(axis["x"]), 60)
                    panel.plot(fine, 1000 * (fit["a"] + fit["b"] * fine ** fit["p"]), color=style.colour, linestyle=style.dash)
            panel.set(
                xscale="log", yscale="log", xlabel=name, ylabel="ms per image", ylim=(panel.get_ylim()[0] / 1.3, panel.get_ylim()[1] * 2)
            )
            panel.set_xticks(axis["x"], [f"{x:,.0f}" if x < 1000 else f"{x**0.5:.0f}²" for x in axis["x"]], minor=False)
            panel.set_xticks([], minor=True)
            panel.legend(loc="upper left")
        figure.suptitle("Training step, fitted t = a + b x^p (range of p, share of b x^p at the largest x)", fontsize=8)
        figure.savefig(path, metadata={"Software": None})
        plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Time per image of training against area, K, channels and boxes.")
    parser.add_argument("--output", type=Path, help="folder for scaling_train.json, .md and .png; none = print only")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each way at each point; the least is shown")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--device", choices=list(BASES), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--keep-denormal", action="store_true", help="denormal numbers are not counted as 0; a trial counts them so")
    wanted = parser.parse_args()
    if wanted.clock == "cpu" and (wanted.device == "cuda" or wanted.threads > 1):
        parser.error("--clock cpu counts this process on one core: neither on a GPU nor with --threads above 1")
    if wanted.output:
        check_machine(wanted.output / "scaling_train.json")
    os.environ.setdefault("NUMBA_NUM_THREADS", str(wanted.threads))
    import torch

    from salt_lab.train.libraries import load_libraries

    if wanted.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here; take --device cpu")
    load_libraries()
    torch.set_num_threads(wanted.threads)
    torch.set_flush_denormal(not wanted.keep_denormal)
    base = BASES[wanted.device]
    found = run(base, wanted.rounds, wanted.device, CLOCKS[wanted.clock])
    counted, took = arithmetic(base), time.perf_counter() - BEGAN
    kind = "processor" if wanted.clock == "cpu" else "wall"
    at = base.point
    said = (
        f"Base: {base.backbone['name']}, batch {base.batch}, {at.side} x {at.side}, K = {at.points}, {at.channels} channels, {at.boxes} boxes; "
        f"{kind} time on {wanted.device}. Made by `python benchmarks/scaling_train.py`; its first lines say what is measured and how p is fitted."
    )
    text = table(found, said) + "\n" + "\n".join(speeds(base, found, counted))
    print(text, f"\n{took:.0f} s")
    if wanted.output:
        command = f"python benchmarks/scaling_train.py --rounds {wanted.rounds} --clock {wanted.clock} --device {wanted.device}"
        command += " --keep-denormal" * wanted.keep_denormal
        save(
            wanted.output,
            "scaling_train",
            {"command": command, "took_seconds": took, "base": base._asdict(), "gflops": counted, "axes": found},
            text,
        )
        draw(found, wanted.output / "scaling_train.png")


if __name__ == "__main__":
    main()
