"""Setting a trial's record aside: its whole folder goes to ``earlier/<n>/`` in it, and the trial can begin anew. Nothing is deleted.

The move is made of renames, the journal last, inside ``earlier/<n>.moving``. A crash in between leaves that folder: :func:`recover` moves
everything back where the journal is still at its place, and finishes the move where it is not.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

EARLIER, MOVING, JOURNAL = "earlier", ".moving", "record.jsonl"
#: What stays: the lock is the trial's, not the record's.
_STAYS = ("lock", EARLIER)


def numbers(trial_dir: Path) -> list[int]:
    """Numbers of the records that were set aside, ascending."""
    try:
        names = os.listdir(trial_dir / EARLIER)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if name.isdigit())


def move(trial_dir: Path) -> int:
    """Set the record in ``trial_dir`` aside; hold the trial's lock. Returns its number."""
    number = max(numbers(trial_dir), default=0) + 1
    moving = trial_dir / EARLIER / f"{number}{MOVING}"
    moving.mkdir(parents=True, exist_ok=True)
    _sync(moving.parent, trial_dir)
    for path in sorted(trial_dir.iterdir(), key=lambda path: path.name == JOURNAL):  # the journal last
        if path.name not in _STAYS:
            if path.name == JOURNAL:
                _sync(moving, trial_dir)
            with contextlib.suppress(FileNotFoundError):  # somebody's temporary file, renamed meanwhile
                path.rename(moving / path.name)
    _sync(moving, trial_dir)
    _finish(moving)
    return number


def recover(trial_dir: Path) -> None:
    """Finish or undo a move that was cut off; hold the trial's lock."""
    for moving in unfinished(trial_dir):
        if not (moving / JOURNAL).exists():
            for path in list(moving.iterdir()):
                if not os.path.lexists(trial_dir / path.name):  # else it was made anew since; the old one stays where it is
                    path.rename(trial_dir / path.name)
            _sync(moving, trial_dir)
            if not any(moving.iterdir()):
                moving.rmdir()
                continue
        _finish(moving)


def unfinished(trial_dir: Path) -> list[Path]:
    """Moves that were cut off, or are going on while somebody holds the lock."""
    return sorted((trial_dir / EARLIER).glob(f"*{MOVING}"))


def _finish(moving: Path) -> None:
    moving.rename(moving.with_name(moving.name.removesuffix(MOVING)))
    _sync(moving.parent)


def _sync(*folders: Path) -> None:
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
