"""Which trial of a study is compared with which: each trial of a variant with the one of its baseline that has the same seed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from salt_lab.errors import SaltLabError


def baselines(launches: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Trial id of a variant -> trial id of its baseline with the same seed, over all launches of a study. Empty where nothing is compared."""
    launches = list(launches)
    trials = [trial for launch in launches for trial in launch["trials"]]
    at = {(trial.get("cell"), trial.get("seed")): trial["trial_id"] for trial in trials}
    compared: dict[str, str] = {}
    for launch in launches:
        compared |= _compared_cells(launch)
    wanted = ((trial["trial_id"], (compared[trial["cell"]], trial["seed"])) for trial in trials if trial.get("cell") in compared)
    return {variant: at[place] for variant, place in wanted if at.get(place, variant) != variant}


def _compared_cells(launch: Mapping[str, Any]) -> dict[str, str]:
    """Cell key -> the baseline's. Launches from before it was written down have their study file's text."""
    if any("baseline" in trial for trial in launch["trials"]):
        return {trial["cell"]: trial["baseline"] for trial in launch["trials"] if trial.get("baseline")}
    if not launch.get("study_yaml") or "compare" not in launch["study_yaml"]:
        return {}
    from salt_lab.spec.study import load_study

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(launch["study_yaml"], encoding="utf-8")
        try:
            cells = load_study(path, launch.get("overrides") or ()).cells
        except SaltLabError:  # a path of another machine, a rule of another version: then nothing is said
            return {}
    return {cell.key: cell.baseline for cell in cells if cell.baseline}
