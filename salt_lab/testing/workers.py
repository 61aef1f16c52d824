"""Several workers against one process: the same images, shared out and seen together, through the same model.

What must agree is said once, here: with ``W`` workers of equal shares, the mean over workers of a loss, and the gradients that
DistributedDataParallel averages, are those of one process with all the images. That needs every normaliser to be the mean over workers,
batch norm to be frozen (group norm sees one image at a time), and each worker to reach every parameter, positives or not.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from salt_lab.testing.host_contract import CLASSES, batch, build, one, small, total

ADDED = ("loss_coarse", "loss_sdr")
#: boxes of each image of a batch: image -> boxes -> x1 y1 x2 y2
Boxes = list[list[list[float]]]


class Seen(NamedTuple):
    """What one process found on its images; gradients are already averaged over the workers."""

    losses: dict[str, float]  #: each summed over levels
    gradient: dict[str, Tensor]  #: of the sum of all losses
    added_gradient: dict[str, Tensor]  #: of the losses that SALT adds alone


def comparable_model(host: str, spread: float = 0.05, class_bias: float = 0.0) -> Any:
    """A small SALT model whose every part is at work: frozen batch norm, the head's weights moved off their start by noise.

    Args:
        host: SALT host.
        spread: width of the noise.
        class_bias: of the class predictor; 0 is a probability of 0.5, so that hosts that weigh boxes by their score are far above their
            normaliser's floor.
    """
    trial = small(host, enabled=True)
    frozen = trial.model_copy(update={"backbone": trial.backbone.model_copy(update={"batch_norm": "frozen"})})
    model = build(frozen)
    noise = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for p in model.bbox_head.parameters():
            if p.shape == (CLASSES,):
                p.fill_(class_bias)
            p.add_(spread * torch.randn(p.shape, generator=noise))
    return model


def alone(model: Any, boxes: Boxes, images: slice = slice(None)) -> Seen:
    """One process with all the images of a batch, or with some of them."""
    return _look(model, model, boxes, images, lambda gradient: gradient)


def together(host: str, batches: Sequence[Boxes], workers: int = 2, seconds: float = 60, **model: Any) -> list[list[Seen]]:
    """What gloo workers find when each takes an equal share of the images.

    Args:
        host: SALT host; ``model`` goes to :func:`comparable_model`.
        batches: one after the other, so that a reduction left open by one stops the next.
        workers: processes; started from a server that has imported everything once.
        seconds: after this long without an end the workers count as hanging.

    Returns:
        Batch -> worker -> what it found.

    Raises:
        torch.multiprocessing.ProcessRaisedException: a worker failed; the text is its traceback.
        TimeoutError: they hang.
    """
    import multiprocessing

    multiprocessing.set_forkserver_preload(["salt_lab.testing.ready"])
    with tempfile.TemporaryDirectory() as folder:
        work = (folder, workers, host, list(batches), seconds, model)
        context = torch.multiprocessing.start_processes(_work, work, nprocs=workers, join=False, start_method="forkserver")
        deadline = time.monotonic() + seconds
        while not context.join(timeout=1, grace_period=2):
            if time.monotonic() > deadline:
                for process in context.processes:
                    process.kill()
                raise TimeoutError(f"{workers} workers on {host} did not come to an end in {seconds:.0f} s")
        found = [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(workers)]
    return [[Seen(*seen) for seen in ranks] for ranks in zip(*found, strict=True)]


def _work(rank: int, folder: str, workers: int, host: str, batches: list[Boxes], seconds: float, options: dict[str, Any]) -> None:
    """One worker, in a process of its own."""
    torch.set_num_threads(1)
    with _group(rank, workers, folder, seconds):
        model = comparable_model(host, **options)
        wrapped = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=False)
        found = []
        for boxes in batches:
            share = len(boxes) // workers
            found.append(tuple(_look(model, wrapped, boxes, slice(rank * share, (rank + 1) * share), _averaged)))
    torch.save(found, Path(folder) / f"{rank}.pt")


@contextlib.contextmanager
def _group(rank: int, workers: int, folder: str, seconds: float) -> Iterator[None]:
    """A gloo group that meets in a file: no port to collide on."""
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", meeting, timedelta(seconds=seconds / 2), workers, rank)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _averaged(gradient: Tensor) -> Tensor:
    torch.distributed.all_reduce(gradient)
    return gradient / torch.distributed.get_world_size()


def _look(model: Any, wrapped: Any, boxes: Boxes, images: slice, average: Any) -> Seen:
    """Losses and gradients of ``images`` of a batch. The gradient of all losses goes through ``wrapped``, as in training."""
    pixels, samples = batch(boxes)
    pixels, samples = pixels[images], samples[images]
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    losses = wrapped(pixels, samples, mode="loss")
    added = sum(losses[name] for name in ADDED)
    # autograd.grad goes round DistributedDataParallel: the part is averaged by hand, the whole by it
    parts = torch.autograd.grad(added, list(learning.values()), allow_unused=True, retain_graph=True)
    split = {name: average(torch.zeros_like(p) if part is None else part) for (name, p), part in zip(learning.items(), parts, strict=True)}
    total(losses).backward()
    whole = {name: p.grad.clone() for name, p in learning.items()}
    return Seen({name: one(value) for name, value in losses.items()}, whole, split)


def difference(gradient: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Norm of the difference of two gradients over the norm of the second; 0 where both are 0."""
    apart = float(torch.stack([(gradient[name] - other[name]).double().norm() for name in other]).norm())
    size = float(torch.stack([value.double().norm() for value in other.values()]).norm())
    return apart / size if size else apart
