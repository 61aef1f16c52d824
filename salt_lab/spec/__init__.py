"""WHAT to run: trials and studies as plain data, read from YAML and checked. No torch, no ray, no mlflow."""

from salt_lab.spec.schema import study_schema
from salt_lab.spec.study import Cell, Compare, Study, load_study
from salt_lab.spec.trial import (
    BACKBONES,
    COARSE_WEIGHTS,
    HEAD_CONVS,
    HOSTS,
    SCHEDULES,
    Backbone,
    CocoData,
    EmbeddedData,
    SaltToggles,
    Schedule,
    Trial,
    active,
    canonical,
    digest,
    flatten,
    trial_id,
    unflatten,
)

__all__ = [
    "BACKBONES",
    "COARSE_WEIGHTS",
    "HEAD_CONVS",
    "HOSTS",
    "SCHEDULES",
    "Backbone",
    "Cell",
    "CocoData",
    "Compare",
    "EmbeddedData",
    "SaltToggles",
    "Schedule",
    "Study",
    "Trial",
    "active",
    "canonical",
    "digest",
    "flatten",
    "load_study",
    "study_schema",
    "trial_id",
    "unflatten",
]
