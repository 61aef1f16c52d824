#!/usr/bin/env python3
"""A study's results folder in a few files of limited size, and back: to and from a machine that is lent for minutes.

    python cluster/carry.py pack   STUDY [KEY=VALUE ...] --store runs --to FOLDER     FOLDER/pack.json, pack.0, pack.1, ...
    python cluster/carry.py unpack FOLDER --store runs

Packed are all records, detections, configs, logs and probes (what ``salt-lab export --as-is --detections`` writes), and as many checkpoints as
fit: first those of trials that are not done, the farthest first, each the last one that can be read, then those of finished trials. What did
not fit is named; a trial without its checkpoint starts from scratch. Data are not packed: embedded sets are drawn again, byte for byte.

Unpacking merges: it is ``salt-lab import`` and keeps its promises. Records grow and are never overwritten, another training of the same trial
is refused before anything is written, twice changes nothing. A checkpoint is taken only to a trial whose record is the one that it belongs to.
Any unpacked results folder goes on with ``salt-lab run STUDY``. The pieces are one zip file, cut: ``cat pack.[0-9]* > all.zip`` makes it whole.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from salt_lab.cli.trials import planned_trials
from salt_lab.errors import SaltLabError, StoreError
from salt_lab.record.archive import copy_whole, write_archive
from salt_lab.record.import_ import import_archive
from salt_lab.record.store import Store
from salt_lab.spec import load_study
from salt_lab.spec.study import Study
from salt_lab.train.checkpoints import last_checkpoint, position

MIB = 2**20
LIST, PIECE = "pack.json", "pack."
FORMAT = "salt-lab pack 1"
#: Room for ``pack.json`` and the zip's own list of files.
SPARE = 256 * 1024
#: Compressed already, or noise: stored as they are.
STORED = (".pth", ".gz", ".npz", ".parquet")


def pack(study: Study, store: Store, target: Path, *, piece_mib: float = 16.0, total_mib: float = 64.0, files: int = 8) -> dict[str, Any]:
    """Write ``target/pack.json`` and its pieces.

    Args:
        study: whose trials.
        store: the results folder; none of the trials may run.
        target: a folder without a pack, made where absent.
        piece_mib, total_mib, files: most MiB of a file and of all, most files, ``pack.json`` among them.

    Returns:
        What ``pack.json`` says: ``study``, ``trials``, ``checkpoints`` (trial ids), ``left_out`` (trial ids), ``pieces``.

    Raises:
        StoreError: a trial runs, the records alone are too large, ``target`` has a pack or cannot be written.
    """
    if (target / LIST).exists():
        raise StoreError(f"{target / LIST}: a pack is there: choose another folder, or unpack it and remove it")
    room = int(min(total_mib, piece_mib * (files - 1)) * MIB) - SPARE
    trial_ids = [item.trial_id for item in planned_trials(study, store)]
    _refuse_running(store, trial_ids)
    with tempfile.TemporaryDirectory(prefix="salt-lab-pack-") as name:
        folder = Path(name)
        manifest = write_archive(store, study, trial_ids, folder / "archive", detections=True, as_is=True)
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            for path in sorted(path for path in (folder / "archive").rglob("*") if path.is_file()):
                _add(archive, path, path.relative_to(folder).as_posix())
            if (taken := _size(folder / "all.zip", archive)) > room:
                raise StoreError(
                    f"records and detections of {study.name} take {taken / MIB:.1f} MiB and {room / MIB:.1f} are allowed: allow more"
                )
            known = {entry["trial_id"] for entry in manifest["trials"]}
            kept, left = _add_checkpoints(archive, store, [i for i in trial_ids if i in known], room - taken)
        pieces = _cut(folder / "all.zip", target, int(piece_mib * MIB))
    content = {"format": FORMAT, "study": study.name, "trials": sorted(known), "checkpoints": kept, "left_out": left, "pieces": pieces}
    (target / LIST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return content


def unpack(source: Path, store: Store) -> tuple[str, int]:
    """Merge the pack in ``source`` into a results folder.

    Returns:
        What was done to the records, in a line, and how many checkpoints were taken.

    Raises:
        StoreError: no pack, a piece is missing or damaged, or the results folder holds another record of one of its trials.
    """
    content = _read_list(source)
    with tempfile.TemporaryDirectory(prefix="salt-lab-unpack-") as name:
        folder = Path(name)
        _join(source, content["pieces"], folder / "all.zip")
        with zipfile.ZipFile(folder / "all.zip") as archive:
            _refuse_strangers(source, archive.namelist())
            archive.extractall(folder)
        done = import_archive(folder / "archive", store)
        theirs = Store(folder / "archive")
        taken = sum(_take_checkpoints(folder / "checkpoints" / trial_id, trial_id, theirs, store) for trial_id in content["checkpoints"])
    return str(done), taken


def _refuse_running(store: Store, trial_ids: Iterable[str]) -> None:
    for trial_id in trial_ids:
        if store.is_running(trial_id):
            raise StoreError(f"{store.trial_dir(trial_id)}: the trial is being run: end it first (salt-lab run ends in order on SIGTERM)")


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    archive.write(path, name, zipfile.ZIP_STORED if path.suffix in STORED else zipfile.ZIP_DEFLATED)


def _size(path: Path, archive: zipfile.ZipFile) -> int:
    if archive.fp is not None:
        archive.fp.flush()
    return path.stat().st_size


def _add_checkpoints(archive: zipfile.ZipFile, store: Store, trial_ids: Sequence[str], room: int) -> tuple[list[str], list[str]]:
    """The trials whose checkpoints fit, and those whose do not."""
    kept, left = [], []
    for _, trial_id, paths in sorted(
        (_rank(store, trial_id), trial_id, files) for trial_id in trial_ids if (files := to_carry(store, trial_id))
    ):
        size = sum(path.stat().st_size + 1024 for path in paths)
        if size > room:
            left.append(trial_id)
            continue
        room -= size
        kept.append(trial_id)
        for path in paths:
            _add(archive, path, f"checkpoints/{trial_id}/{path.name}")
    return kept, left


def to_carry(store: Store, trial_id: str) -> list[Path]:
    """The last checkpoint of a trial that can be read, and the weights of its best epoch where those are kept; none where it has none."""
    folder = store.trial_dir(trial_id) / "checkpoints"
    last = last_checkpoint(folder)
    return [last, *sorted(folder.glob("best_epoch_*.pth"))] if last is not None and last.parent == folder else []


def _rank(store: Store, trial_id: str) -> tuple[bool, int, int]:
    """What is not done comes first, and of that what has come farthest."""
    last = last_checkpoint(store.trial_dir(trial_id) / "checkpoints")
    epoch, step = position(last) if last else (0, 0)
    return (store.record(trial_id).state in ("done", "stopped"), -epoch, -step)


def _cut(whole: Path, target: Path, size: int) -> list[dict[str, Any]]:
    target.mkdir(parents=True, exist_ok=True)
    pieces: list[dict[str, Any]] = []
    with whole.open("rb") as file:
        while block := file.read(size):
            name = f"{PIECE}{len(pieces)}"
            (target / name).write_bytes(block)
            pieces.append({"name": name, "bytes": len(block), "sha256": hashlib.sha256(block).hexdigest()})
    return pieces


def _read_list(source: Path) -> dict[str, Any]:
    path = source / LIST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path}: is not there, so {source} is no pack. Name the folder that 'carry.py pack' wrote") from None
    except ValueError as error:
        raise StoreError(f"{path}: damaged, it is no JSON ({error}). Bring the pack back again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(f"{path}: is no pack of salt-lab ('format' is not '{FORMAT}')")
    return content


def _join(source: Path, pieces: Sequence[dict[str, Any]], whole: Path) -> None:
    with whole.open("wb") as file:
        for piece in pieces:
            path = source / Path(piece["name"]).name
            block = path.read_bytes() if path.is_file() else None
            if block is None or hashlib.sha256(block).hexdigest() != piece["sha256"]:
                what = "is not there" if block is None else "damaged: its sha256 differs"
                raise StoreError(f"{path}: {what} ({LIST} lists it). Nothing was written. Bring the pack back again")
            file.write(block)


def _refuse_strangers(source: Path, names: Iterable[str]) -> None:
    for name in names:
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or parts[0] not in ("archive", "checkpoints"):
            raise StoreError(f"{source}: holds '{name}', which is of no pack. Nothing was written")


def _take_checkpoints(folder: Path, trial_id: str, theirs: Store, store: Store) -> bool:
    """Put a trial's checkpoints into the results folder, unless its record there has gone on since, or it has later ones."""
    with store.lock(trial_id):
        there = store.trial_dir(trial_id) / "checkpoints"
        same = len(store.journal(trial_id).read()) == len(theirs.journal(trial_id).read())
        ours, brought = last_checkpoint(there), last_checkpoint(folder)
        if not same or brought is None or (ours is not None and position(ours) >= position(brought)):
            return False
        for path in sorted(folder.glob("*.pth")):
            copy_whole(path, there / path.name)
    return True


@click.group(help=str(__doc__).split("\n")[0])
def cli() -> None:
    """The command line."""


@cli.command("pack")
@click.argument("study", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--store", required=True, type=click.Path(file_okay=False, path_type=Path), help="The results folder.")
@click.option("--to", "target", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where pack.json and its pieces go.")
@click.option("--piece", type=click.FloatRange(min=0.01), default=16.0, show_default=True, help="MiB of a file, at most.")
@click.option("--total", type=click.FloatRange(min=0.01), default=64.0, show_default=True, help="MiB of all files, at most.")
@click.option("--files", type=click.IntRange(min=2), default=8, show_default=True, help="Files, at most.")
def pack_command(study: Path, overrides: tuple[str, ...], store: Path, target: Path, piece: float, total: float, files: int) -> None:
    """Pack the records of STUDY, and as many checkpoints as fit."""
    done = pack(load_study(study, list(overrides)), Store(store), target, piece_mib=piece, total_mib=total, files=files)
    size = sum(one["bytes"] for one in done["pieces"]) / MIB
    click.echo(
        f"{len(done['trials'])} trials and {len(done['checkpoints'])} checkpoints in {target}: {len(done['pieces'])} pieces, {size:.1f} MiB"
    )
    if done["left_out"]:
        click.echo(
            f"without their checkpoints, which did not fit (of a trial that is not done: it starts again): {', '.join(done['left_out'])}"
        )


@cli.command("unpack")
@click.argument("source", type=click.Path(file_okay=False, path_type=Path))
@click.option("--store", required=True, type=click.Path(file_okay=False, path_type=Path), help="The results folder.")
def unpack_command(source: Path, store: Path) -> None:
    """Merge the pack in SOURCE into a results folder."""
    said, taken = unpack(source, Store(store))
    click.echo(f"{said}; {taken} checkpoints taken")


def main() -> int:
    """The command line; 2 where something was refused."""
    try:
        cli.main(standalone_mode=False)
    except (SaltLabError, click.ClickException) as error:
        click.echo(f"error: {error.format_message() if isinstance(error, click.ClickException) else error}", err=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
