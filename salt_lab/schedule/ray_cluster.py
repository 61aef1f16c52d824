"""The connection to Ray: an embedded one of our own, the user's, or the one that a Ray job runs in; and what it has to offer."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import salt_lab
from salt_lab.errors import UserError
from salt_lab.schedule.interrupts import signals_as_interrupt

#: Set before ray is imported. Nothing is reported home; Tune writes no CSV and TensorBoard files beside our journal, leaves signals to us,
#: and leaves workers in the directory that a study's relative paths are relative to.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
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
        import ray.tune
    except ImportError as error:
        raise UserError(f"Ray cannot be imported ({error}). pip install 'ray[default,tune,train]', or use --executor serial.") from error
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
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

    def refuse_what_never_fits(self, cpus: float, gpus: float) -> None:
        """Ray waits for ever for resources that no node has: refuse such a request.

        Args:
            cpus: Cores that a trial asks for.
            gpus: GPUs that a trial asks for.

        Raises:
            UserError: No single node has that many.
        """
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in self.nodes):
            raise UserError(
                f"A trial asks for cpus_per_trial = {cpus:g} and gpus_per_trial = {gpus:g}, but the Ray cluster has {self.offer()}. "
                "Ask for less per trial, or set RAY_ADDRESS to a larger cluster."
            )


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


def probe(address: str) -> None:
    """Does anybody listen at ``host:port``? Ray itself tries for minutes. Other forms of address ("auto") are left to Ray.

    Raises:
        OSError: Nobody answers within :data:`PROBE_SECONDS`.
        ValueError: It is the address of the dashboard, which takes jobs (``ray job submit``) and no drivers.
    """
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme in ("http", "https"):
        raise ValueError("this is a dashboard's address, which takes submitted jobs: ray job submit --working-dir . -- salt-lab run STUDY")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
