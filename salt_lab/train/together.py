"""One task on several workers of this machine: torchrun with a free port of its own, over NCCL on GPUs and over gloo without."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import salt_lab.errors as errors
from salt_lab.errors import SaltLabError, TrialFailed, UserError


def in_worker() -> bool:
    """Is this process one of torchrun's? Ours, or those of a torchrun that the user started over several machines."""
    return "LOCAL_RANK" in os.environ


def is_first() -> bool:
    """Is this the process that speaks for all: the only one, or the worker of rank 0?"""
    return os.environ.get("RANK", "0") == "0"


def run_together(task: str, arguments: Mapping[str, Any], workers: int, doing: str) -> Any:
    """Call a function in each of several workers, and return what the one of rank 0 returned.

    Args:
        task: ``module:function``; the function joins its worker to the group (:func:`join_workers`).
        arguments: its keyword arguments; they and its result must fit into JSON.
        workers: how many; one GPU each where there are GPUs.
        doing: "training", for the error message.

    Raises:
        UserError: this machine has too few GPUs.
        SaltLabError: the one that a worker raised.
        TrialFailed: the workers ended otherwise than well; their traceback stands above it.
    """
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() < workers:
        raise UserError(f"--gpus {workers}: this machine has {torch.cuda.device_count()}; ask for at most that many")
    with tempfile.TemporaryDirectory(prefix="salt-lab-") as folder:
        (Path(folder) / "task.json").write_text(json.dumps({"task": task, "arguments": dict(arguments)}))
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        code = subprocess.run([*torchrun, "-m", "salt_lab.train.together", folder], check=False).returncode
        answer = Path(folder) / "answer.json"
        for failure in sorted(Path(folder).glob("error-*.json")):
            kind, text = json.loads(failure.read_text())
            raise getattr(errors, kind, TrialFailed)(text)
        if code or not answer.is_file():
            raise TrialFailed(f"{doing} on {workers} workers ended with exit code {code}; see the traceback above")
        return json.loads(answer.read_text())


def share_out(settings: Any) -> None:
    """Make a config's Runner one of the workers of the group that this process has joined; without a group it trains alone.

    mmengine's own wrapping asks for ``LOCAL_RANK`` and a GPU; batch norm's statistics stay each worker's own, as in mmdet.
    """
    import torch
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        device = [torch.cuda.current_device()] if dist.get_backend() == "nccl" else None
        settings.launcher = "pytorch"
        settings.model_wrapper_cfg = dict(
            type="MMDistributedDataParallel", device_ids=device, broadcast_buffers=False, find_unused_parameters=False
        )


def join_workers(settings: Any) -> None:
    """Make a config's Runner join the other workers, if this process is one.

    mmengine sets a CUDA device on joining a group and on wrapping the model; without CUDA both are done here, over gloo.
    """
    import torch

    settings.launcher = "pytorch" if in_worker() else "none"
    if in_worker() and not torch.cuda.is_available():
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        settings.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)


def main(folder: Path) -> int:
    """What torchrun starts: the task in ``folder``; the answer, or an error of the lab's own words, goes there too."""
    order = json.loads((folder / "task.json").read_text())
    module, _, function = order["task"].partition(":")
    try:
        answer = getattr(importlib.import_module(module), function)(**order["arguments"])
    except SaltLabError as error:
        (folder / f"error-{os.environ['RANK']}.json").write_text(json.dumps([type(error).__name__, str(error)]))
        return error.exit_code
    if is_first():
        (folder / "answer.json").write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
