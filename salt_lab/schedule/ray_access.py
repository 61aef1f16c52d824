"""The way to a cluster's job server: its address, the token that it asks for, Ray's client."""

from __future__ import annotations

import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from salt_lab.errors import UserError
from salt_lab.record.tracking import public

PROBE_SECONDS = 5.0
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
TOKEN_HELP = (
    "Copy the head's ~/.ray/auth_token to the same place here (chmod 600), or name the file in RAY_AUTH_TOKEN_PATH, "
    "or put the token into RAY_AUTH_TOKEN"
)


def job_address(asked: str | None) -> str | None:
    """The job server that is meant: ``asked``, else $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS where that is an http address.

    Raises:
        UserError: ``asked`` is no http address.
    """
    if asked is None:
        found = [os.environ.get(name, "") for name in ADDRESS_VARIABLES]
        return next((address for address in found if address.startswith(("http://", "https://"))), None)
    if not asked.startswith(("http://", "https://")):
        raise UserError(
            f"--address {asked}: jobs go to the dashboard's address, e.g. --address http://127.0.0.1:8265 "
            "(reach a remote head's by ssh -L 8265:127.0.0.1:8265 HEAD)"
        )
    return asked.rstrip("/")


def authorization(address: str) -> dict[str, str]:
    """The header that the server asks for. Asks it without Ray, so that a wrong address is answered in seconds.

    Raises:
        UserError: nobody answers, or a token is asked for and there is none here.
    """
    try:
        with urllib.request.urlopen(f"{address}/api/authentication_mode", timeout=PROBE_SECONDS) as answer:
            mode = json.loads(answer.read(10_000)).get("authentication_mode")
    except urllib.error.HTTPError as error:
        if error.code != 404:  # a Ray before tokens has no such page
            raise UserError(f"{public(address)} answers {error.code} {error.reason}: is it a Ray dashboard?") from error
        mode = None
    except (OSError, ValueError, AttributeError) as error:
        remedy = "Start it (ray start --head), or tunnel to it (ssh -L 8265:127.0.0.1:8265 HEAD)"
        raise UserError(f"{public(address)}: no Ray job server answers ({brief(error)}). {remedy}") from error
    if mode != "token":
        return {}
    if not (token := _token()):
        raise UserError(f"{public(address)} asks for a token and there is none here. {TOKEN_HELP}")
    return {"Authorization": f"Bearer {token}"}


def _token() -> str | None:
    """The token where Ray itself looks for it, in Ray's order."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").expanduser()
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def new_client(address: str, headers: Mapping[str, str]) -> Any:
    """Ray's own client, silent.

    Raises:
        UserError: Ray is not installed. And whatever Ray raises where the server does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise UserError(f"Ray cannot be imported ({error}). pip install 'ray[default]'") from error
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _without(ADDRESS_VARIABLES):  # for Ray they go before the argument
        return JobSubmissionClient(address, headers=dict(headers))


def brief(error: BaseException) -> str:
    """An error's reason in one line of at most 300 characters."""
    reason = getattr(error, "reason", None) or error
    text = " ".join(str(getattr(reason, "strerror", None) or reason).split())
    return (text or type(error).__name__).rstrip(".")[:300]


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
