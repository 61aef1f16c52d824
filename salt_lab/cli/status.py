"""``salt-lab status``: how far a study is, from its journals alone; also while it runs elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import open_store, overrides_argument, read_study, show_table, store_option, study_argument

if TYPE_CHECKING:
    from salt_lab.cli.trials import Planned
    from salt_lab.record.store import Store


@click.command("status", short_help="Show how far a study's trials are.")
@study_argument
@overrides_argument
@store_option
def command(study: str, overrides: tuple[str, ...], store_root: Path | None) -> None:
    """Show state, epoch and latest AP of every trial of STUDY, and the reason and the log of each that failed."""
    from salt_lab.cli.trials import count_states, differing_keys, differing_values, planned_trials

    plan, store = read_study(study, overrides), open_store(store_root)
    trials = planned_trials(plan, store)
    keys = differing_keys(plan)
    rows = [
        [item.trial_id, *differing_values(item, keys), item.record.state, _epochs(item), _latest_ap(item), _age(item, store)]
        for item in trials
    ]
    show_table(["trial", *keys, "state", "epoch", "AP", "last sign"], rows)
    click.echo(f"{len(trials)} trials: " + ", ".join(f"{number} {state}" for state, number in count_states(trials).items()))
    for item in trials:
        if item.record.state in ("failed", "interrupted"):
            click.echo(
                f"{item.record.state} {item.trial_id}: {item.record.reason or 'no reason recorded'}; log: {log_file(store, item.trial_id)}"
            )


def log_file(store: Store, trial_id: str) -> Path:
    """Where the trial's training log is."""
    return store.trial_dir(trial_id) / "train.log"


def _epochs(item: Planned) -> str:
    return f"{max(item.record.epochs, default=0)}/{item.trial.schedule.epochs}"


def _latest_ap(item: Planned) -> str | None:
    evals = item.record.evals
    metrics = item.record.metrics or (evals[max(evals)].get("metrics", {}) if evals else {})
    value = metrics.get("AP")
    return None if value is None else f"{value:.1f}"


def _age(item: Planned, store: Store) -> str | None:
    """Time since the journal last grew, as people say it."""
    journal = store.trial_dir(item.trial_id) / "record.jsonl"
    if not journal.is_file():
        return None
    seconds = max(0.0, time.time() - journal.stat().st_mtime)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
