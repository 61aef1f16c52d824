"""How a study is shown in MLflow's own UI: names for people, and a saved view with the columns that matter. Pure: no MLflow, no disk."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: MLflow finds a saved view under this tag of the experiment; what follows the last dot is the key in its link.
VIEW_KEY = "salt-lab"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
#: Opens an experiment on its training runs, not on the pages for chat programs.
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
#: Metrics that the view shows: AP and what it gains first, then what it costs.
METRICS = ("AP", "delta_AP", "gflops")
_DEFLATED = "deflate;"


def run_name(trial: Mapping[str, Any], name: str) -> str:
    """``host=atss salt=on points=5 seed=0`` as a person says it: ``atss + SALT, points=5, seed 0``. A name from the study's file stays.

    Args:
        trial: the trial's fields.
        name: its name in the launch, ``<cell> seed=<seed>``.
    """
    cell, _, seed = name.rpartition(" seed=")
    if not seed.isdigit():
        return name
    words = cell.split(" ")
    if not all("=" in word for word in words):
        return f"{cell}, seed {seed}"
    rest = [word for word in words if word.split("=")[0] not in ("host", "salt")]
    salt = " + SALT" if (trial.get("salt") or {}).get("enabled") else ""
    return ", ".join([f"{trial.get('host', 'trial')}{salt}", *rest, f"seed {seed}"])


def toggles(labels: Iterable[Mapping[str, Any]]) -> list[str]:
    """The parameters that tell a study's runs apart, host and SALT first, the seed last."""
    found = dict.fromkeys(["host", "salt.enabled"])
    for label in labels:
        found |= dict.fromkeys(label)
    return [*(key for key in found if key != "seed"), "seed"]


def experiment_tags(question: str, keys: Sequence[str], now_ms: int) -> dict[str, str]:
    """Tags that make MLflow open the study on its runs, with its question, and with a saved view "toggles, AP and delta".

    Args:
        question: shown as the experiment's description.
        keys: the parameters of the view's columns, see :func:`toggles`.
        now_ms: when the view was made, unix milliseconds; MLflow orders views by it.
    """
    view = {"name": "toggles, AP and delta", "createdAt": now_ms, "updatedAt": now_ms, "state": _packed(view_state(keys))}
    return {KIND_TAG: KIND, "mlflow.note.content": question[:8000], VIEW_TAG: json.dumps(view)}


def view_state(keys: Sequence[str]) -> dict[str, Any]:
    """What MLflow's run table remembers of itself: trials only, in a flat list by name, these columns. Sorted by anything but the date, it
    does not fold the trials under their launches."""
    columns = [f"params.`{key}`" for key in keys] + [f"metrics.`{name}`" for name in METRICS]
    return {
        "searchFilter": "tags.`salt_lab.kind` = 'trial'",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "SHOWALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "compareRunSections": [{"uuid": VIEW_KEY, "name": "toggles and AP", "display": True, "isReordered": True}],
        "compareRunCharts": _charts(keys),
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _charts(keys: Sequence[str]) -> list[dict[str, Any]]:
    """Beside MLflow's own curves: parallel coordinates over the toggles to AP, and bars of AP and of the gain."""
    common = {"runsCountToCompare": 100, "metricSectionId": VIEW_KEY, "deleted": False, "isGenerated": False}
    toggles = {"selectedParams": [key for key in keys if key != "seed"], "selectedMetrics": ["AP"], "showAllRuns": True}
    parallel = {"uuid": f"{VIEW_KEY}-toggles", "type": "PARALLEL", **toggles, **common}
    bars = [{"uuid": f"{VIEW_KEY}-{name}", "type": "BAR", "metricKey": name, **common} for name in ("AP", "delta_AP")]
    return [parallel, *bars]


def state_of(tag: str) -> dict[str, Any] | None:
    """The view in a tag's text; None where it cannot be read."""
    try:
        packed = json.loads(tag)["state"]
        state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed.removeprefix(_DEFLATED))))
        return state
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return None


def _packed(state: Mapping[str, Any]) -> str:
    return _DEFLATED + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
