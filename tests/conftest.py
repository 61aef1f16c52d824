"""What every test stands on: one thread per process, no settings of the user's own, and the folder of shared material where it is.

The environment is set when this file is read, before any test imports torch, ray or mlflow, so that child processes get it too.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[1]

#: Several pytest workers share the machine's cores; two thread pools in one core make each other slow.
_SET = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The first embedded Ray of a process turns tokens on for good (and would leave one in the home folder); a cluster started after it in the
    # same process must agree, so all of them do from the start.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MPLBACKEND": "Agg",
}
#: A user's own results, servers and clusters are none of a test's business.
_UNSET = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "SALT_LAB_STORE",
    "RAY_ADDRESS",
    "RAY_JOB_ID",
    "RAY_AUTH_TOKEN_PATH",
)

os.environ.update(_SET)
for _name in _UNSET:
    os.environ.pop(_name, None)


#: A shell's `command &` (and some CI) starts us with SIGINT ignored, and children inherit that; the tests of Ctrl-C want it as at a prompt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """A script of the repository, which is in no package, as a module: ``script("benchmarks/flops.py")``."""

    def load(path: str) -> ModuleType:
        file = REPOSITORY / path
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(file.parent)  # as Python does for a script
            spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository with the oracle's numbers and real data; the test is skipped where there is none.

    ``SALT_LAB_SHARED`` names another place.
    """
    folder = Path(os.environ.get("SALT_LAB_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no ../shared beside the repository (set SALT_LAB_SHARED to its path)")
    return folder
