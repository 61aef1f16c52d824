"""What every benchmark does with its result: a JSON file with the machine and the versions, a table beside it, nothing of another machine lost."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from salt_lab.record.provenance import provenance

#: What makes two machines of different kinds, so that their seconds must not replace each other.
KIND = ("cpu", "vector", "cores", "gpu")


def save(folder: Path, name: str, content: Mapping[str, Any], table: str) -> None:
    """Write ``folder/name.json`` and ``folder/name.md``.

    Raises:
        SystemExit: ``name.json`` was made on another kind of machine; choose another folder.
    """
    path, made_by = folder / f"{name}.json", provenance()
    check_machine(path, made_by["machine"])
    folder.mkdir(parents=True, exist_ok=True)
    made_by["machine"]["vector"] = vector_level()
    path.write_text(json.dumps({**content, "load_after": os.getloadavg()[0], "provenance": made_by}, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(table.rstrip() + "\n", encoding="utf-8")
    print(f"written: {path} and {path.with_suffix('.md')}")


def check_machine(path: Path, machine: Mapping[str, Any] | None = None, rivals: Collection[str] | None = None) -> None:
    """Refuse to replace a result of another kind of machine, or one with more rivals; best called before hours of measuring, too.

    Args:
        path: the JSON that would be replaced; nothing is refused where there is none.
        machine: provenance's; None = ask.
        rivals: who is measured this time, by the names that the JSON's ``rivals`` lists; None = the benchmark always measures all.

    Raises:
        SystemExit: in words, with what to do.
    """
    if not path.exists():
        return
    machine = {**(machine or provenance()["machine"]), "vector": vector_level()}
    before = json.loads(path.read_text(encoding="utf-8"))
    if rivals is not None and (lost := [name for name in before.get("rivals", ()) if name not in rivals]):
        raise SystemExit(
            f"{path}: has {', '.join(lost)}, which this run would lose. Measure it too (make bench MMCV_EXT=PATH), or choose another folder: --output"
        )
    theirs = before["provenance"]["machine"]
    theirs = {"vector": machine["vector"], **theirs}  # results made before it was noted
    if changed := [f"{key} {theirs.get(key)!r}, here {machine.get(key)!r}" for key in KIND if theirs.get(key) != machine.get(key)]:
        raise SystemExit(f"{path}: measured on another kind of machine ({'; '.join(changed)}). Choose another folder: --output")


def vector_level() -> str:
    """The widest vector instructions of this CPU, since virtual machines all give their CPU one name; empty where Linux does not say."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return ""
    return next((level for level in ("avx512f", "avx2", "avx", "asimd") if level in flags), "")
