"""A fake trial that really takes memory, inside a memory cgroup: for tests in which the kernel kills it. Linux, as root."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salt_lab.record.fold import Record
from salt_lab.record.recorder import FolderRecorder
from salt_lab.record.store import Store
from salt_lab.spec.trial import Trial
from salt_lab.testing import fake_trial as fake

MIB = 2**20
#: Pages are touched in steps, so that the limit is met amid the taking.
STEP = 4 * MIB
#: Seconds that a trial holds its memory for somebody of its group to be killed.
PATIENCE = 30.0
#: Where the two versions of the kernel's interface have the controller; the file of a group that holds its limit, and that of its kills.
_CONTROLLERS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.events"),
)


@dataclass(frozen=True)
class MemoryGroup:
    """A group of processes with a limit to their memory."""

    folder: str
    kills_file: str

    def join(self) -> None:
        """This process belongs to it from now on; what it has already is not counted."""
        (Path(self.folder) / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def kills(self) -> int:
        """Processes of the group that the kernel has killed because the group's memory ran out."""
        found = re.search(r"^oom_kill (\d+)", (Path(self.folder) / self.kills_file).read_text(), re.MULTILINE)
        return int(found.group(1)) if found else 0


@contextlib.contextmanager
def memory_group(limit_mib: int) -> Iterator[MemoryGroup]:
    """A new group, gone afterwards: no process may be left in it.

    Raises:
        OSError: none can be made here (no rights, or no memory controller to give away); says why.
    """
    mounted = [found for found in _CONTROLLERS if (found[0] / "cgroup.procs").is_file()]
    if not mounted:
        raise OSError("no memory cgroup is mounted")
    root, limit, kills = mounted[0]
    folder = root / _own(root) / f"salt-lab-test-{os.getpid()}"
    folder.mkdir()
    try:
        if not (folder / limit).is_file():
            raise OSError(f"{root}: the memory controller is not given to new groups")
        (folder / limit).write_text(str(limit_mib * MIB))
        with contextlib.suppress(OSError):  # memory that goes to swap would not be killed for
            (folder / "memory.swap.max").write_text("0")
        yield MemoryGroup(str(folder), kills)
    finally:
        _remove(folder)


def _own(root: Path) -> str:
    """Of version 1 a group below this process's own, so that a limit on that holds too; of version 2 groups with processes have none below."""
    found = re.search(r"^\d+:[\w,]*\bmemory\b[\w,]*:/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    own = found.group(1) if found else ""
    return own if (root / own / "cgroup.procs").is_file() else ""


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + 10.0
    while True:
        try:
            return folder.rmdir()
        except OSError:  # a killed process takes a moment to go
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def hungry(group: MemoryGroup, mib: int, wait: bool) -> Callable[..., Record]:
    """A trial function (see :data:`salt_lab.schedule.executor.TrialFn`) that takes memory in its second epoch.

    Args:
        group: which its process joins.
        mib: how much it takes, MiB.
        wait: hold it until the kernel has killed a process of the group, so that trials that run at a time really meet.
    """
    return functools.partial(_hungry_trial, group=group, mib=mib, wait=wait)


def _hungry_trial(trial: Trial, store: Store, *, group: MemoryGroup, mib: int, wait: bool, **where: Any) -> Record:
    group.join()

    def eat(recorder: FolderRecorder, attempts: int) -> None:
        eaten: list[bytearray] = []
        before = group.kills
        while len(eaten) * STEP < mib * MIB and not (wait and group.kills > before):  # who is spared asks for no more: one kill is enough
            eaten.append(bytearray(b"x") * STEP)
            time.sleep(0.01)
        deadline = time.monotonic() + PATIENCE
        while wait and not group.kills:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody was killed for memory within {PATIENCE:g} s")
            time.sleep(0.02)

    fake.TROUBLE[trial.seed] = eat
    return fake.fake_trial(trial, store, **where)
