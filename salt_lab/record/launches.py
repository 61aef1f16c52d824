"""What is written down when a study is run: what was asked, of which trials, by which code."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_lab.record.provenance import provenance
from salt_lab.record.ray_job import ray_job_id

if TYPE_CHECKING:
    from salt_lab.spec.study import Study
    from salt_lab.spec.trial import Trial


def launch_content(
    study: Study,
    trial_ids: Sequence[str],
    trials: Sequence[Trial] | None,
    *,
    early_stop: Mapping[str, Any] | None,
    set_aside: Mapping[str, int] | None,
    reused: Mapping[str, Sequence[str]] | None,
) -> dict[str, Any]:
    """A new launch's file; the arguments are those of :meth:`salt_lab.record.store.Store.new_launch`.

    Raises:
        ValueError: the ids are not as many as the trials.
    """
    launch_id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    code = provenance()
    return {
        "launch_id": launch_id,
        "time": time.time(),
        "study": study.name,
        "question": study.question,
        "source": Path(study.source).name,
        "study_yaml": _text(Path(study.source)),
        **{key: code[key] for key in ("code_version", "training_code", "git_commit", "git_dirty", "diff_sha256")},
        "overrides": list(study.overrides),
        "ray_job_id": ray_job_id(),
        "retention": study.retention.recorded(),
        **({"early_stop": dict(early_stop)} if early_stop else {}),
        **({"set_aside": dict(set_aside)} if set_aside else {}),
        **({"reused_other_code": {trial_id: list(codes) for trial_id, codes in reused.items()}} if reused else {}),
        "trials": _launch_trials(study, trial_ids, study.trials() if trials is None else trials),
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _launch_trials(study: Study, trial_ids: Sequence[str], trials: Sequence[Trial]) -> list[dict[str, Any]]:
    if len(trials) != len(trial_ids):
        raise ValueError(f"study '{study.name}': {len(trial_ids)} ids for {len(trials)} trials; give 'trials' where it is not all of them")
    owner = {trial: cell for cell in study.cells for trial in cell.trials()}
    return [
        {
            "trial_id": trial_id,
            "name": f"{cell.name} seed={trial.seed}",
            "cell": cell.key,
            "baseline": cell.baseline,
            "seed": trial.seed,
            "label": cell.label,
        }
        for trial_id, trial, cell in ((trial_id, trial, owner[trial]) for trial_id, trial in zip(trial_ids, trials, strict=True))
    ]
