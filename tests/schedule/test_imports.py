"""Each heavy library has one door: a study runs serially on a machine that has neither Ray nor MLflow."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
for name in ("ray", "mlflow"):
    sys.modules[name] = None  # importing it fails, as where it is not installed
import salt_lab.schedule.launch, salt_lab.schedule.executor, salt_lab.schedule.progress, salt_lab.schedule.ray_executor
assert "torch" not in sys.modules and "mmengine" not in sys.modules
from salt_lab.errors import UserError
try:
    salt_lab.schedule.ray_executor.RayExecutor().check()
except UserError as error:
    assert "--executor serial" in str(error), error
else:
    raise AssertionError("RayExecutor works without Ray")
"""


def test_scheduling_imports_neither_ray_nor_mlflow_nor_torch_and_says_what_to_do_without_ray():
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
