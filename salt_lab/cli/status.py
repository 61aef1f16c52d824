"""``salt-lab status``: how far a study is, from its journals alone; also while it runs elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import open_store, overrides_argument, read_study, show_table, store_option
from salt_lab.cli.submit import address_option

if TYPE_CHECKING:
    from salt_lab.cli.trials import Planned
    from salt_lab.record.store import Store
    from salt_lab.spec.study import Study


@click.command("status", short_help="Show how far a study's trials are.")
@click.argument("study", metavar="STUDY", required=False)
@overrides_argument
@store_option
@click.option("--job", "job_id", metavar="ID", help="Instead of STUDY: the study of a submitted job.")
@address_option
@click.option("--follow", "follow_log", is_flag=True, help="With --job and --address: follow the job's log; leave with its exit code.")
def command(
    study: str | None, overrides: tuple[str, ...], store_root: Path | None, job_id: str | None, address: str | None, follow_log: bool
) -> int:
    """Show state, epoch and latest AP of every trial of STUDY, and the reason and the log of each that failed.

    With --job and an address: the job's state, and its study's as the cluster's records say it. With --job alone: the study of that job in
    this machine's results folder.
    """
    if job_id is not None and on_a_cluster(address, store_root):
        from salt_lab.cli.jobs import job_status

        return job_status(job_id, address, follow_log=follow_log)
    from salt_lab.cli.trials import count_states, differing_keys, differing_values, planned_trials, show_code_notes

    store = open_store(store_root)
    plan = read_study_or_job(study, overrides, job_id, store)
    trials = planned_trials(plan, store)
    keys = differing_keys(plan)
    rows = [
        [item.trial_id, *differing_values(item, keys), item.state, _epochs(item), _latest_ap(item), _age(item, store)] for item in trials
    ]
    show_table(["trial", *keys, "state", "epoch", "AP", "last sign"], rows)
    click.echo(f"{len(trials)} trials: " + ", ".join(f"{number} {state}" for state, number in count_states(trials).items()))
    show_code_notes(trials)
    for item in trials:
        if item.record.state in ("failed", "interrupted", "stopped"):
            click.echo(
                f"{item.record.state} {item.trial_id}: {item.record.reason or 'no reason recorded'}; log: {log_file(store, item.trial_id)}"
            )
    return 0


def on_a_cluster(address: str | None, store_root: Path | None) -> bool:
    """Is a job's state asked of a cluster, rather than of a results folder that can be read from here?"""
    from salt_lab.record.ray_job import in_ray_job
    from salt_lab.schedule.ray_access import job_address

    return store_root is None and not in_ray_job() and job_address(address) is not None


def read_study_or_job(study: str | None, overrides: tuple[str, ...], job_id: str | None, store: Store) -> Study:
    """The study that is named by its file or by a job that ran it.

    Raises:
        click.UsageError: neither is named, or both are.
    """
    if (study is None) == (job_id is None):
        raise click.UsageError("name a study file, or --job ID: one of them")
    if study is not None:
        return read_study(study, overrides)
    from salt_lab.cli.jobs import study_of_job

    return study_of_job(str(job_id), store)


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
