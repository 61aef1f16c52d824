"""Several trials in one process, each as in a process of its own: what one leaves behind is put back before the next **(ours)**.

Imports and the CUDA context stay, which is what a warm worker is for. Everything else that a training changes outside its own objects goes
back to what it was: mmengine's named singletons, torch's settings and generators, the environment, signal handlers, loader processes.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from salt_lab.train.memory import forget_peak

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@contextlib.contextmanager
def as_in_a_fresh_process() -> Iterator[None]:
    """What runs inside starts with the process as it is now and peaks of memory at zero, and leaves the process so.

    Libraries that are imported inside stay imported; import them before, so that their settings are known too.
    """
    put_back = [_environment(), _folder(), _signals(), _torch(), _where_mmengine_computes()]
    forget_peak()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        _end_loaders()
        _forget_singletons()
        for each in put_back:
            each()
        _give_memory_back()


def _environment() -> Callable[[], None]:
    before = dict(os.environ)

    def put_back() -> None:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})

    return put_back


def _folder() -> Callable[[], None]:
    before = os.getcwd()
    return lambda: os.chdir(before)


def _signals() -> Callable[[], None]:
    """Only the main thread may set handlers, so elsewhere none has been changed."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def put_back() -> None:
        with contextlib.suppress(ValueError):
            for number, handler in before.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)

    return put_back


def _torch() -> Callable[[], None]:
    """Its settings and the state of its generators; those of Python and numpy are random in a fresh process, and every trial seeds them."""
    torch = sys.modules.get("torch")
    if torch is None:
        return lambda: None
    flags: list[tuple[Any, str]] = [(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")]
    flags.append((torch.backends.cuda.matmul, "allow_tf32"))
    values = [getattr(owner, name) for owner, name in flags]
    settings: list[tuple[Callable[..., Any], Callable[[], Any]]] = [
        (torch.set_default_dtype, torch.get_default_dtype),
        (torch.set_num_threads, torch.get_num_threads),
        (torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled),
        (torch.set_grad_enabled, torch.is_grad_enabled),
    ]
    were = [get() for _, get in settings]
    drawn = torch.get_rng_state()

    def put_back() -> None:
        for (owner, name), value in zip(flags, values, strict=True):
            setattr(owner, name, value)
        for (put, get), value in zip(settings, were, strict=True):
            if get() != value:  # the setters cost: that of determinism imports torch's compiler
                put(value)
        torch.set_rng_state(drawn)

    return put_back


def _where_mmengine_computes() -> Callable[[], None]:
    """A trial that leaves the GPU alone says so to mmengine, for the whole process."""
    where: Any = sys.modules.get("mmengine.device.utils")
    before = getattr(where, "DEVICE", None)

    def put_back() -> None:
        if where is not None:
            where.DEVICE = before

    return put_back


def _end_loaders() -> None:
    """Loader processes of a training that ended amid an epoch."""
    for process in multiprocessing.active_children():
        process.terminate()
        process.join(2.0)
        if process.is_alive():
            process.kill()


def _forget_singletons() -> None:
    """mmengine's loggers, message hubs, visualizers and scopes live by name for as long as the process; their log files are closed."""
    manager: Any = sys.modules.get("mmengine.utils.manager")
    if manager is None:
        return
    classes = list(manager.ManagerMixin.__subclasses__())
    for one in classes:
        classes.extend(one.__subclasses__())
        instances = one.__dict__.get("_instance_dict", {})
        for instance in instances.values():
            for handler in getattr(instance, "handlers", ()):
                handler.close()
        instances.clear()


def _give_memory_back() -> None:
    """Models hold themselves in cycles, so the collector has to run before the GPU's memory is free for others on it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()
