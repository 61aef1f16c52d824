"""What ``status --job`` and ``stop --job`` say about a submitted study."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.submit import follow, need_address, new_job_id
from salt_lab.errors import SaltLabError, StoreError

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.schedule.ray_jobs import JobServer, JobState
    from salt_lab.spec.study import Study

#: How long the cluster may take to read its records, seconds; 4 to 6 where it is idle.
ASK_SECONDS = 90.0
#: Lines of the log that are shown where the records cannot be read.
TAIL = 10


def job_status(job_id: str, address: str | None, *, follow_log: bool) -> int:
    """Show a job's state and how far its study is; with ``follow_log`` its log from the start, and leave with the study's exit code.

    The records lie on the cluster: a small job there reads the journals (also after a crash, and when the log has long stopped). Where
    that does not work, or there are none yet, the last lines of the job's log are shown.
    """
    from salt_lab.schedule.ray_jobs import JobServer

    server = JobServer(need_address(address))
    state = server.state(job_id)
    click.echo(describe(state))
    if follow_log:
        return follow(server, job_id)
    progress = None if state.ended and state.exit_code == 2 else ask_progress(server, state)
    click.echo(progress or last_lines(server, job_id))
    return 0


def describe(state: JobState) -> str:
    """A job in one line: ``job ID: RUNNING for 5 min, study 'points'``."""
    began = state.started or time.time()
    minutes = ((state.ended_at or time.time()) - began) / 60
    how = f"{'after' if state.ended else 'for'} {minutes:.0f} min"
    study = f", study '{state.metadata['study']}'" if "study" in state.metadata else ""
    return f"job {state.job_id}: {state.status} {how}{f', exit code {state.exit_code}' if state.ended else ''}{study}"


def ask_progress(server: JobServer, state: JobState) -> str | None:
    """What ``salt-lab status`` says on the cluster about the job's study; None where it has nothing to say."""
    from salt_lab.schedule.bundle import lay_out

    store = ["--store", state.metadata["store"]] if state.metadata.get("store") else []
    command = ["python", "-m", "salt_lab", "status", "--job", state.job_id, *store]
    with tempfile.TemporaryDirectory(prefix="salt-lab-status-") as name:
        folder = Path(name).resolve()
        package = state.metadata.get("installed", "yes") == "no"
        lay_out(folder, None, package=package)
        try:
            code, text = server.ask(command, folder if package else None, state.variables, new_job_id("status"), ASK_SECONDS)
        except SaltLabError as error:
            click.echo(f"the records could not be read: {error}", err=True)
            return None
    return text.rstrip() if code == 0 else None


def last_lines(server: JobServer, job_id: str) -> str:
    """The end of the job's log, and why it is shown."""
    lines = end_of_log(server, job_id)
    return "\n".join(["no record of it yet; the end of its log:", *lines]) if lines else "nothing in its log yet"


def end_of_log(server: JobServer, job_id: str) -> list[str]:
    """The last lines that the job's study has printed."""
    from salt_lab.schedule.ray_jobs import without_rays_lines

    return without_rays_lines(server.log(job_id)).rstrip().splitlines()[-TAIL:]


def study_of_job(job_id: str, store: Store) -> Study:
    """The study that a job ran, as its launch wrote it down in the results folder.

    Raises:
        StoreError: no launch there is the job's.
    """
    from salt_lab.spec.study import load_study

    launch = store.launch_of_job(job_id)
    if launch is None or not launch.get("study_yaml"):
        raise StoreError(f"{store.root}: no launch of job '{job_id}' there. Its cluster may know it: --address http://HOST:8265")
    with tempfile.TemporaryDirectory(prefix="salt-lab-study-") as folder:
        source = Path(folder) / launch["source"]
        source.write_text(launch["study_yaml"], encoding="utf-8")
        return load_study(source, launch["overrides"])


def stop_job(job_id: str, address: str | None) -> int:
    """Ask the job to end in order, and wait until it has; says how to go on."""
    from salt_lab.schedule.ray_jobs import RAYS_STOP_SECONDS, JobServer

    server = JobServer(need_address(address))
    state = server.state(job_id)
    if state.ended:
        click.echo(describe(state))
        return 0
    server.stop(job_id)
    if state.stop_seconds <= RAYS_STOP_SECONDS:
        click.echo(
            f"Ray gives this job {state.stop_seconds} s, since it was not submitted with salt-lab submit: what is cut off goes on from its "
            "last checkpoint",
            err=True,
        )
    click.echo(f"asked job {job_id} to stop; it has {state.stop_seconds} s to write checkpoints and journals ...")
    state = server.wait(job_id, state.stop_seconds + 30)
    click.echo("\n".join(end_of_log(server, job_id)))
    click.echo(describe(state))
    if not state.ended:
        click.echo(f"it has not ended yet; ask again: salt-lab status --job {job_id} --address {server.address}", err=True)
        return 1
    if words := state.metadata.get("words"):
        click.echo(f"go on from the last checkpoints: salt-lab submit {words} --address {server.address}")
    return 0
