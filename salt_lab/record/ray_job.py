"""Is this process part of a submitted Ray job, and of which? Asked of the environment alone; Ray is not imported."""

from __future__ import annotations

import json
import os
from pathlib import Path


def ray_job_id() -> str | None:
    """The submission id of the Ray job whose command this process runs (``ray job list`` names it); None outside one.

    Ray hands a job's command its metadata in ``RAY_JOB_CONFIG_JSON_ENV_VAR`` (measured with Ray 2.60).
    """
    try:
        config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
        found = (config.get("metadata") or {}).get("job_submission_id")
    except (ValueError, AttributeError):
        return None
    return str(found) if found else None


def in_ray_job() -> bool:
    """Does this process run on a copy of a working directory that Ray throws away?"""
    return ray_job_id() is not None or "RAY_JOB_ID" in os.environ or "runtime_resources" in Path.cwd().parts
