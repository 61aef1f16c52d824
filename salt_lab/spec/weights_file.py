"""What lies in a weights file, told without torch and without bringing anything in it to life: format, wholeness, classes of its pickle.

A file of ``torch.save`` is a pickle, and a pickle can call anything when it is read. So its instructions are only listed here, and
``salt_lab.models.weights_file`` reads it with torch's ``weights_only``, which builds tensors, plain values and :data:`HARMLESS` classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

#: Set to 1, it is the user's word that checkpoints may be unpickled whole, whatever classes they hold.
TRUST_VARIABLE = "SALT_LAB_TRUST_CHECKPOINTS"
#: Classes and functions beyond torch's own that checkpoints of mmengine, mmdet and timm hold, and that do nothing but hold values.
HARMLESS = frozenset(
    {
        "argparse.Namespace",  # timm's and torchvision's own training keeps its arguments
        "builtins.getattr",  # only for the four statistics of a HistoryBuffer: see salt_lab.models.weights_file
        "builtins.slice",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),  # NumPy 1 and 2
    }
)
#: What torch allows by itself; of ``torch.*`` it decides case by case.
_TORCHS_OWN = frozenset({"collections.OrderedDict", "collections.Counter", "_codecs.encode"}) | {
    f"builtins.{name}" for name in ("bytearray", "set", "complex")
}
#: torch.save's format before 1.6: four pickles (magic number, protocol, machine, content), then the numbers.
_PICKLES_BEFORE_1_6 = 4
_TEXT_OPS = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"})


def trusted() -> bool:
    """Has the user given the word, for all checkpoints, through :data:`TRUST_VARIABLE`?"""
    return os.environ.get(TRUST_VARIABLE, "").lower() in ("1", "true", "yes", "on")


def by_content(file: str | None) -> str | None:
    """``sha256:...`` of a file that is there; the name otherwise."""
    if not file or not os.path.isfile(file):
        return file
    state = os.stat(file)
    return "sha256:" + _sha256(os.path.abspath(file), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def whats_wrong(path: Path, trust: bool = False) -> str | None:
    """Why ``path`` cannot be taken as a weights file, as far as can be told without torch; None where nothing is known against it.

    Args:
        path: a file of torch.save's or of safetensors'. The content decides, not the name.
        trust: do not ask which classes it holds.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError as error:
        return f"the weights file cannot be read ({error.strerror})"
    if not begin:
        return "the weights file is empty"
    if is_safetensors(begin):
        return None if _is_whole_safetensors(path) else "the weights file is cut short"
    if begin.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "the weights file is cut short"
    if not begin.startswith((b"PK", b"\x80")):
        return "not a file of torch.save's or safetensors' (a saved web page?)"
    return None if trust or trusted() else _strangers(path)


def is_safetensors(begin: bytes) -> bool:
    """Do a file's first 9 bytes announce safetensors: the length of a JSON header, then the header?"""
    return len(begin) == 9 and begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < 100_000_000


def _is_whole_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return False
    return path.stat().st_size == 8 + length + max(ends, default=0)


def _strangers(path: Path) -> str | None:
    try:
        strange = foreign_classes(path)
    except Exception as error:  # pickletools and zipfile raise many kinds for damaged content
        return f"the weights file is damaged ({str(error) or type(error).__name__})"
    if not strange:
        return None
    return (
        f"it holds more than tensors and plain values: {', '.join(strange)}; reading that could run its author's code. "
        f"If you trust where the file comes from, pass --trust-checkpoint or set {TRUST_VARIABLE}=1"
    )


def foreign_classes(path: Path) -> list[str]:
    """Dotted names of the classes and functions in a torch.save file that are neither torch's nor :data:`HARMLESS`. Executes nothing.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: it cannot be read as one.
    """
    named: set[str] = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.rpartition("/")[2] == "data.pkl":
                    named |= _named_in(io.BytesIO(archive.read(name)))
    else:
        with path.open("rb") as file:
            for _ in range(_PICKLES_BEFORE_1_6):
                named |= _named_in(file)
                if strangers(named):  # a bare pickle has no second one
                    break
    return strangers(named)


def strangers(named: set[str]) -> list[str]:
    """Of dotted names those that are neither torch's nor harmless, sorted."""
    return sorted(name for name in named - HARMLESS - _TORCHS_OWN if not name.startswith("torch."))


def _named_in(content: IO[bytes]) -> set[str]:
    """Dotted names that one pickle refers to. (A name put together on the stack is taken from the last two texts.)"""
    import pickletools

    named: set[str] = set()
    texts, memo = ["", ""], dict[Any, str]()
    for op, argument, _ in pickletools.genops(content):
        if op.name in ("GLOBAL", "INST"):
            named.add(_today(*str(argument).split(" ", 1)))
        elif op.name == "STACK_GLOBAL":
            named.add(_today(*texts[-2:]))
        elif op.name in _TEXT_OPS:
            texts.append(str(argument))
        elif op.name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if op.name == "MEMOIZE" else argument] = texts[-1]
        elif op.name in ("BINGET", "LONG_BINGET"):
            texts.append(memo.get(argument, ""))
    return named


def _today(module: str, name: str) -> str:
    """Python 2's names of modules, which torch.save writes, as today's."""
    return f"{dict(__builtin__='builtins', copy_reg='copyreg').get(module, module)}.{name}"
