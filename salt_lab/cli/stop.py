"""``salt-lab stop``: end a submitted study in order, so that it can go on later."""

from __future__ import annotations

import click

from salt_lab.cli.submit import address_option


@click.command("stop", short_help="End a submitted study in order.")
@click.option("--job", "job_id", required=True, metavar="ID", help="The job, as salt-lab submit has named it.")
@address_option
def command(job_id: str, address: str | None) -> int:
    """Ask the study of a submitted job to stop: its trials write a checkpoint and are recorded as interrupted.

    \b
    salt-lab stop --job points-20260101T120000-ab12 --address http://127.0.0.1:8265

    It waits until the job has ended (two minutes at most, then Ray kills it; --env RAY_JOB_STOP_WAIT_TIME_S=SECONDS of submit changes that).
    Submitting the study again goes on from the last checkpoints.
    """
    from salt_lab.cli.jobs import stop_job

    return stop_job(job_id, address)
