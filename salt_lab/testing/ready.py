"""Imports all that a worker of :mod:`salt_lab.testing.workers` needs. Their fork server imports this once, so that each starts at once."""

import torch._dynamo  # noqa: F401  (DistributedDataParallel imports it when the first model is wrapped)

import salt_lab.compose
import salt_lab.testing.workers  # noqa: F401
from salt_lab.train.libraries import load_libraries

load_libraries()
