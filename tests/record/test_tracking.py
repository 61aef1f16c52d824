"""Can MLflow be used? Said fast, and before anything starts."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time

import pytest

from salt_lab.errors import StoreError
from salt_lab.record import Store
from salt_lab.record.tracking import check_server, public, tracking_uri


@contextlib.contextmanager
def server(status: int):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"OK")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_dead_server_is_named_at_once_with_the_next_step():
    uri, begin = f"http://127.0.0.1:{unused_port()}", time.monotonic()
    with pytest.raises(StoreError, match=f"{uri}': unreachable .*Connection refused.*Start the server.*salt-lab sync FOLDER") as error:
        check_server(uri)
    assert time.monotonic() - begin < 1.0
    assert error.value.exit_code == 2


def test_a_server_that_accepts_and_never_answers_is_given_up_in_three_seconds():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begin = time.monotonic()
        with pytest.raises(StoreError, match=r"no answer within 3 s|timed out"):
            check_server(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert 2.0 < time.monotonic() - begin < 4.5


def test_a_name_that_does_not_exist_is_unreachable():
    with pytest.raises(StoreError, match="unreachable|no answer"):
        check_server("http://no-such-host.invalid:5000")


@pytest.mark.parametrize("status", [200, 401, 403])
def test_a_server_that_answers_or_asks_for_a_password_is_there(status):
    with server(status) as uri:
        check_server(uri)


@pytest.mark.parametrize("status", [404, 502])
def test_a_server_that_is_no_mlflow_is_said_to_be_none(status):
    with server(status) as uri, pytest.raises(StoreError, match=f"answers {status} .*not as an MLflow server does"):
        check_server(uri)


def test_a_password_in_the_address_is_not_repeated():
    assert public("https://me:secret@host:5000/x") == "https://host:5000/x"
    with pytest.raises(StoreError) as error:
        check_server(f"http://me:secret@127.0.0.1:{unused_port()}")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("uri", ["file:///data/mlruns", "/data/mlruns", "file:/data/mlruns/"])
def test_a_file_store_is_refused_with_the_address_to_use_instead(uri):
    with pytest.raises(StoreError, match=r"no file store any more.*MLFLOW_TRACKING_URI=sqlite:////data/mlruns/mlflow\.db"):
        check_server(uri)


def test_a_new_sqlite_file_is_fine_and_not_made_by_asking(tmp_path):
    check_server(f"sqlite:///{tmp_path}/deep/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is not a database, whatever its name says" * 10)
    with pytest.raises(StoreError, match=r"mlflow\.db is no usable database \(file is not a database\)"):
        check_server(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_file_where_the_databases_folder_should_be_is_said(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="runs is a file, not a folder"):
        check_server(f"sqlite:///{tmp_path}/runs/mlflow.db")


def test_without_a_server_the_database_lies_in_the_results_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(Store(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org")
    assert tracking_uri(Store(tmp_path)) == "http://example.org"
