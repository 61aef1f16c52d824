"""Ray's job server: submit a study, follow its log, learn how it ended, ask it to stop. All over HTTP; no connection to the cluster itself.

Measured with Ray 2.60: the log can be followed from its start as often as one likes, the exit code of a job's command is in its details
(``ray job submit`` flattens it to 1), a stopped job has none, and the time that a stopped job has is read from the job's own environment.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salt_lab.errors import SaltLabError, UserError, did_you_mean
from salt_lab.record.tracking import public
from salt_lab.schedule.ray_access import TOKEN_HELP, authorization, brief, new_client

#: How long a stopped job may take to write its checkpoints and journals before Ray kills it, seconds; Ray's own default is 3.
STOP_SECONDS = 120
STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
RAYS_STOP_SECONDS = 3
#: How long a job server may be silent before it is given up, seconds: a restarted head or a broken tunnel comes back sooner.
PATIENCE = 120.0
#: Marks the jobs that only ask something; they are deleted when they ended this many seconds ago and the next one comes.
QUESTION, FORGET_SECONDS = "salt_lab_question", 20.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class ContactLost(SaltLabError):
    """The job server stopped answering while a job ran; the job itself may well go on."""


@dataclass(frozen=True)
class JobState:
    """A job as its server describes it. ``started`` and ``ended_at`` are unix seconds, None where it has not."""

    job_id: str
    status: str
    message: str = ""
    driver_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    setup_failed: bool = False
    started: float | None = None
    ended_at: float | None = None

    @property
    def ended(self) -> bool:
        """Will nothing more come of it?"""
        return self.status in ENDED

    @property
    def exit_code(self) -> int:
        """The study's own: 0 all done, 1 some failed, 2 refused before anything started, 130 stopped. 1 too where its head was lost."""
        if self.status == "STOPPED":
            return 130
        if self.driver_code is not None:
            return self.driver_code if self.driver_code >= 0 else 128 - self.driver_code
        return 0 if self.status == "SUCCEEDED" else 2 if self.setup_failed else 1

    @property
    def stop_seconds(self) -> int:
        """How long it may take to stop, as far as its own environment says."""
        value = self.variables.get(STOP_VARIABLE, "")
        return int(value) if value.isdigit() else RAYS_STOP_SECONDS


class JobServer:
    """The job server of a cluster.

    Args:
        address: of the dashboard, ``http://HOST:PORT``.

    Raises:
        UserError: nobody answers there, or a token is asked for and there is none here, or it is not the right one.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        headers = authorization(address)
        with self._worded():
            self._client = new_client(address, headers)

    def submit(
        self, command: Sequence[str], folder: Path | None, variables: Mapping[str, str], *, job_id: str, metadata: Mapping[str, str]
    ) -> None:
        """Upload ``folder`` (skipped where the cluster has the same one) and have ``command`` run in it, on the head's machine.

        Args:
            command: words.
            folder: becomes the job's working directory; None = none.
            variables: environment of the command and of all its workers.
            job_id: the job's name.
            metadata: kept with the job, shown to everybody who may see it.
        """
        runtime_env: dict[str, Any] = {"env_vars": dict(variables), **({"working_dir": str(folder)} if folder else {})}
        with self._worded(job_id):
            self._client.submit_job(entrypoint=shlex.join(command), submission_id=job_id, runtime_env=runtime_env, metadata=dict(metadata))

    def state(self, job_id: str) -> JobState:
        """How the job stands.

        Raises:
            UserError: there is no such job; names the nearest.
        """
        with self._worded(job_id):
            info = self._client.get_job_info(job_id)
        return JobState(
            job_id=info.submission_id or job_id,
            status=str(info.status),
            message=info.message or "",
            driver_code=info.driver_exit_code,
            metadata=info.metadata or {},
            variables=(info.runtime_env or {}).get("env_vars") or {},
            setup_failed=info.error_type == "RUNTIME_ENV_SETUP_FAILURE",
            started=info.start_time / 1000 if info.start_time else None,
            ended_at=info.end_time / 1000 if info.end_time else None,
        )

    def log(self, job_id: str) -> str:
        """All that the job has printed; "" while it has not begun."""
        with self._worded(job_id):
            return str(self._client.get_job_logs(job_id) or "")

    def follow(self, job_id: str, write: Callable[[str], None], patience: float = PATIENCE) -> JobState:
        """Hand on the job's log from its start as it grows, until the job has ended; a broken connection is taken up again.

        Raises:
            ContactLost: the server has not answered for ``patience`` seconds.
            KeyboardInterrupt: passed on; the job does not notice.
        """
        log, last_sign = _Once(write), time.monotonic()
        while True:
            try:
                asyncio.run(_copy(self._client.tail_job_logs(job_id), log))
                state = self.state(job_id)
                last_sign = time.monotonic()
                if state.ended:
                    log.all(self.log(job_id))
                    return state
            except Exception as error:  # whatever a broken connection raises in Ray, requests or aiohttp
                if time.monotonic() - last_sign > patience:
                    raise ContactLost(f"the job server {public(self.address)} does not answer any more ({brief(error)})") from error
            time.sleep(1)

    def wait(self, job_id: str, seconds: float) -> JobState:
        """The job's state when it has ended, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not (state := self.state(job_id)).ended and time.monotonic() < deadline:
            time.sleep(0.5)
        return state

    def stop(self, job_id: str) -> None:
        """Ask the job to end: its command gets SIGTERM, and is killed after the time that :attr:`JobState.stop_seconds` says."""
        with self._worded(job_id):
            self._client.stop_job(job_id)

    def ask(
        self, command: Sequence[str], folder: Path | None, variables: Mapping[str, str], job_id: str, seconds: float
    ) -> tuple[int, str]:
        """Run a short command on the cluster and forget it there.

        Returns:
            Its exit code and what it printed.

        Raises:
            UserError: it has not ended after ``seconds``.
        """
        self._forget_questions()
        self.submit(command, folder, variables, job_id=job_id, metadata={QUESTION: "yes"})
        state = self.wait(job_id, seconds)
        if not state.ended:
            self.stop(job_id)
            raise UserError(f"the cluster has not answered within {seconds:g} s")
        return state.exit_code, without_rays_lines(self.log(job_id))

    def _forget_questions(self) -> None:
        """Delete earlier :meth:`ask` jobs from the cluster's list. Not at their end: Ray then writes them down a last time, as failed."""
        with self._worded():
            for job in self._client.list_jobs():
                old = job.end_time and time.time() - job.end_time / 1000 > FORGET_SECONDS
                if old and QUESTION in (job.metadata or {}):
                    self._client.delete_job(job.submission_id)

    @contextmanager
    def _worded(self, job_id: str = "") -> Iterator[None]:
        """Ray's errors in the block as the lab's."""
        from ray.exceptions import AuthenticationError
        from requests import RequestException

        try:
            yield
        except AuthenticationError as error:
            raise UserError(f"{public(self.address)} refuses the token that is here. {TOKEN_HELP}") from error
        except (ConnectionError, RequestException) as error:
            raise UserError(f"{public(self.address)}: the job server does not answer ({brief(error)})") from error
        except RuntimeError as error:
            raise UserError(self._refusal(job_id, error)) from error

    def _refusal(self, job_id: str, error: RuntimeError) -> str:
        where = public(self.address)
        if "404" not in str(error) or not job_id:
            return f"{where}: {brief(error)}"
        known = [job.submission_id for job in self._client.list_jobs() if job.submission_id]
        return f"{where}: {did_you_mean('job', job_id, known) if known else f'no job {job_id}, nor any other'}"


def without_rays_lines(log: str) -> str:
    """A job's log without what Ray itself wrote into it."""
    lines = log.splitlines(keepends=True)
    return "".join(line for line in lines if not (line.startswith("Running entrypoint for job ") or " job_manager.py:" in line))


class _Once:
    """Passes on a text that is told again from its start, each character once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._seen = write, 0

    def part(self, text: str, position: int) -> int:
        """``text`` stands at ``position``; returns the position after it."""
        new, after = text[max(0, self._seen - position) :], position + len(text)
        if new and after > self._seen:
            self._write(new)
            self._seen = after
        return after

    def all(self, text: str) -> None:
        """The whole text."""
        self.part(text, 0)


async def _copy(chunks: AsyncIterator[str], log: _Once) -> None:
    position = 0
    async for chunk in chunks:
        position = log.part(chunk, position)
