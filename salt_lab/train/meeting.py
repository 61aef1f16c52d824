"""Where the workers of one trial meet: a key-value store that the process of rank 0 serves, on a port that cannot collide **(ours)**.

The process group meets there, and so do words that no collective can carry: rank 0's go, a worker's own error, and how it all ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from salt_lab.errors import SaltLabError
from salt_lab.train.lost import NO_WORD, PortTaken, Word, WorkerLost

#: A collective that takes longer means that a worker hangs.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)
#: Seconds until the process of rank 0 must be there.
CONNECT_SECONDS = 120.0
#: Seconds that a worker gives the others to say what happened.
WORD_SECONDS = 3.0
#: Seconds that a worker with an error waits for rank 0 to write it down.
END_SECONDS = 20.0
_reserved: dict[int, socket.socket] = {}


def reserve_port(address: str = "127.0.0.1") -> int:
    """A free port of this machine, kept open by this process until its :class:`Meeting` of rank 0 takes it over: nobody else can get it.

    Args:
        address: of this machine, as the other workers reach it.
    """
    listening = listen(address)
    port = int(listening.getsockname()[1])
    _reserved[port] = listening
    return port


def listen(address: str) -> socket.socket:
    """A socket on a free port, listening."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind((address, 0))
    listening.listen(1024)
    return listening


def take_over(descriptor: int) -> None:
    """This process inherited a listening socket: as if it had called :func:`reserve_port` itself."""
    listening = socket.socket(fileno=descriptor)
    _reserved[int(listening.getsockname()[1])] = listening


class Meeting:
    """One worker's end of the meeting place.

    Args:
        rank: of this worker; 0 serves.
        workers: how many.
        address, port: where rank 0 is; the port is one that :func:`reserve_port` gave in its process.

    Raises:
        PortTaken: the port was not reserved and another program has it.
        WorkerLost: nobody serves there.
    """

    def __init__(self, rank: int, workers: int, address: str, port: int) -> None:
        self.rank, self.workers = rank, workers
        listening = _reserved.pop(port, None) if rank == 0 else None
        own: dict[str, Any] = {} if listening is None else {"master_listen_fd": listening.detach()}
        patience = timedelta(seconds=CONNECT_SECONDS)
        try:
            self.store = dist.TCPStore(address, port, None, rank == 0, patience, wait_for_workers=False, **own)
        except RuntimeError as error:
            if rank == 0:
                raise PortTaken(f"port {port} of {address}: another program has it; reserve another and start the workers again") from error
            raise WorkerLost(f"worker 0 of {workers} did not open {address}:{port} within {CONNECT_SECONDS:.0f} s") from error

    def go(self) -> None:
        """Rank 0: the record is open and the data are there, come in."""
        self.store.set("go", "go")

    def wait_for_go(self) -> bool:
        """The others: wait for rank 0's go. False where there is nothing to do: the trial is done.

        Raises:
            SaltLabError: what rank 0 ended with instead.
        """
        while not self._there("go"):
            if (end := self._read("end")) is not None:
                self._raise(end)
                return False
            time.sleep(0.05)
        return True

    def say(self, word: Word) -> None:
        """How it ended for this worker; what rank 0 says is how the trial ended."""
        with contextlib.suppress(RuntimeError):  # rank 0 is gone: nobody is left to listen
            self.store.set("end" if self.rank == 0 else f"word/{self.rank}", json.dumps(word))

    def end(self, seconds: float) -> Word | None:
        """How the trial ended, once rank 0 says so; None if it does not within ``seconds`` or is gone."""
        with contextlib.suppress(WorkerLost):
            for _ in _ticks(seconds):
                if (end := self._read("end")) is not None:
                    self.store.add("heard", 1)
                    return end
        return None

    def part(self, seconds: float = 5.0) -> None:
        """Rank 0: keep serving until the others have heard how it ended, or for so many seconds."""
        for _ in _ticks(seconds):
            if self.store.add("heard", 0) >= self.workers - 1:
                return

    def why(self, error: BaseException, heard: Callable[[], str | None]) -> BaseException:
        """What is behind an error of rank 0: itself, or, where it only says that another worker is gone, that worker's own.

        Args:
            heard: what whoever started the workers says about one that died; None = nothing.
        """
        if not is_echo(error):
            return error
        words: dict[int, Word] = {}
        for _ in _ticks(WORD_SECONDS):
            words = {other: word for other in range(1, self.workers) if (word := self._read(f"word/{other}")) is not None}
            causes = [(other, word) for other, word in words.items() if word.state != "echo"]
            if causes:
                return causes[0][1].as_error(f"worker {causes[0][0]} of {self.workers}: ")
            if (told := heard()) is not None:
                return WorkerLost(told)
        silent = [str(other) for other in range(1, self.workers) if other not in words]
        return WorkerLost(NO_WORD.format(", ".join(silent) or "?", self.workers))

    def _raise(self, end: Word) -> None:
        if end.state not in ("done", "stopped"):
            raise end.as_error()

    def _there(self, key: str) -> bool:
        try:
            return bool(self.store.check([key]))
        except RuntimeError as error:
            raise WorkerLost(NO_WORD.format(0, self.workers)) from error

    def _read(self, key: str) -> Word | None:
        return Word(*json.loads(self.store.get(key))) if self._there(key) else None


@contextlib.contextmanager
def joined(meeting: Meeting, device: str | None) -> Iterator[None]:
    """This process is a worker of the group: over NCCL where there are GPUs, each with one of its own, else over gloo."""
    import torch

    on_gpu = device != "cpu" and torch.cuda.is_available()
    own = meeting.rank % torch.cuda.device_count() if on_gpu else 0
    if on_gpu:
        torch.cuda.set_device(own)
    before, os.environ["LOCAL_RANK"] = os.environ.get("LOCAL_RANK"), str(own)  # mmengine asks for it even where it does not use it
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", store=meeting.store, rank=meeting.rank, world_size=meeting.workers, timeout=COLLECTIVE_TIMEOUT
    )
    try:
        yield
    except BaseException as error:
        if meeting.rank:
            meeting.say(word_of(error, traceback.format_exc()))  # before the others notice that this worker is gone
        raise
    finally:
        os.environ.pop("LOCAL_RANK")
        os.environ.update({"LOCAL_RANK": before} if before is not None else {})
        dist.destroy_process_group()


def word_of(error: BaseException, tail: str) -> Word:
    """What a worker says of its error."""
    state = "echo" if is_echo(error) else "interrupted" if isinstance(error, KeyboardInterrupt | WorkerLost) else "failed"
    text = str(error) if isinstance(error, SaltLabError | KeyboardInterrupt) else f"{type(error).__name__}: {first_line(error)}"
    return Word(state, type(error).__name__, text, tail)


def is_echo(error: BaseException) -> bool:
    """Does the error only say that another process does not answer any more?"""
    if isinstance(error, SaltLabError):
        return False
    text = str(error).lower()
    return isinstance(error, dist.DistError | ConnectionError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "nccl", "closed by peer", "reset by peer"))
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text; empty where it has none."""
    return (str(error).splitlines() or [""])[0]


def _ticks(seconds: float) -> Iterator[None]:
    """At once, then ten times a second for so long."""
    deadline = time.monotonic() + seconds
    yield
    while time.monotonic() < deadline:
        time.sleep(0.1)
        yield
