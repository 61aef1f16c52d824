"""What ``salt-lab doctor`` looks at: each check returns findings as plain data; :mod:`salt_lab.cli.doctor` prints them.

Nothing here fails because something is missing: a missing thing is a finding, with its remedy.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from salt_lab.errors import SaltLabError

if TYPE_CHECKING:
    from salt_lab.record.store import Store

GIB = 2**30
#: module -> (distributions that may bring it, required?, what it is for, how to get it)
PACKAGES: dict[str, tuple[tuple[str, ...], bool, str, str]] = {
    "torch": (("torch",), True, "models and training", "make install, or pip install the torch line of constraints.txt, before the rest"),
    "mmengine": (("onedl-mmengine", "mmengine"), True, "runner and configs", "pip install onedl-mmengine"),
    "mmcv": (("onedl-mmcv", "mmcv", "mmcv-full"), True, "transforms and ops", "pip install onedl-mmcv"),
    "mmdet": (("onedl-mmdetection", "mmdet"), True, "hosts", "pip install onedl-mmdetection"),
    "pycocotools": (("pycocotools",), True, "COCO files", "pip install pycocotools"),
    "pandas": (("pandas",), True, "tables", "pip install pandas"),
    "matplotlib": (("matplotlib",), True, "figures", "pip install matplotlib"),
    "cv2": (("opencv-python-headless", "opencv-python"), True, "images", "pip install opencv-python-headless"),
    "ray": (("ray",), False, "several trials at a time", "pip install 'ray[default]'; until then: run --executor serial"),
    "mlflow": (
        ("mlflow", "mlflow-skinny"),
        False,
        "experiment records and their UI",
        "pip install mlflow; until then run writes folders, salt-lab sync delivers",
    ),
    "psutil": (("psutil",), False, "MLflow's system metrics", "pip install psutil"),
    "hotcoco": (("hotcoco",), False, "fastest COCO evaluator", "pip install hotcoco"),
    "faster_coco_eval": (("faster-coco-eval",), False, "fast COCO evaluator", "pip install faster-coco-eval"),
    "torchvision": (
        ("torchvision",),
        False,
        "fast NMS where mmcv has no compiled ops",
        "optional: without it OpenCV's or our own NMS is used",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        group: heading: "packages", "devices", "ops", "results folder".
        name: what was looked at.
        value: what was found, for people.
        ok: false where it is missing or unusable.
        required: can the lab not train without it?
        remedy: what it would take; empty where nothing is to be done.
    """

    group: str
    name: str
    value: str
    ok: bool = True
    required: bool = False
    remedy: str = ""


def package_findings() -> list[Finding]:
    """Python and each package's version, without importing any of them."""
    python_ok = sys.version_info >= (3, 10)
    findings = [
        Finding(
            "packages",
            "python",
            f"{platform.python_version()} ({sys.executable})",
            python_ok,
            True,
            "" if python_ok else "use Python 3.10-3.12",
        )
    ]
    for module, (distributions, required, purpose, remedy) in PACKAGES.items():
        version = _version(module, distributions)
        value = version or f"missing ({purpose})"
        findings.append(Finding("packages", module, value, version is not None, required, "" if version else remedy))
    return findings


def _version(module: str, distributions: tuple[str, ...]) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    for name in distributions:
        try:
            return f"{metadata.version(name)}" + ("" if name == module else f" ({name})")
        except metadata.PackageNotFoundError:
            continue
    return "present, version unknown"


def device_findings() -> list[Finding]:
    """CPU cores that this process may use, memory, and GPUs as torch sees them."""
    findings = [Finding("devices", "CPU cores", f"{usable_cores():g} usable of {os.cpu_count()} ({platform.machine()})")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    findings.append(Finding("devices", "memory", f"{memory:.1f} GiB"))
    if importlib.util.find_spec("torch") is None:
        return [*findings, Finding("devices", "GPUs", "unknown without torch", False)]
    import torch

    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        findings.append(Finding("devices", f"GPU {i}", f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB"))
    if not torch.cuda.device_count():
        build = f"torch {torch.__version__}" + (f" for CUDA {torch.version.cuda}" if torch.version.cuda else " without CUDA")
        findings.append(Finding("devices", "GPUs", f"none ({build}): trials train on the CPU"))
    return findings


def usable_cores() -> float:
    """CPU cores that this process may use: its affinity, cut by the container's quota."""
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return cores


def op_findings() -> list[Finding]:
    """Which implementation each tensor operation uses here."""
    from salt_lab.ops.backends import MISSING, OTHERS, backends

    findings = []
    for row in backends():
        missing = row.backend == MISSING
        text = row.backend if missing or not row.note else f"{row.backend}: {row.note}"
        findings.append(Finding("ops", row.op, text, not missing, row.op != OTHERS, row.note if missing else ""))
    return findings


def store_findings(root: Path, mlflow_uri: str | None) -> list[Finding]:
    """Is the results folder writable, how much space is left, is MLflow reachable? Creates no folder."""
    from salt_lab.record.store import Store

    store, parent = Store(root), _nearest_parent(root)
    try:
        if root.exists():
            store.check_writable()
        writable = root.exists() or (parent.is_dir() and os.access(parent, os.W_OK))
        state = f"{root}, writable" if root.exists() else f"{root}, would be created"
        findings = [_store_finding(state if writable else f"{root} cannot be created in {parent}", writable)]
    except SaltLabError as error:
        findings = [_store_finding(str(error), False)]
    if parent.is_dir():
        free = shutil.disk_usage(parent).free
        findings.append(
            Finding(
                "results folder", "disk space", f"{free / GIB:.1f} GiB free", free > GIB, False, "" if free > GIB else "free at least 1 GiB"
            )
        )
    return [*findings, _mlflow_finding(store, mlflow_uri)]


def _store_finding(text: str, ok: bool) -> Finding:
    return Finding("results folder", "folder", text, ok, True, "" if ok else "choose another with --store or $SALT_LAB_STORE")


def _nearest_parent(path: Path) -> Path:
    return next((folder for folder in [path.absolute(), *path.absolute().parents] if folder.exists()), Path("/"))


def _mlflow_finding(store: Store, mlflow_uri: str | None) -> Finding:
    from salt_lab.record.tracking import check_server, public, tracking_uri

    if importlib.util.find_spec("mlflow") is None:
        return Finding(
            "results folder",
            "MLflow",
            "not installed: records stay in the folder",
            False,
            False,
            "pip install mlflow, then salt-lab sync FOLDER",
        )
    uri = mlflow_uri or tracking_uri(store)
    try:
        check_server(uri)
    except SaltLabError as error:
        return Finding("results folder", "MLflow", str(error), False, False, "start the server, or unset MLFLOW_TRACKING_URI")
    return Finding("results folder", "MLflow", public(uri))
