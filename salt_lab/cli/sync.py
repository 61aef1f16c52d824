"""``salt-lab sync``: deliver a results folder to MLflow, later and as often as one likes."""

from __future__ import annotations

from pathlib import Path

import click

from salt_lab.cli.shared import mlflow_option, open_store
from salt_lab.errors import StoreError


@click.command("sync", short_help="Deliver a results folder to MLflow.")
@click.argument("folder", type=click.Path(path_type=Path))
@mlflow_option
def command(folder: Path, mlflow_uri: str | None) -> int:
    """Deliver the records in FOLDER (a results folder, perhaps copied from a machine without MLflow). Doing it twice changes nothing."""
    if not (folder / "trials").is_dir():
        raise StoreError(f"{folder}: no results folder (it has no 'trials' folder). Give the folder that was used as --store")
    from salt_lab.record.tracking import check_server, public, tracking_uri

    store = open_store(folder)
    uri = mlflow_uri or tracking_uri(store)
    check_server(uri)
    from salt_lab.record.mlflow_store import sync

    report = sync(store, uri)
    click.echo(f"{report}\nMLflow: {public(uri)}")
    return 1 if report.failures else 0
