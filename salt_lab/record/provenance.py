"""Where a number comes from: code, packages, machine. No host names, user names or absolute paths in it; it may be published."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import salt_lab
from salt_lab.record.training_code import training_code_version

PACKAGES = ("torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmdetection", "ray", "mlflow", "numpy", "pycocotools")
#: Files that git does not know yet and that can change a result all the same.
SOURCES = ("salt_lab/*.py", "experiments/*.py", "experiments/*.yaml", "experiments/*.yml")
GIT_SECONDS = 20
#: In a copy of the package that was sent somewhere without git: where the copy came from. See :func:`write_origin`.
ORIGIN = "_origin.json"
GIB = 2**30


def provenance() -> dict[str, Any]:
    """Code, packages and machine, as plain data.

    Returns:
        git_commit (None without git), git_dirty, diff_sha256 (of :func:`uncommitted_diff`; None when clean), code_version (12 hex digits over
        the package's sources, there also without git), training_code (12 hex digits over the code that decides a result, see
        :func:`~salt_lab.record.training_code.training_code_version`), packages (name -> version, None where absent),
        machine (see :func:`machine`), python.
    """
    commit = _commit() or _origin().get("git_commit")
    diff = uncommitted_diff() if commit else ""
    return {
        "git_commit": commit,
        "git_dirty": bool(diff) if commit else None,
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        "code_version": code_version(),
        "training_code": training_code_version(_package()),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": machine(),
        "python": platform.python_version(),
    }


@lru_cache(maxsize=1)
def loaded_code() -> tuple[dict[str, Any], str]:
    """:func:`provenance` and :func:`uncommitted_diff` as they were when this process first asked.

    A process trains with the code that it has loaded, however often the files change while it runs, and asks git once for all its trials.
    """
    found = provenance()
    return found, uncommitted_diff() if found["diff_sha256"] else ""


def uncommitted_diff() -> str:
    """A patch from the last commit to the files as they are, new source files included; ``git apply`` takes it. Empty without git.

    In an uploaded copy: the patch of the place that it came from.
    """
    if _commit() is None:
        return str(_origin().get("diff", ""))
    plain_diff = ("-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false", "diff", "--no-ext-diff", "--no-textconv", "--no-color")
    tracked = _git(*plain_diff, "--relative", "HEAD", "--", ".") or ""
    new = _git("ls-files", "-z", "--others", "--exclude-standard", "--", *SOURCES) or ""
    return tracked + "".join(_new_file_patch(name) for name in sorted(filter(None, new.split("\0"))))


def write_origin(package: Path) -> None:
    """Leave in ``package``, a copy of this package, the commit and the changes that it was made from; nothing where there is no git."""
    if commit := _commit():
        origin = {"code_version": code_version(), "git_commit": commit, "diff": uncommitted_diff()}
        (package / ORIGIN).write_text(json.dumps(origin), encoding="utf-8")


def code_version() -> str:
    """12 hex digits of sha256 over the package's Python sources, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(_package().rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_package()).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def machine() -> dict[str, Any]:
    """The kind of machine: host_kind (system and architecture), cpu (model), cores (that this process may use), gpu, memory_gb (GiB)."""
    return {
        "host_kind": f"{platform.system()}-{platform.machine()}".lower(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu_names(),
        "memory_gb": _memory_gb(),
    }


def _package() -> Path:
    return Path(salt_lab.__file__).resolve().parent


def _git(*words: str) -> str | None:
    """Output of a git command in the folder that holds the package; None where git, a repository or an answer is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_package().parent), *words],
            capture_output=True,
            timeout=GIT_SECONDS,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def _commit() -> str | None:
    """The commit; None also where the package only lies inside somebody else's repository (a virtual environment in it)."""
    if _git("ls-files", "--error-unmatch", "--", f"{_package().name}/__init__.py") is None:
        return None
    answer = _git("rev-parse", "--verify", "HEAD")
    return answer.strip() if answer else None


def _origin() -> dict[str, Any]:
    """What :func:`write_origin` left, unless the sources have been changed since."""
    try:
        origin = json.loads((_package() / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return origin if origin.get("code_version") == code_version() else {}


def _new_file_patch(name: str) -> str:
    try:
        text = (_package().parent / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n"
    if not text:
        return head
    lines = text.split("\n")
    end = "" if lines[-1] == "" else "\n\\ No newline at end of file"
    lines = lines[:-1] if lines[-1] == "" else lines
    return f"{head}--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n" + "\n".join(f"+{line}" for line in lines) + f"{end}\n"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float:
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = next(iter(_lines(Path("/sys/fs/cgroup/memory.max"))), "max")
    return round(min(total, float(limit) if limit.isdigit() else total) / GIB, 1)


def _gpu_names() -> str | None:
    """ "2x NVIDIA A100", or None. Asks torch only where it is loaded already, else the driver."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda"):
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    else:
        infos = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        names = [line.split(":", 1)[1].strip() for path in infos for line in _lines(path) if line.startswith("Model:")]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{count}x {name}" if count > 1 else name for name, count in counts.items()) or None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
