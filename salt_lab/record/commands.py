"""Commands to go on with, as they are printed: the study's overrides and results folder are kept, and a shell takes them as they stand."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from salt_lab.record.store import Store, default_store_root

if TYPE_CHECKING:
    from salt_lab.spec.study import Study


def command_for(command: str, study: Study, store: Store, *more: str) -> str:
    """``salt-lab COMMAND STUDY ...`` on the same study and results folder.

    Of looks, the command that trains: in the folder around them, on the study's own images.

    Args:
        command: ``run``, ``table``, ...
        study: with its overrides.
        store: named in the command unless it is the default.
        more: further overrides (``key=value``), which replace the study's with their key.
    """
    replaced = {text.partition("=")[0] for text in more}
    kept = [text for text in study.overrides if text.partition("=")[0] not in replaced]
    if command == "run" and store.holds_looks:
        store, kept = Store(store.root.parent), [text for text in kept if not text.startswith("data.val")]
    where = [] if store.root == Store(default_store_root()).root else ["--store", str(store.root)]
    return shlex.join(["salt-lab", command, str(study.source), *kept, *more, *where])
