"""Processes of one task on this machine, one per worker: started together, watched, and none left behind **(ours)**.

torchrun would do, but it says neither which worker died nor of what. Each process holds a pipe from the one that started it: over it comes
its order, then news of the others, and its end means that nobody is there any more to work for.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from salt_lab.errors import SaltLabError

#: Seconds that the others get to end by themselves once one has ended badly.
GRACE_SECONDS = 15.0
#: Seconds that all get to leave in order (checkpoint, last word) when they are asked to.
LEAVE_SECONDS = 60.0


class Crew:
    """The processes; a context manager, at whose end none of them lives any more.

    Args:
        task: ``module:function``, called as ``function(rank=..., workers=..., line=Line, **arguments)`` in each process.
        arguments: fit into JSON.
        workers: how many.
        log: file that their output is added to.
        for_first: file descriptor that the process of rank 0 inherits, as ``SALT_LAB_INHERITED``; None = none.
    """

    def __init__(self, task: str, arguments: Mapping[str, Any], workers: int, log: Path, for_first: int | None = None) -> None:
        self.workers, self.log = workers, log
        self._errors = tempfile.TemporaryDirectory(prefix="salt-lab-")
        self._order = json.dumps({"task": task, "arguments": dict(arguments), "workers": workers, "errors": self._errors.name})
        self.processes: list[subprocess.Popen[str]] = []
        self._for_first = for_first
        self._lost: str | None = None

    def __enter__(self) -> Crew:
        with self.log.open("a") as log:
            try:
                for rank in range(self.workers):
                    self.processes.append(self._start(rank, log))
            except BaseException:
                self.end()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def _start(self, rank: int, log: Any) -> subprocess.Popen[str]:
        inherited = (self._for_first,) if rank == 0 and self._for_first is not None else ()
        environment = os.environ | {"SALT_LAB_INHERITED": " ".join(map(str, inherited))}
        process = subprocess.Popen(
            [sys.executable, "-m", "salt_lab.train.crew", str(rank)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
            env=environment,
            pass_fds=inherited,
            start_new_session=True,  # a Ctrl-C goes to the one that started them: it tells them
        )
        _write(process, self._order)
        return process

    def watch(self) -> list[int]:
        """Wait until all have ended; when one ends badly the others are told and get :data:`GRACE_SECONDS`. Exit codes by rank."""
        deadline = None
        while None in (codes := [process.poll() for process in self.processes]):
            bad = [rank for rank, code in enumerate(codes) if code]
            if bad and deadline is None:
                deadline = time.monotonic() + GRACE_SECONDS
                self._lost = self._how(bad)
                if self._lost is not None:
                    self._tell(self._lost)
            if deadline is not None and time.monotonic() > deadline:
                self.end()
            time.sleep(0.05)
        return [int(code or 0) for code in codes]

    def lost(self) -> str | None:
        """Which worker died first without a word of its own, and how; None = none did."""
        return self._lost

    def leave(self) -> None:
        """Ask all to checkpoint and leave (SIGTERM), and wait for it for :data:`LEAVE_SECONDS` at most."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline and any(process.poll() is None for process in self.processes):
            time.sleep(0.05)

    def errors(self) -> list[tuple[str, str]]:
        """Class and text of the lab's own errors that processes ended with, by rank."""
        found = [json.loads(path.read_text()) for path in sorted(Path(self._errors.name).glob("*.json"))]
        return [(kind, text) for kind, text in found]

    def _how(self, bad: list[int]) -> str | None:
        """How the first of these ended that left no error of the lab's own."""
        silent = [rank for rank in bad if not (Path(self._errors.name) / _error_file(rank)).is_file()]
        if not silent:
            return None
        code = self.processes[silent[0]].returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"worker {silent[0]} of {self.workers} {how}"

    def _tell(self, news: str) -> None:
        for process in self.processes:
            if process.poll() is None:
                _write(process, news)

    def end(self) -> None:
        """No process of the crew lives after this."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()


def _error_file(rank: int) -> str:
    return f"{rank:04d}.json"


def _write(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it has died: watch() sees it
        process.stdin.write(line + "\n")
        process.stdin.flush()


class Line:
    """A process's end of the pipe. When the one that started it is gone, so is this process."""

    def __init__(self) -> None:
        self.news: str | None = None

    def listen(self) -> None:
        """Read on in a thread of its own."""
        threading.Thread(target=self._read, name="crew line", daemon=True).start()

    def _read(self) -> None:
        while news := sys.stdin.readline():
            self.news = news.strip()
        os._exit(3)


def main(rank: int) -> int:
    """What each process does."""
    signal.signal(signal.SIGTERM, _leave)
    order, line = json.loads(sys.stdin.readline()), Line()
    line.listen()
    module, _, function = order["task"].partition(":")
    try:
        getattr(importlib.import_module(module), function)(rank=rank, workers=order["workers"], line=line, **order["arguments"])
    except SaltLabError as error:
        (Path(order["errors"]) / _error_file(rank)).write_text(json.dumps([type(error).__name__, str(error)]))
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def _leave(number: int, frame: Any) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stdout.flush()
    os._exit(code)  # threads of libraries shall not keep it
