"""The record room starts in no time: MLflow, torch and the rest stay where they are."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("mlflow", "torch", "ray", "mmengine", "pandas", "numpy", "sqlalchemy")


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_record_room_imports_nothing_heavy():
    assert modules_after("import salt_lab.record, salt_lab.record.provenance") == set()


def test_choosing_and_checking_an_mlflow_server_does_not_import_mlflow(tmp_path):
    code = "from salt_lab.record import Store\nfrom salt_lab.record.mlflow_store import tracking_uri, check_server\n"
    assert modules_after(code + f"check_server(tracking_uri(Store({str(tmp_path)!r})))") == set()


def test_recording_a_trial_imports_nothing_heavy(tmp_path):
    code = f"from salt_lab.record import *\nfrom salt_lab.record.provenance import provenance\nr = FolderRecorder(Store({str(tmp_path)!r}), 'a')\n"
    assert modules_after(code + "r.start(trial={}, study='s', launch_id='l', data_fingerprint='d', provenance=provenance())") == set()
