"""The file behind :mod:`salt_lab.record.folded`: texts by trial id and stamp, in SQLite. Apart from it, so that small studies load no SQLite."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from salt_lab.record import fold, folded, journal
from salt_lab.record.folded import Stamp

#: Another process may be writing; it is not waited for longer.
PATIENCE_SECONDS = 1.0
_TABLE = "CREATE TABLE IF NOT EXISTS folded (trial_id TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, record TEXT)"


@lru_cache(maxsize=1)
def folding_rules() -> int:
    """A number that changes with the code that folds: a cache made by other code is made anew."""
    source = b"".join(Path(str(module.__file__)).read_bytes() for module in (fold, folded, journal))
    return int.from_bytes(hashlib.sha256(source).digest()[:4], "big") >> 1


class FoldedCache:
    """The file. Whatever goes wrong with it, reading finds nothing and writing keeps nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._usable = True

    def read(self, trial_ids: Sequence[str]) -> dict[str, tuple[Stamp, str]]:
        """Trial id -> stamp and record, of those that are kept."""
        if not self._usable or not self._path.exists():
            return {}
        marks = ",".join("?" * len(trial_ids))
        try:
            with contextlib.closing(self._open("ro")) as database:
                if database.execute("PRAGMA user_version").fetchone()[0] != folding_rules():
                    return {}
                rows = database.execute(f"SELECT * FROM folded WHERE trial_id IN ({marks})", list(trial_ids)).fetchall()
        except sqlite3.OperationalError:  # busy, or left half written: the next writer puts it right
            return {}
        except sqlite3.Error as error:
            self._give_up(error)
            return {}
        return {trial_id: ((size, mtime_ns, inode), text) for trial_id, size, mtime_ns, inode, text in rows}

    def write(self, news: dict[str, tuple[Stamp, str]]) -> None:
        """Keep these, in one transaction."""
        if not self._usable:
            return
        try:
            self._path.parent.mkdir(exist_ok=True)
            with contextlib.closing(self._open("rwc")) as database, database:
                database.execute("BEGIN IMMEDIATE")
                if database.execute("PRAGMA user_version").fetchone()[0] != folding_rules():
                    database.execute("DROP TABLE IF EXISTS folded")
                    database.execute(f"PRAGMA user_version = {folding_rules()}")
                database.execute(_TABLE)
                rows = [(trial_id, *stamp, text) for trial_id, (stamp, text) in news.items()]
                database.executemany("INSERT OR REPLACE INTO folded VALUES (?, ?, ?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _open(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.as_uri()}?mode={mode}", uri=True, timeout=PATIENCE_SECONDS)

    def _give_up(self, error: Exception) -> None:
        """Go on without it; a file that is no database is put out of the way of the next one."""
        self._usable = False
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with contextlib.suppress(OSError):
                self._path.unlink()
