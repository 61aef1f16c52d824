"""``salt-lab run``: train a study's trials that are not done, record them, and print the table."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.lazy import EXIT_INTERRUPTED
from salt_lab.cli.shared import mlflow_option, open_store, overrides_argument, read_study, store_option, study_argument
from salt_lab.errors import StoreError

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.schedule.executor import Executor


@click.command("run", short_help="Train a study, record it, print its table.")
@study_argument
@overrides_argument
@click.option(
    "--executor", type=click.Choice(["ray", "serial"]), default="ray", show_default=True, help="Many at a time, or one after the other."
)
@store_option
@click.option("--cpus-per-trial", type=click.IntRange(min=1), metavar="N", help="CPU cores (threads) for a trial; default 1, serial: all.")
@click.option(
    "--gpus-per-trial",
    type=click.FloatRange(min=0),
    metavar="X",
    help="Ray only: GPUs for a trial; 0.5 = two share one. Default 1 where there are GPUs.",
)
@click.option("--max-concurrent", type=click.IntRange(min=1), metavar="N", help="Ray only: most trials at a time; default as many as fit.")
@click.option("--address", metavar="URL", help="Ray only: an existing cluster; default $RAY_ADDRESS, else an embedded one.")
@mlflow_option
@click.option("--no-mlflow", is_flag=True, help="Keep the results folder only; salt-lab sync delivers it later.")
def command(
    study: str,
    overrides: tuple[str, ...],
    executor: str,
    store_root: Path | None,
    cpus_per_trial: int | None,
    gpus_per_trial: float | None,
    max_concurrent: int | None,
    address: str | None,
    mlflow_uri: str | None,
    no_mlflow: bool,
) -> int:
    """Train the trials of STUDY that are not done yet, several at a time, and end with the table.

    \b
    salt-lab run experiments/quickstart.yaml
    salt-lab run experiments/quickstart.yaml schedule.epochs=3 seeds=[0,1,2]

    Interrupted or failed? The same command goes on: finished trials are kept, the others go on from their last checkpoints.
    Exit codes: 0 all done, 1 some failed, 2 refused before anything started, 130 interrupted.
    """
    plan, store = read_study(study, overrides), open_store(store_root)
    uri = None if no_mlflow else choose_mlflow(store, mlflow_uri)
    if no_mlflow and mlflow_uri:
        raise click.UsageError("give either --mlflow-uri or --no-mlflow, not both")
    chosen = choose_executor(executor, cpus_per_trial, gpus_per_trial, max_concurrent, address)
    from salt_lab.cli.outcome import show_outcome
    from salt_lab.schedule.launch import run_study

    try:
        result = run_study(plan, store, chosen, mlflow_uri=uri)
    except KeyboardInterrupt:
        click.echo(f"interrupted. The same command goes on from the last checkpoints: {shlex.join(['salt-lab', *sys.argv[1:]])}", err=True)
        return EXIT_INTERRUPTED
    show_outcome(plan, store, uri)
    return 0 if result.complete else 1


def choose_mlflow(store: Store, asked: str | None) -> str | None:
    """Where to deliver: what was asked for, else ``$MLFLOW_TRACKING_URI``, else SQLite in the results folder; None without MLflow.

    Raises:
        StoreError: a server was asked for, and the mlflow package is not installed.
    """
    from salt_lab.record.tracking import public, tracking_uri

    if importlib.util.find_spec("mlflow") is not None:
        return asked or tracking_uri(store)
    if wanted := asked or os.environ.get("MLFLOW_TRACKING_URI"):
        raise StoreError(
            f"MLflow at '{public(wanted)}' is asked for, but mlflow is not installed: pip install mlflow, or run with --no-mlflow"
        )
    return None


def choose_executor(kind: str, cpus: int | None, gpus: float | None, max_concurrent: int | None, address: str | None) -> Executor:
    """The executor that the options name. Starts nothing.

    Raises:
        click.UsageError: an option of Ray's with ``serial``.
    """
    if kind == "serial":
        given = {"--gpus-per-trial": gpus, "--max-concurrent": max_concurrent, "--address": address}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise click.UsageError(
                f"{', '.join(wrong)}: for --executor ray only; serial runs one trial after the other, on the GPU if there is one"
            )
        from salt_lab.schedule.executor import SerialExecutor

        return SerialExecutor(cpus)
    from salt_lab.schedule.ray_executor import RayExecutor

    return RayExecutor(address, cpus_per_trial=cpus or 1, gpus_per_trial=gpus, max_concurrent=max_concurrent)
