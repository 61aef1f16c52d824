"""What every benchmark does with its result: a JSON file with the machine and the versions, a table beside it, nothing of another machine lost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salt_lab.record.provenance import provenance

#: What makes two machines of different kinds, so that their seconds must not replace each other.
KIND = ("cpu", "cores", "gpu")


def save(folder: Path, name: str, content: Mapping[str, Any], table: str) -> None:
    """Write ``folder/name.json`` and ``folder/name.md``.

    Raises:
        SystemExit: ``name.json`` was made on another kind of machine; choose another folder.
    """
    path, made_by = folder / f"{name}.json", provenance()
    check_machine(path, made_by["machine"])
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, "load_after": os.getloadavg()[0], "provenance": made_by}, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(table.rstrip() + "\n", encoding="utf-8")
    print(f"written: {path} and {path.with_suffix('.md')}")


def check_machine(path: Path, machine: Mapping[str, Any] | None = None) -> None:
    """Refuse to replace a result of another kind of machine; best called before hours of measuring, too."""
    machine = machine or provenance()["machine"]
    if not path.exists():
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))["provenance"]["machine"]
    if changed := [f"{key} {theirs.get(key)!r}, here {machine.get(key)!r}" for key in KIND if theirs.get(key) != machine.get(key)]:
        raise SystemExit(f"{path}: measured on another kind of machine ({'; '.join(changed)}). Choose another folder: --output")
