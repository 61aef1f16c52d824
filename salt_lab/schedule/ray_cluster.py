"""The connection to Ray: an embedded one of our own, the user's, or the one that a Ray job runs in; and what it has to offer."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import salt_lab
from salt_lab.errors import UserError
from salt_lab.schedule.interrupts import signals_as_interrupt
from salt_lab.spec.resources import Resources

#: Set before ray is imported: nothing is reported home, and a worker without a GPU of its own keeps the environment that it was given.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
#: Ray's store for passed objects, bytes: trials pass none, and its default is 30 % of the machine's memory.
OBJECT_STORE = 128 * 1024**2
PROBE_SECONDS = 5.0


def import_ray() -> Any:
    """Ray, imported quietly.

    Raises:
        UserError: It is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UserError(f"Ray cannot be imported ({error}). pip install 'ray[default]', or use --executor serial.") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def existing_address(address: str | None) -> str | None:
    """The cluster that is meant: ``address``, else RAY_ADDRESS (a Ray job has it set); None or "local" mean an embedded Ray."""
    chosen = address or os.environ.get("RAY_ADDRESS") or None
    return None if chosen == "local" else chosen


def package_path() -> str | None:
    """The folder that workers need on their path to import the package; None where it is installed (editable counts)."""
    try:
        importlib.metadata.distribution("salt-lab")
        return None
    except importlib.metadata.PackageNotFoundError:
        return str(Path(salt_lab.__file__).resolve().parent.parent)


@dataclass
class RayConnection:
    """A connection that is ours (``owned``: we opened it and close it) or that was open already."""

    ray: Any
    owned: bool
    embedded: bool
    nodes: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def open(cls, address: str | None) -> RayConnection:
        """Connect to the cluster meant by ``address`` (see :func:`existing_address`) or start an embedded one (about 4 s).

        Raises:
            UserError: The cluster does not answer.
        """
        ray = import_ray()
        target = existing_address(address)
        owned = not ray.is_initialized()
        if owned:
            with signals_as_interrupt():
                _init(ray, target)
            _hush()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return cls(ray, owned, embedded=target is None, nodes=nodes)

    def close(self) -> None:
        """Disconnect, and end the embedded Ray with all its workers (about 1.5 s). Somebody else's connection stays open."""
        if self.owned:
            self.ray.shutdown()

    def offer(self) -> str:
        """What the cluster has, in words: ``"1 node with 2 CPUs and 0 GPUs"``."""
        sizes = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in self.nodes]
        counts = {size: sizes.count(size) for size in dict.fromkeys(sizes)}
        return ", ".join(f"{n} node{'s' if n > 1 else ''} with {size}" for size, n in counts.items()) or "no nodes"

    def refuse_what_never_fits(self, resources: Resources) -> None:
        """Ray waits for ever for resources that it has not got: refuse such a request. Each worker must fit on one node.

        Args:
            resources: Of a trial; ``gpus`` settled.

        Raises:
            UserError: The nodes cannot hold a single trial.
        """
        if not teams_that_fit(self.nodes, resources):
            raise UserError(
                f"A trial asks for workers = {resources.workers}, cpus = {resources.cpus} for each, gpus = {resources.gpus:g}, but the Ray "
                f"cluster has {self.offer()}. Ask for less (resources in the study, or the options of salt-lab run), or set RAY_ADDRESS to a "
                "larger cluster."
            )


def teams_that_fit(nodes: Iterable[Mapping[str, float]], resources: Resources) -> int:
    """How many trials the nodes can hold at a time.

    >>> teams_that_fit([{"CPU": 8, "GPU": 2}, {"CPU": 8}], Resources(gpus=0.5))
    4
    >>> teams_that_fit([{"CPU": 4}, {"CPU": 4}], Resources(workers=3, gpus=0))
    2
    """
    return sum(workers_that_fit(node, resources) for node in nodes) // resources.workers


def workers_that_fit(node: Mapping[str, float], resources: Resources) -> int:
    """How many workers of a trial one node can hold."""
    by_cpu = int(node.get("CPU", 0) // resources.cpus)
    gpus = resources.gpus_per_worker or 0
    if not gpus:
        return by_cpu
    whole = int(node.get("GPU", 0))
    return min(by_cpu, whole * int(1 / gpus + 1e-9) if gpus < 1 else whole)


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _init(ray: Any, target: str | None) -> None:
    path = package_path()
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # the job's own runtime environment reaches its workers
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if path and not in_job:
        common["runtime_env"] = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))}}
    if target is None:
        # not 8265: a job submitted there is meant for the cluster that the user started, not for this study's own Ray
        ray.init(address="local", object_store_memory=OBJECT_STORE, dashboard_port=free_port(), **common)
        return
    try:
        probe(target)
        ray.init(address=target, **common)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        remedy = "Start one (ray start --head), correct RAY_ADDRESS or unset it for an embedded Ray, set RAY_AUTH_MODE=token for one with tokens."
        raise UserError(f"No Ray cluster can be used at '{target}': {reason}. {remedy}") from error


def _hush() -> None:
    """Ray's own paragraphs about lost workers stay off the terminal, where the study's progress is: the records say what became of trials."""
    worker: Any = importlib.import_module("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None


def probe(address: str) -> None:
    """Does anybody listen at ``host:port``? Ray itself tries for minutes. Other forms of address ("auto") are left to Ray.

    Raises:
        OSError: Nobody answers within :data:`PROBE_SECONDS`.
        ValueError: It is the address of the dashboard, which takes jobs (``ray job submit``) and no drivers.
    """
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme in ("http", "https"):
        raise ValueError(
            "this is a dashboard's address, which takes submitted jobs: salt-lab submit STUDY --address URL (or ray job submit)"
        )
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
