"""What stays on the disk of a finished trial, and how much of it a study may use. Records and detections always stay.

A trial reads its study's rules from the launch that runs it, so they hold with every executor. Rules change no number and no trial's id.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salt_lab.errors import StoreError
from salt_lab.record.store import Store, TrialBusy
from salt_lab.spec.retention import Retention
from salt_lab.train.checkpoints import keep_last

GIB = 2**30
#: States after which a trial's checkpoints are no longer needed to get it done.
FINISHED = ("done", "stopped")


def rules_of(store: Store, study: str | None, launch_id: str | None) -> Retention:
    """The rules of the launch on whose behalf a trial runs; the defaults where it has none (older ones, trials run without a study)."""
    launch = store.launch(study, launch_id) if study and launch_id else None
    return Retention.model_validate((launch or {}).get("retention") or {})


def best_epoch(evals: dict[int, dict[str, Any]]) -> int | None:
    """The epoch with the highest AP; the first of equals; None where none has an AP."""
    aps = {epoch: found["metrics"].get("AP") for epoch, found in sorted(evals.items())}
    known = {epoch: ap for epoch, ap in aps.items() if ap is not None}
    return max(known, key=lambda epoch: known[epoch]) if known else None


def prune(folder: Path, rules: Retention) -> None:
    """Of the ``checkpoints`` folder of a trial that is done, or was stopped early, leave what the rules say.

    A stopped trial that is asked for without early stopping later goes on from its last checkpoint, or from scratch where none is kept.
    """
    if rules.checkpoints == "none":
        remove_checkpoints(folder)
        return
    keep_last(folder, 1)
    for path in (*folder.glob("*.damaged"), *([] if rules.checkpoints == "best_and_last" else folder.glob("best_epoch_*.pth"))):
        path.unlink(missing_ok=True)


def remove_checkpoints(folder: Path) -> int:
    """Remove every checkpoint of a trial; returns the bytes that this frees."""
    freed = 0
    for path in (*folder.glob("*.pth"), *folder.glob("*.pth.damaged"), folder / "last_checkpoint"):
        with suppress(FileNotFoundError):
            freed += path.stat().st_size
            path.unlink()
    return freed


@dataclass(frozen=True)
class _Use:
    """What one trial takes on the disk, bytes, and whether its checkpoints may go."""

    trial_id: str
    state: str
    ended: float
    checkpoints: int
    rest: int
    largest: int
    data: str

    @property
    def finished(self) -> bool:
        return self.state in FINISHED


@dataclass(frozen=True)
class Taken:
    """What a study takes on the disk now, bytes: checkpoints of trials that run or can go on, by trial, and of finished ones; records,
    detections and logs, also as a mean over finished trials; the decoded pictures of its data."""

    going: dict[str, int]
    finished: int
    rest: int
    rest_of_one: float
    decoded: int


def taken(store: Store, study: str) -> Taken:
    """Look at the disk. Counts every trial whose latest attempt was the study's."""
    uses = _uses(store, study)
    ended = [use.rest for use in uses if use.finished]
    return Taken(
        going={use.trial_id: use.checkpoints for use in uses if not use.finished},
        finished=sum(use.checkpoints for use in uses if use.finished),
        rest=sum(use.rest for use in uses),
        rest_of_one=sum(ended) / len(ended) if ended else 0.0,
        decoded=decoded_bytes(store, {use.data for use in uses}),
    )


def decoded_bytes(store: Store, fingerprints: Iterable[str]) -> int:
    """What the decoded pictures of these data sets (by fingerprint) take; all studies of a results folder share them."""
    folders = (folder for name in fingerprints if name for folder in (store.data_dir / "decoded").glob(f"{name}-*"))
    return sum(size for _, size in _files(folders))


def room_for_pictures(store: Store, study: str | None, rules: Retention) -> int | None:
    """Bytes of the study's budget that decoded pictures may take: what is left when a trial has two checkpoints. None = no budget."""
    if rules.disk_gb is None or study is None:
        return None
    uses = _uses(store, study)
    used = sum(use.rest + (0 if use.finished else use.checkpoints) for use in uses) + decoded_bytes(store, {use.data for use in uses})
    return max(0, int(rules.disk_gb * GIB) - used - 2 * max((use.largest for use in uses), default=0))


def make_room(store: Store, study: str, rules: Retention, *, starting: str | None = None) -> None:
    """Bring the trials that ``study`` trains under ``rules.disk_gb``: the oldest finished trials' checkpoints go first.

    Never removed: records, detections, logs; the checkpoints of a trial that runs, can go on, or was trained by another study; decoded
    pictures, which count all the same.

    Args:
        store: the results folder.
        study: the study's name.
        rules: its rules; without ``disk_gb`` nothing is done.
        starting: a trial that is about to start: room is made for the two checkpoints that a running trial keeps, as large as the study's
            largest so far.

    Raises:
        StoreError: that is not enough; says what takes the space.
    """
    if rules.disk_gb is None:
        return
    uses, budget = _uses(store, study), rules.disk_gb * GIB
    largest = max((use.largest for use in uses), default=0)
    growing = {use.trial_id: use.checkpoints for use in uses if use.state == "running"}
    if starting is not None:
        growing.setdefault(starting, next((use.checkpoints for use in uses if use.trial_id == starting), 0))
    need = sum(use.checkpoints + use.rest for use in uses) + decoded_bytes(store, {use.data for use in uses})
    need += sum(max(0, 2 * largest - has) for has in growing.values())
    removable = sorted((use for use in uses if use.finished and use.checkpoints and use.trial_id != starting), key=lambda use: use.ended)
    for use in removable:
        if need <= budget:
            break
        with suppress(TrialBusy), store.lock(use.trial_id):
            need -= remove_checkpoints(store.trial_dir(use.trial_id) / "checkpoints")
    if need > budget:
        raise StoreError(_full(store, study, rules, _uses(store, study), need))


def _full(store: Store, study: str, rules: Retention, uses: list[_Use], need: int) -> str:
    going = [use for use in uses if not use.finished]
    parts = {
        f"checkpoints of {len(going)} trials that run or can go on": sum(use.checkpoints for use in going),
        f"checkpoints of {len(uses) - len(going)} finished trials": sum(use.checkpoints for use in uses if use.finished),
        "records, detections and logs": sum(use.rest for use in uses),
        "decoded pictures": decoded_bytes(store, {use.data for use in uses}),
    }
    taken = ", ".join(f"{name} {size / GIB:.3g} GiB" for name, size in parts.items())
    room = max(0.0, need - sum(parts.values())) / GIB
    return (
        f"{store.root}: retention.disk_gb = {rules.disk_gb:g} of study '{study}' is not enough to start another trial: {taken}, room for "
        f"checkpoints of running trials {room:.3g} GiB. Raise retention.disk_gb, or set retention.checkpoints to none, "
        f"or delete {store.data_dir / 'decoded'} and set SALT_LAB_DECODED_GB=0"
    )


def _uses(store: Store, study: str) -> list[_Use]:
    """Every trial whose latest attempt was the study's."""
    found = []
    for trial_id in store.trial_ids():
        record = store.record(trial_id)
        if record.study == study:
            folder = store.trial_dir(trial_id)
            kept = [size for path, size in _files([folder / "checkpoints"])]
            rest = sum(size for path, size in _files([folder])) - sum(kept)
            found.append(
                _Use(trial_id, record.state, record.time or 0.0, sum(kept), rest, max(kept, default=0), record.data_fingerprint or "")
            )
    return found


def _files(folders: Iterable[Path]) -> list[tuple[Path, int]]:
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            with suppress(OSError):
                if path.is_file():
                    found.append((path, path.stat().st_size))
    return found
