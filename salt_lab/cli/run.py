"""``salt-lab run``: train a study's trials that are not done, record them, and print the table."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salt_lab.cli.lazy import EXIT_INTERRUPTED
from salt_lab.cli.shared import mlflow_option, open_store, overrides_argument, read_study, store_option, study_argument
from salt_lab.errors import StoreError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from salt_lab.record.store import Store
    from salt_lab.schedule.dispatch import Need
    from salt_lab.schedule.executor import Executor, Job
    from salt_lab.schedule.time_limit import TimeLimit
    from salt_lab.spec.resources import Resources

#: EX_TEMPFAIL of sysexits.h: nothing is wrong, do it again. A script can tell it from Ctrl-C (130) and from failed trials (1).
EXIT_TIME_LIMIT = 75


@click.command("run", short_help="Train a study, record it, print its table.")
@study_argument
@overrides_argument
@click.option(
    "--executor", type=click.Choice(["ray", "serial"]), default="ray", show_default=True, help="Many at a time, or one after the other."
)
@store_option
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes that train one trial together; default 1.")
@click.option(
    "--cpus-per-trial", type=click.IntRange(min=1), metavar="N", help="CPU cores (threads) for a trial's worker; default 1, serial: all."
)
@click.option(
    "--gpus-per-trial",
    type=click.FloatRange(min=0),
    metavar="X",
    help="GPUs for a trial: 4 = four workers with one each, 0.5 = two trials share one, 0 = CPU. Default 1 per worker where there are GPUs.",
)
@click.option("--max-concurrent", type=click.IntRange(min=1), metavar="N", help="Ray only: most trials at a time; default as many as fit.")
@click.option(
    "--hang-after", type=click.FloatRange(min=1), metavar="SECONDS", help="Ray only: kill a trial that gives no sign of life so long; 600."
)
@click.option(
    "--max-deaths", type=click.IntRange(min=0), metavar="N", help="Ray only: lost workers or machines that a trial is forgiven; default 3."
)
@click.option("--address", metavar="URL", help="Ray only: an existing cluster; default $RAY_ADDRESS, else an embedded one.")
@mlflow_option
@click.option("--no-mlflow", is_flag=True, help="Keep the results folder only; salt-lab sync delivers it later.")
@click.option("--reuse", is_flag=True, help="Keep finished trials that other training code made, beside those still to be trained.")
@click.option("--force", is_flag=True, help="Train finished trials again; their records are kept in trials/<id>/earlier.")
@click.option("--no-wait", is_flag=True, help="Leave while another process still runs trials of this study, instead of waiting for them.")
@click.option(
    "--for",
    "time_limit",
    metavar="TIME",
    help="Serial only: end in order after 90s, 9m or 1h30m; trials keep a checkpoint. The same command goes on.",
)
@click.option("--finish-stopped", is_flag=True, help="Without the study's early_stop: trials that it stopped go on to their end.")
def command(
    study: str,
    overrides: tuple[str, ...],
    executor: str,
    store_root: Path | None,
    workers: int | None,
    cpus_per_trial: int | None,
    gpus_per_trial: float | None,
    max_concurrent: int | None,
    hang_after: float | None,
    max_deaths: int | None,
    address: str | None,
    mlflow_uri: str | None,
    no_mlflow: bool,
    reuse: bool,
    force: bool,
    no_wait: bool,
    time_limit: str | None,
    finish_stopped: bool,
) -> int:
    """Train the trials of STUDY that are not done yet, several at a time, and end with the table.

    \b
    salt-lab run experiments/quickstart.yaml
    salt-lab run experiments/quickstart.yaml schedule.epochs=3 seeds=[0,1,2]

    Trials that another process runs are left to it; this one waits for them and takes over what it leaves undone.
    Interrupted or failed? The same command goes on: finished trials are kept, the others go on from their last checkpoints.
    Exit codes: 0 all done (or stopped early, where the study asks for it), 1 some failed, 2 refused before anything started, 75 the time
    limit (--for) ended it and there is more to do, 130 interrupted.
    """
    limit = choose_limit(executor, time_limit)
    plan, store = read_study(study, overrides), open_store(store_root)
    plan = replace(plan, early_stop=None) if finish_stopped else plan
    uri = None if no_mlflow else choose_mlflow(store, mlflow_uri)
    if no_mlflow and mlflow_uri:
        raise click.UsageError("give either --mlflow-uri or --no-mlflow, not both")
    if reuse and force:
        raise click.UsageError("give either --reuse (keep finished trials) or --force (train them again), not both")
    for_ray = {"address": address, "max_concurrent": max_concurrent, "hang_after": hang_after, "max_deaths": max_deaths}
    plan = replace(plan, resources=choose_resources(plan.resources, workers, cpus_per_trial, gpus_per_trial))
    from salt_lab.schedule.cost_known import needs_of

    chosen = choose_executor(executor, plan.resources, for_ray, needs_of(plan, store), limit)
    from salt_lab.cli.outcome import show_outcome
    from salt_lab.schedule.launch import run_study

    try:
        with limit or nullcontext():
            result = run_study(plan, store, chosen, mlflow_uri=uri, reuse=reuse, force=force, wait=not no_wait)
    except KeyboardInterrupt:
        same = [word for word in sys.argv[1:] if word != "--force"]  # once is enough: what it has trained again is kept
        over = limit is not None and limit.over
        said = f"the {limit.words} is over" if limit is not None and over else "interrupted"
        click.echo(f"{said}. The same command goes on from the last checkpoints: {shlex.join(['salt-lab', *same])}", err=True)
        return EXIT_TIME_LIMIT if over else EXIT_INTERRUPTED
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


def choose_resources(resources: Resources, workers: int | None, cpus: int | None, gpus: float | None) -> Resources:
    """The study's resources, with those that the command line asks for instead.

    Raises:
        click.UsageError: they do not go together.
    """
    from pydantic import ValidationError

    from salt_lab.spec.resources import fault

    try:
        return resources.over(workers=workers, cpus=cpus, gpus=gpus)
    except ValidationError as error:
        options = {"workers": "--workers", "cpus": "--cpus-per-trial", "gpus": "--gpus-per-trial"}
        field, text = fault(error)
        raise click.UsageError(f"{options.get(field, field)}: {text}") from None


def choose_limit(executor: str, text: str | None) -> TimeLimit | None:
    """The time limit of ``--for``; its clock runs from now on. None where none is asked for.

    Raises:
        click.UsageError: with Ray, or no length of time.
    """
    if text is None:
        return None
    if executor != "serial":
        raise click.UsageError("--for: with --executor serial only; a scheduler that runs Ray ends it with SIGTERM, which is kept as well")
    from salt_lab.schedule.time_limit import TimeLimit, seconds_of

    try:
        return TimeLimit(seconds_of(text))
    except UserError as error:
        raise click.UsageError(f"--for: {error}") from None


def choose_executor(
    kind: str,
    resources: Resources,
    for_ray: dict[str, Any],
    need_of: Callable[[Job], Need] | None = None,
    limit: TimeLimit | None = None,
) -> Executor:
    """The executor that the options name. Starts nothing.

    Args:
        kind: "ray" or "serial".
        resources: of each trial.
        for_ray: options that only Ray's takes, by their names with underscores; None = not given.
        need_of: what is known of a trial's memory and length; None = nothing but what ``resources`` say.
        limit: the launch's time limit, for ``serial``.

    Raises:
        click.UsageError: an option of Ray's with ``serial``.
    """
    given = {name: value for name, value in for_ray.items() if value is not None}
    if kind == "serial":
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise click.UsageError(f"{options}: for --executor ray only; serial runs one trial after the other, on the GPU if there is one")
        from salt_lab.schedule.executor import SerialExecutor

        return SerialExecutor(resources.cpus if "cpus" in resources.model_fields_set else None, resources, limit=limit)
    from salt_lab.schedule.ray_executor import RayExecutor

    if "hang_after" in given:
        given["hang_seconds"] = given.pop("hang_after")
    return RayExecutor(resources=resources, need_of=need_of, **given)
