"""``salt-lab ui``: the MLflow UI on a results folder."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from pathlib import Path

import click

from salt_lab.cli.shared import open_store, store_option
from salt_lab.errors import StoreError

DEFAULT_PORT = 5000


@click.command("ui", short_help="Open the MLflow UI on a results folder.")
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=DEFAULT_PORT, show_default=True, help="Port to listen on.")
def command(store_root: Path | None, host: str, port: int) -> None:
    """Serve the MLflow UI on the records' database (this process becomes the server; Ctrl-C ends it), or say where the server is."""
    from salt_lab.record.tracking import public, sqlite_path, tracking_uri

    store = open_store(store_root)
    uri = tracking_uri(store)
    if not uri.startswith("sqlite"):
        click.echo(f"the records are on an MLflow server (MLFLOW_TRACKING_URI); open {public(uri)}")
        return
    if not sqlite_path(uri).is_file():
        raise StoreError(
            f"{sqlite_path(uri)}: no MLflow database there. Run a study first, or deliver its records: salt-lab sync {store.root}"
        )
    if importlib.util.find_spec("mlflow") is None:
        raise StoreError("mlflow is not installed: pip install mlflow, then run this again")
    words = server_command(uri, host, port)
    click.echo(f"MLflow UI on http://{host}:{port}: {shlex.join(words)}", err=True)
    os.execve(words[0], words, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", **os.environ})


def server_command(uri: str, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> list[str]:
    """The words of the command that serves the UI on ``uri``: one worker and no job runners, so that it starts in about 5 s."""
    return [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", host, "--port", str(port), "--workers", "1"]
