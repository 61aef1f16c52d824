"""What happened to a trial: the journal in a plain folder, and its delivery to MLflow.

Light on purpose: no torch, no MLflow. MLflow's one door is :mod:`salt_lab.record.mlflow_store`.
"""

from salt_lab.record.fold import COCO_NAMES, Record
from salt_lab.record.journal import Journal
from salt_lab.record.lock import TrialBusy
from salt_lab.record.recorder import FolderRecorder, MemoryRecorder, Recorder
from salt_lab.record.store import Store, default_store_root

__all__ = ["COCO_NAMES", "FolderRecorder", "Journal", "MemoryRecorder", "Record", "Recorder", "Store", "TrialBusy", "default_store_root"]
