"""What a calibration does in its own process: some real training steps, the largest batch there is, an evaluation; time and memory of each.

Started by :mod:`salt_lab.train.calibrate`: ``python -m salt_lab.train.measure FOLDER``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from salt_lab.train.largest import Largest, Picture, largest_batch
from salt_lab.train.memory import GIB, die_first, peak_rss_gb
from salt_lab.train.stopwatch import Clock, Enough, stopwatch, wait

#: What a CUDA context takes where it cannot be told from what other processes have on the device, GiB **(ours)**.
CONTEXT_GB = 0.6
#: More than this is no context: somebody else is on the device.
LARGEST_CONTEXT_GB = 1.5


def measure(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Build the order's trial as :mod:`salt_lab.train.session` does, run it for some seconds, and say what it took."""
    clock = Clock()
    from salt_lab.train import flops
    from salt_lab.train.libraries import load_libraries
    from salt_lab.train.trial import _set_threads

    _set_threads(order["threads"], order["device"])
    load_libraries()
    _once_per_process()
    import_s = clock.lap()
    config = _config(order, folder)
    setup_s = clock.lap()
    _use_decoded(config, order)
    clock.lap()
    runner = _built(config, folder)
    device = next(runner.model.parameters()).device
    context = context_gb(device)
    watch = stopwatch(order["budget_s"], device)
    runner.register_hook(watch)
    setup_s += clock.lap()
    flops.gflops(runner.model, *reversed(order["trial"]["schedule"]["image_size"]))  # the first trial of a cell does, the others know it
    import_s += clock.lap()
    _meet(folder, order)
    with contextlib.suppress(Enough):
        runner.train()
    if len(watch.seconds) < 1:
        raise RuntimeError("the data set gave no batch to time")
    largest = _largest_step(runner)
    evaluated = _evaluate(runner, device, order["budget_s"])
    answer = {
        "device": device.type,
        "step_seconds": median(watch.seconds),
        "steps": len(watch.seconds),
        "steps_per_epoch": len(runner.train_dataloader),
        "train_images": len(runner.train_dataloader.dataset),
        "val_images": len(runner.val_dataloader.dataset),
        "eval_image_seconds": evaluated,
        "setup_seconds": setup_s,
        "import_seconds": import_s,
        "largest": [largest.height, largest.width],
        "checkpoint_mb": _state_bytes(runner) / 2**20,
        **_memory(runner, device, order["workers"], context, {"stolen": watch.clock.stolen}),
    }
    _keep_busy(runner, folder, order)
    return answer


def _once_per_process() -> None:
    """What a warm worker has done before."""
    from salt_lab.train.runner import surroundings

    surroundings()


def _config(order: dict[str, Any], folder: Path) -> Any:
    from salt_lab.compose import compose
    from salt_lab.train.precision import check_precision
    from salt_lab.train.session import _loader_workers

    trial, data = _data(order)
    config = compose(trial, data, folder / "checkpoints", loader_workers=_loader_workers(), world_size=order["workers"])
    check_precision(config, "schedule.amp = true", "calibrate it on a GPU, or with schedule.amp=false")
    if "backbone" in config.model:
        config.model.backbone.init_cfg = None  # what a step costs does not depend on the weights: none are read or downloaded
    return config


def _use_decoded(config: Any, order: dict[str, Any]) -> None:
    """As a trial does. What the pictures take to decode is no trial's cost: it is done once for all."""
    from salt_lab.data import fingerprint
    from salt_lab.record.store import Store
    from salt_lab.train.loading import use_decoded

    trial, data = _data(order)
    use_decoded(config, data, lambda: fingerprint(trial.data), Store(order["store"]).data_dir)


def _data(order: dict[str, Any]) -> tuple[Any, Any]:
    from salt_lab.data import prepare
    from salt_lab.record.store import Store
    from salt_lab.spec.trial import Trial

    trial = Trial.model_validate(order["trial"])
    return trial, prepare(trial.data, Store(order["store"]).data_dir)


def _built(config: Any, folder: Path) -> Any:
    """The trial's runner, with a training loop that never comes to an epoch's evaluation or checkpoint."""
    from salt_lab.train.runner import build_runner

    config.train_cfg.update(max_epochs=10**6, val_interval=10**6)
    config.default_hooks.checkpoint = None
    return build_runner(config, f"calibration-{folder.name}", folder / "train.log")


def _largest_step(runner: Any) -> Largest:
    """Train on the largest batch, twice: the first time the optimiser's state may still be allocated."""
    loader = runner.train_dataloader
    largest = _largest_of(loader.dataset, runner, loader)
    batch = loader.collate_fn([loader.dataset[place] for place in largest.places])
    for _ in range(2):
        runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
    return largest


def _largest_of(dataset: Any, runner: Any, loader: Any) -> Largest:
    size = next(step.scale for step in dataset.pipeline.transforms if "Resize" in type(step).__name__)
    infos = (dataset.get_data_info(place) for place in range(len(dataset)))
    pictures = [Picture(info["height"], info["width"], len(info.get("instances", ()))) for info in infos]
    batch = loader.batch_size or loader.batch_sampler.batch_size
    return largest_batch(pictures, batch, size, getattr(runner.model.data_preprocessor, "pad_size_divisor", 1))


def _evaluate(runner: Any, device: Any, budget_s: float) -> float:
    """Seconds of an evaluated image, loading included: median over some batches, of which the first is not counted where there are more.

    An untrained model finds hardly anything above a score threshold, a trained one a lot: without threshold NMS has its work to do.
    """
    import torch

    _keep_all_boxes(runner.model)
    runner.model.eval()
    loader = runner.val_dataloader
    seconds: list[float] = []
    began, clock = time.perf_counter(), Clock()
    with torch.no_grad():
        for batch in loader:
            runner.model.val_step(batch)
            wait(device)
            seconds.append(clock.lap() / len(batch["inputs"]))
            if time.perf_counter() - began > budget_s / 2 and len(seconds) > 1:
                break
        largest = _largest_of(loader.dataset, runner, loader)
        runner.model.val_step(loader.collate_fn([loader.dataset[place] for place in largest.places]))
    runner.model.train()
    return median(seconds[1:] or seconds)


def _keep_all_boxes(model: Any) -> None:
    for part in ("bbox_head", "roi_head"):
        section = getattr(getattr(model, part, None), "test_cfg", None)
        if section is not None and "score_thr" in section:
            section.score_thr = 0.0


def context_gb(device: Any) -> float:
    """What the process takes of a GPU beside torch's tensors: measured where the device is its own, :data:`CONTEXT_GB` else; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    import torch

    free, total = torch.cuda.mem_get_info(device)
    rest = (total - free - torch.cuda.memory_reserved(device)) / GIB
    return rest if 0 < rest <= LARGEST_CONTEXT_GB else CONTEXT_GB


def _memory(runner: Any, device: Any, workers: int, context: float, more: dict[str, float]) -> dict[str, Any]:
    """``memory_gb`` of one worker and what it is made of. Several workers keep a second copy of the gradients in their buckets."""
    rss = peak_rss_gb() or 0.0
    trained = sum(p.numel() * p.element_size() for p in runner.model.parameters() if p.requires_grad)
    buckets = trained / GIB if workers > 1 else 0.0
    if device.type != "cuda":
        return {"memory_gb": rss + buckets, "details": {"rss_gb": rss, "buckets_gb": buckets, **more}}
    import torch

    allocated, reserved = torch.cuda.max_memory_allocated(device) / GIB, torch.cuda.max_memory_reserved(device) / GIB
    parts = {"allocated_gb": allocated, "reserved_gb": reserved, "context_gb": context, "buckets_gb": buckets, "rss_gb": rss}
    return {"memory_gb": reserved + context + buckets, "details": {**parts, **more}}


def _state_bytes(runner: Any) -> int:
    """Bytes of the tensors in a checkpoint: weights, buffers and the optimiser's state."""
    return sum(
        tensor.numel() * tensor.element_size() for tensor in _tensors([runner.model.state_dict(), runner.optim_wrapper.state_dict()])
    )


def _tensors(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _meet(folder: Path, order: dict[str, Any]) -> None:
    """Where several copies measure at once, they begin together."""
    if order["at_once"] > 1:
        (folder / "ready").touch()
        while not (folder.parent / "go").exists():
            time.sleep(0.02)


def _keep_busy(runner: Any, folder: Path, order: dict[str, Any]) -> None:
    """Where several copies measure at once, one that is through goes on working until the last one is."""
    if order["at_once"] > 1:
        (folder / "through").touch()
        loader = runner.train_dataloader
        batch = loader.collate_fn([loader.dataset[0]])
        while not (folder.parent / "enough").exists():
            runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)


def main(folder: Path) -> int:
    """The order in ``folder``; the answer goes there too."""
    die_first()
    order = json.loads((folder / "order.json").read_text())
    try:
        answer = {"ended": "ok", **measure(order, folder)}
    except Exception as error:
        text = " ".join(str(error).split())
        short = isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
        answer = {"ended": "out of memory" if short else f"{type(error).__name__}: {text[:300]}", "memory_gb": peak_rss_gb()}
    (folder / "answer.json").write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
