"""Which MLflow, and can it be used? Standard library only, and of that nothing heavy: asked before anything starts, by ``doctor``."""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from salt_lab.errors import SaltLabError, StoreError
from salt_lab.record.store import Store

SERVER_SECONDS = 3.0
_LATER = "or go on without MLflow (--no-mlflow) and deliver later: salt-lab sync FOLDER"


def tracking_uri(store: Store) -> str:
    """$MLFLOW_TRACKING_URI, else an SQLite file in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(store.root / 'mlflow.db').as_posix()}"


def check_server(uri: str) -> None:
    """Can records be delivered to ``uri``? Takes at most 3 s and makes nothing.

    Raises:
        StoreError: names the URI, what is wrong and the next step.
    """
    scheme = urllib.parse.urlsplit(uri).scheme
    if scheme in ("http", "https"):
        _check_http(uri)
    elif scheme.startswith("sqlite"):
        _check_sqlite(uri)
    elif scheme in ("", "file"):
        path = urllib.parse.urlsplit(uri).path.rstrip("/")
        raise StoreError(
            f"MLflow at '{uri}': MLflow 3 has no file store any more. Use its SQLite store: MLFLOW_TRACKING_URI=sqlite:///{path}/mlflow.db"
        )


def public(uri: str) -> str:
    """``uri`` without user name and password: for messages and files."""
    parts = urllib.parse.urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def brief(error: Exception, uri: str) -> str:
    """An error of MLflow's as one line of at most 300 characters, without the user name and password of ``uri``."""
    user = urllib.parse.urlsplit(uri).netloc.rpartition("@")[0]
    text = " ".join(str(error).split()) or type(error).__name__
    return (text.replace(f"{user}@", "") if user else text)[:300]


@contextlib.contextmanager
def worded(uri: str) -> Iterator[None]:
    """Whatever MLflow raises in the block becomes a StoreError that names the URI."""
    try:
        yield
    except SaltLabError:
        raise
    except Exception as error:
        text = brief(error, uri)
        hint = f". Its tables are of another version: mlflow db upgrade '{public(uri)}'" if "db upgrade" in text else ""
        raise StoreError(f"MLflow at '{public(uri)}': {text}{hint}") from error


def sqlite_path(uri: str) -> Path:
    """The database file of an ``sqlite:///`` URI; relative ones are relative to the working directory."""
    return Path(urllib.parse.unquote(uri.split("?", 1)[0].split(":///", 1)[-1])).absolute()


def _check_http(uri: str) -> None:
    """In a thread of its own: looking up a name has no time limit."""
    problems: list[str] = [f"no answer within {SERVER_SECONDS:g} s"]
    thread = threading.Thread(target=lambda: problems.__setitem__(0, _http_problem(uri)), daemon=True)
    thread.start()
    thread.join(SERVER_SECONDS)
    if problems[0]:
        raise StoreError(f"MLflow at '{public(uri)}': {problems[0]}. Start the server or correct MLFLOW_TRACKING_URI, {_LATER}")


def _http_problem(uri: str) -> str:
    """What keeps the server from being used, "" where nothing does. Being asked for a password counts as an answer."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{public(uri).rstrip('/')}/health", timeout=SERVER_SECONDS) as answer:
            answer.read(64)
    except urllib.error.HTTPError as error:
        return "" if error.code in (401, 403) else f"answers {error.code} {error.reason}, not as an MLflow server does"
    except urllib.error.URLError as error:
        return f"unreachable ({getattr(error.reason, 'strerror', None) or error.reason})"
    except (OSError, ValueError) as error:
        return f"unreachable ({error})"
    return ""


def _check_sqlite(uri: str) -> None:
    path = sqlite_path(uri)
    folder = next(folder for folder in path.parents if folder.exists())
    if not folder.is_dir():
        problem = f"{folder} is a file, not a folder"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        problem = f"{path if path.exists() else folder} cannot be written"
    elif path.exists() and (fault := _database_fault(path)):
        problem = f"{path} is no usable database ({fault})"
    else:
        return
    raise StoreError(f"MLflow at '{uri}': {problem}. Choose another MLFLOW_TRACKING_URI or results folder, {_LATER}")


def _database_fault(path: Path) -> str | None:
    import sqlite3

    try:
        connection = sqlite3.connect(path, timeout=SERVER_SECONDS)
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        return None if "locked" in str(error) else str(error)
    except sqlite3.Error as error:
        return str(error)
    return None
