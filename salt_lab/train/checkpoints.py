"""Which checkpoint is the last whole one: mmengine writes its name into ``last_checkpoint`` after the file itself."""

from __future__ import annotations

from pathlib import Path


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a work folder, or None where there is none yet."""
    pointer = folder / "last_checkpoint"
    return Path(pointer.read_text().strip()) if pointer.is_file() else None


def epoch_of(checkpoint: Path | None) -> int:
    """The epoch in a checkpoint's name (``epoch_7.pth``); 0 for none."""
    number = checkpoint.stem.rpartition("_")[2] if checkpoint else ""
    return int(number) if number.isdigit() else 0
