"""``salt-lab import``: take in a study that was exported elsewhere."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from salt_lab.cli.shared import mlflow_option, open_store, store_option


@click.command("import", short_help="Take in a study that was exported elsewhere.")
@click.argument("folder", type=click.Path(path_type=Path))
@store_option
@mlflow_option
@click.option("--no-mlflow", is_flag=True, help="Into the results folder only; deliver later with salt-lab sync.")
def command(folder: Path, store_root: Path | None, mlflow_uri: str | None, no_mlflow: bool) -> int:
    """Take the archive in FOLDER (made by salt-lab export) into the results folder, and from there into MLflow.

    \b
    salt-lab export experiments/quickstart.yaml quickstart      on one machine
    salt-lab import quickstart --store runs                     on another

    Every file is compared with the manifest before anything is written. No record is overwritten: an equal one is left alone, the beginning
    of one grows, another training of the same trial is refused. Doing it twice changes nothing, in MLflow neither.

    Trial and launch ids stay. MLflow chooses the ids of its runs itself: the run's former id becomes its tag salt_lab.original_run_id.
    """
    from salt_lab.record.import_ import import_archive
    from salt_lab.record.manifest import read_manifest
    from salt_lab.record.tracking import check_server, public, tracking_uri

    store = open_store(store_root)
    read_manifest(folder)
    uri = mlflow_uri or tracking_uri(store)
    if not no_mlflow:
        check_server(uri)
    done = import_archive(folder, store)
    click.echo(str(done))
    if done.study_file:
        click.echo(f"table: {shlex.join(['salt-lab', 'table', str(done.study_file), '--store', str(store.root)])}")
    if no_mlflow:
        return 0
    from salt_lab.record.mlflow_store import sync

    report = sync(store, uri, study=done.study, trial_ids=done.trial_ids)
    click.echo(f"{report}\nMLflow: {public(uri)}")
    return 1 if report.failures else 0
