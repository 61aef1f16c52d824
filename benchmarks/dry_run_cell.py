"""One cell of a dry run on a CPU, in a process of its own: built, checked, trained for a step, evaluated; what it took in memory.

python benchmarks/dry_run_cell.py FOLDER        FOLDER/order.json in, FOLDER/answer.json out; benchmarks/dry_run.py does that
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Kept:
    """Counts what autograd keeps of one forward pass for the backward pass, parameters left out: bytes of distinct storages.

    Open from its making to the first backward pass. On a GPU the same tensors are kept, but for an operator that has a kernel of its own there.
    """

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.open = True

    def pack(self, tensor: Tensor) -> Tensor:
        """Called by autograd for each tensor that it keeps; kept tensors live to the backward pass, so no storage is counted twice."""
        if self.open and not (tensor.is_leaf and tensor.requires_grad):
            storage = tensor.untyped_storage()
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself, it would hold its own graph

    def unpack(self, tensor: Tensor) -> Tensor:
        """The backward pass has begun."""
        self.open = False
        return tensor

    @property
    def gib(self) -> float:
        """GiB."""
        return sum(self.sizes.values()) / 2**30


def measure(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Compose, build and check the order's trial, train a step on its first images, evaluate one image.

    GiB: ``kept_gb`` for the backward pass, an image; ``weights_gb`` of the model, ``trained_gb`` of what is trained; ``rss_gb`` of the process at
    its peak in the step and ``rss_before_gb`` before it. ``cpu_seconds`` of the step: what the processor worked, others' work not counted.
    """
    from salt_lab.spec.trial import Trial
    from salt_lab.train.effective import check_effective, effective
    from salt_lab.train.flops import gflops
    from salt_lab.train.memory import GIB, forget_peak, peak_rss_gb

    trial = Trial.model_validate(order["trial"])
    runner = built(trial, folder)
    found = effective(runner)
    check_effective(trial, found)
    longest, shortest = trial.schedule.image_size
    counted = gflops(runner.model, shortest, longest)
    batch = first_batch(runner.train_dataloader, order["images"])
    forget_peak()
    before = peak_rss_gb() or 0.0
    kept, began = Kept(), time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        losses = told(runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper))
    spent = time.process_time() - began
    check_losses(trial, losses)
    peak = peak_rss_gb() or 0.0
    trained = sum(p.numel() * p.element_size() for p in runner.model.parameters() if p.requires_grad) / GIB
    weights = sum(t.numel() * t.element_size() for t in runner.model.state_dict().values()) / GIB
    return {
        "heads": found.get("heads"),
        "losses": losses,
        "gflops": counted,
        "cpu_seconds": spent,
        "eval_cpu_seconds": evaluated(runner),
        "rss_gb": peak,
        "rss_before_gb": before,
        "kept_gb": kept.gib / order["images"],
        "weights_gb": weights,
        "trained_gb": trained,
    }


def built(trial: Any, folder: Path) -> Any:
    """The trial's runner as :mod:`salt_lab.train.session` builds it, without weights to read; it never comes to its own evaluation."""
    from salt_lab.compose import compose
    from salt_lab.data import prepare
    from salt_lab.train.libraries import load_libraries

    load_libraries()
    from salt_lab.train.runner import build_runner

    config = compose(trial, prepare(trial.data, folder), folder / "checkpoints", loader_workers=0)
    config.model.backbone.init_cfg = None  # shapes and memory do not depend on the weights
    runner = build_runner(config, f"dry-run-{folder.name}", folder / "train.log")
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner._init_model_weights()
    return runner


def first_batch(loader: Any, images: int) -> Any:
    """The first ``images`` of the loader's data set, as it would hand them over."""
    return loader.collate_fn([loader.dataset[place] for place in range(images)])


def told(losses: Any) -> dict[str, float]:
    """The losses of a step as plain numbers."""
    return {name: float(value.detach()) if isinstance(value, Tensor) else float(value) for name, value in losses.items()}


def check_losses(trial: Any, losses: dict[str, float]) -> None:
    """Every added loss is there, and all are numbers.

    Raises:
        RuntimeError: names those that are not.
    """
    from salt_lab.train.session import expected_losses

    if missing := sorted(name for name in expected_losses(trial) if name not in losses):
        raise RuntimeError(f"losses are missing: {', '.join(missing)}")
    if wrong := sorted(name for name, value in losses.items() if not math.isfinite(value)):
        raise RuntimeError(f"no finite numbers: {', '.join(wrong)}")


def evaluated(runner: Any) -> float:
    """The processor's seconds for one evaluated image with the weights after the step, post-processing included, no score being too low for it."""
    from salt_lab.train.measure import _keep_all_boxes

    _keep_all_boxes(runner.model)
    runner.model.eval()
    batch = first_batch(runner.val_dataloader, 1)
    began = time.process_time()
    with torch.no_grad():
        runner.model.val_step(batch)
    return time.process_time() - began


def main(folder: Path) -> int:
    """The order in ``folder``; the answer goes there too."""
    from salt_lab.train.memory import die_first

    die_first()
    order = json.loads((folder / "order.json").read_text())
    try:
        answer = {"ended": "ok", **measure(order, folder)}
    except Exception as error:  # that is what a dry run is for
        answer = {"ended": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    (folder / "answer.json").write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
