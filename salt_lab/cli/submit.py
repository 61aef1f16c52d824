"""``salt-lab submit``: run a study as a Ray job on a cluster, follow its log, leave with its exit code."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from salt_lab.cli.lazy import EXIT_INTERRUPTED
from salt_lab.cli.shared import find_study
from salt_lab.errors import UserError

if TYPE_CHECKING:
    from salt_lab.schedule.ray_jobs import JobServer, JobState

#: Options of ``run`` that mean another thing here, or a place on this machine.
NOT_HANDED_ON = {"address": "--address is the job server's here; on the cluster the study uses the cluster that it runs on"}
#: What a shell and Python say where the cluster lacks something that is needed to start at all.
MISSING = re.compile(r"No module named '?([\w.]+)'?|(python): (?:command )?not found")

address_option = click.option(
    "--address", metavar="URL", help="The cluster's dashboard, http://HOST:8265; default $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS."
)


class Words(NamedTuple):
    """What is handed on to ``salt-lab run`` on the cluster.

    Attributes:
        study: the study's file here.
        overrides: ``key=value`` strings.
        store: the results folder there; None = the cluster's default.
        mlflow: an MLflow URI, which travels in the environment: a job's command is shown to everybody.
        rest: all words but the study and the MLflow URI, in order.
    """

    study: Path
    overrides: tuple[str, ...]
    store: str | None
    mlflow: str | None
    rest: tuple[str, ...]


@click.command(
    "submit",
    short_help="Run a study as a job on a Ray cluster.",
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS] [OPTIONS OF run]",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="STUDY [KEY=VALUE]...")
@address_option
@click.option("--env", "given", multiple=True, metavar="NAME[=VALUE]", help="A variable for the study; without =VALUE its value from here.")
@click.option("--include", multiple=True, type=click.Path(path_type=Path), metavar="PATH", help="Upload this file or folder too.")
@click.option("--installed", is_flag=True, help="Train with the salt-lab that is installed on the cluster; upload the study only.")
@click.option("--no-follow", is_flag=True, help="Leave as soon as the job is accepted.")
def command(
    words: tuple[str, ...], address: str | None, given: tuple[str, ...], include: tuple[Path, ...], installed: bool, no_follow: bool
) -> int:
    """Upload STUDY and this salt-lab to a Ray cluster, run it there, and follow its log. Leaves with the study's own exit code.

    \b
    salt-lab submit experiments/points.yaml --address http://127.0.0.1:8265 --store /shared/runs
    salt-lab submit experiments/bccd.yaml --env SALT_LAB_BCCD=/shared/bccd seeds=[0,1,2] --gpus-per-trial 1

    Every option of salt-lab run is handed on. Data, weights and the results folder lie on the cluster: paths mean the cluster's, and what
    is missing is refused there before anything trains (exit code 2). Variables that the study names are passed on with their values from
    here, unless --env gives others. Ctrl-C leaves the job alone and says how to come back.
    """
    from tempfile import TemporaryDirectory

    from salt_lab.schedule.bundle import variables_named

    asked = read_words(words)
    named = variables_named(asked.study, asked.overrides)
    variables = choose_variables(named, given)
    with TemporaryDirectory(prefix="salt-lab-submit-") as folder:
        send = _Submission(asked, Path(folder).resolve(), variables, installed)
        send.prepare(include, named)
        server_address = need_address(address)
        send.announce(include, named)
        from salt_lab.schedule.ray_jobs import JobServer

        server = JobServer(server_address)
        job_id = send.send(server)
    show_job(server, job_id)
    return 0 if no_follow else follow(server, job_id)


def read_words(words: Sequence[str]) -> Words:
    """Read the words with ``run``'s own parser, so that a wrong option is refused here.

    Raises:
        click.UsageError: no study, or an option that ``run`` does not have.
        UserError: a results folder that is relative to this machine's working directory, or an option that cannot be handed on.
    """
    from salt_lab.cli.run import command as run

    with run.make_context("salt-lab run", list(words)) as context:
        params: dict[str, Any] = context.params
    for name, why in NOT_HANDED_ON.items():
        if params.get(name) is not None:
            raise UserError(why)
    store = params.get("store_root")
    if store is not None and not (store.is_absolute() or str(store).startswith("~")):
        raise UserError(f"--store {store}: a folder on the cluster that all its nodes see: give an absolute path")
    rest = _without_mlflow(words, params.get("mlflow_uri"))
    rest.remove(params["study"])
    return Words(
        find_study(params["study"]), tuple(params["overrides"]), str(store) if store else None, params.get("mlflow_uri"), tuple(rest)
    )


def choose_variables(named: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """The job's environment: what ``--env`` gives, and what the study names and is set here.

    Raises:
        UserError: ``--env NAME`` without a value, and none is set here.
    """
    variables = {name: os.environ[name] for name in named if os.environ.get(name)}
    for text in given:
        name, equals, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(f"--env {name}: no name of a variable; write --env NAME=VALUE, or --env NAME for its value from here")
        if not equals and name not in os.environ:
            raise UserError(f"--env {name}: the variable is not set here; write --env {name}=VALUE")
        variables[name] = value if equals else os.environ[name]
    return variables


def need_address(address: str | None) -> str:
    """The job server that is meant.

    Raises:
        UserError: none is.
    """
    from salt_lab.schedule.ray_access import job_address

    if (found := job_address(address)) is None:
        raise UserError("which cluster? --address http://HOST:8265 (its dashboard), or RAY_API_SERVER_ADDRESS")
    return found


def show_job(server: JobServer, job_id: str) -> None:
    """Say how to come back to a job."""
    address = shlex.quote(server.address)
    click.echo(f"job {job_id}\n  dashboard  {server.address}/#/jobs/{job_id}")
    click.echo(f"  progress   salt-lab status --job {job_id} --address {address}   (--follow: its log)")
    click.echo(f"  end it     salt-lab stop --job {job_id} --address {address}")


def follow(server: JobServer, job_id: str) -> int:
    """Print the job's log as it grows; returns the study's exit code, 130 after Ctrl-C, which the job does not notice."""
    try:
        state = server.follow(job_id, lambda text: click.echo(text, nl=False))
    except KeyboardInterrupt:
        click.echo(f"\nno longer following; job {job_id} goes on.", err=True)
        show_job(server, job_id)
        return EXIT_INTERRUPTED
    return conclude(state)


def conclude(state: JobState) -> int:
    """Say how the job ended; returns its exit code.

    Raises:
        UserError: the job could not even start: its environment failed, or the cluster lacks Python or a package.
    """
    last = (state.message.strip().splitlines() or [""])[-1]
    if state.setup_failed:
        raise UserError(f"the cluster could not prepare the job: {' '.join(state.message.split())[:500]}")
    if state.exit_code in (1, 127) and (missing := MISSING.search(last)):
        what = missing.group(1) or missing.group(2)
        raise UserError(
            f"the cluster lacks {what}: every node needs salt-lab's environment (make install), and its bin folder on Ray's PATH"
        )
    words = {"SUCCEEDED": "is done", "STOPPED": "was stopped: submit the study again to go on", "FAILED": "failed"}
    click.echo(f"job {state.job_id} {words.get(state.status, state.status)} (exit code {state.exit_code})", err=bool(state.exit_code))
    return state.exit_code


class _Submission:
    """One study on its way: laid out, checked, described, sent."""

    def __init__(self, words: Words, folder: Path, variables: dict[str, str], installed: bool) -> None:
        from salt_lab.schedule.ray_jobs import STOP_SECONDS, STOP_VARIABLE

        self.words, self.folder, self.installed = words, folder, installed
        mlflow = {"MLFLOW_TRACKING_URI": words.mlflow} if words.mlflow else {}
        self.variables = {STOP_VARIABLE: str(STOP_SECONDS), **mlflow, **variables}
        self.told = [*mlflow, *variables]

    def prepare(self, include: Sequence[Path], named: Sequence[str]) -> None:
        """Lay it out and read it as the cluster will; refuses what cannot work before anybody is asked."""
        from salt_lab.schedule.bundle import check_size, lay_out, read_there

        self.bundle = lay_out(self.folder, self.words.study, package=not self.installed, include=include)
        self.study = read_there(self.bundle, self.words.overrides, self.variables, named)
        self.size = check_size(self.bundle)

    def announce(self, include: Sequence[Path], named: Sequence[str]) -> None:
        """Say what is about to be sent."""
        what = f"{self.bundle.study}{'' if self.installed else ' and salt_lab/'}{''.join(f', {path}' for path in include)}"
        click.echo(f"uploading {self.size:.1f} MiB in {len(self.bundle.files())} files: {what}. Data, weights, results and git stay out")
        for path in self.bundle.left_out:
            click.echo(f"left out, weights lie on the cluster: {path}")
        click.echo(f"passed on: {', '.join(self.told) or 'no variables'}")  # never their values
        if unset := [name for name in named if name not in self.variables]:
            click.echo(f"not set here, so the cluster's own: {', '.join(unset)}")

    def send(self, server: JobServer) -> str:
        """Submit it; returns the job's name."""
        job_id = new_job_id(self.study.name)
        metadata = {"study": self.study.name, "words": shlex.join([str(self.words.study), *self.words.rest])}
        metadata |= {"store": self.words.store or "", "installed": "yes" if self.installed else "no"}
        command = [
            "python",
            "-m",
            "salt_lab",
            "run",
            self.bundle.study,
            *self.words.rest,
        ]  # from the uploaded folder, else the installed one
        server.submit(command, self.folder, self.variables, job_id=job_id, metadata=metadata)
        return job_id


def new_job_id(what: str) -> str:
    """``WHAT-<UTC time>-<4 hex digits>``: says what it is, sorts by time, is nobody else's."""
    import secrets

    return f"{what}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def _without_mlflow(words: Sequence[str], uri: str | None) -> list[str]:
    if uri is None:
        return list(words)
    kept, skip = [], False
    for word in words:
        if not (skip or word == "--mlflow-uri" or word.startswith("--mlflow-uri=")):
            kept.append(word)
        skip = word == "--mlflow-uri"
    return kept
