"""The version of the code that decides a trial's result, blind to comments, docstrings and formatting.

Counted are the rooms that build, feed, train and evaluate a model; of ``evaluate`` only what the numbers of a trial come from. What reads,
shows, compares or schedules may change without a number changing.

Guaranteed: the version changes with every name, constant, default, annotation, operator and statement of these rooms, with a file's path,
and with every byte of a file that is no Python. It does not change with comments, docstrings (any bare constant), ``pass``, blank lines,
quotes, brackets that group, or the folder in which the package lies. Python 3.9 to 3.13 give the same version (tried on this package): only
what a syntax tree says is hashed, in a form of our own that leaves out empty fields (a later Python adds fields, empty where not used).
"""

from __future__ import annotations

import ast
import gc
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import salt_lab
from salt_lab.record.code_digests import Stamp, keep_digests, kept_digests, stamp

#: The rooms of the package that decide a trial's result.
ROOMS = ("ops", "models", "compose", "data", "train", "evaluate")
#: Rooms of which only these files count: ``salt_lab.evaluate`` also asks what finished runs are worth (bootstrap, seeds, errors by type, ...), which
#: changes no trial. Listed is what ``metric.py``, the evaluator of training, imports; a test compares.
ONLY = {
    "evaluate": (
        "__init__.py",
        "accumulate.py",
        "candidates.py",
        "coco.py",
        "detections.py",
        "ground_truth.py",
        "matching.py",
        "metric.py",
        "submission.py",
    )
}
#: What stands for the version in a record from before it was recorded.
NOT_RECORDED = "not recorded"
#: Fields of syntax trees that say how something was written: the use of a name (which follows from its place), u"" before a text.
_WRITING = ("ctx", "kind", "type_comment")
_digests: dict[Path, tuple[Stamp, str]] = {}


def training_code_version(package: Path | None = None) -> str:
    """12 hex digits of sha256 over the :data:`ROOMS`, less what :data:`ONLY` leaves out.

    The first call takes 0.1 s, later ones 5 ms where nothing changed; also in other processes, see :mod:`salt_lab.record.code_digests`.

    Args:
        package: folder of the package; None = this one.
    """
    root = package or Path(salt_lab.__file__).resolve().parent
    found = hashlib.sha256()
    for path, digest in _all_digests(root).items():
        found.update(f"{path.relative_to(root).as_posix()}\0{digest}\0".encode())
    return found.hexdigest()[:12]


def other_versions(versions: Sequence[str], present: str) -> tuple[str, ...]:
    """Those of a record's ``training_codes`` that are not ``present``, without repeats.

    >>> other_versions(["aaa", "bbb", "aaa"], "bbb")
    ('aaa',)
    """
    return tuple(version for version in dict.fromkeys(versions) if version != present)


def made_by_other(number: int, total: int, versions: Iterable[str], present: str) -> str:
    """The sentence on finished trials of other training code, without its full stop.

    >>> made_by_other(2, 6, ["aaa", "bbb", "aaa"], "ccc")
    '2 of 6 finished trials were made by other training code (aaa, bbb; now ccc)'
    """
    was = "was" if number == 1 else "were"
    return f"{number} of {total} finished trials {was} made by other training code ({', '.join(dict.fromkeys(versions))}; now {present})"


def normal_form(source: bytes) -> bytes:
    """The syntax tree of a Python source as bytes, without what cannot change a result.

    Raises:
        SyntaxError: it is no Python.
    """
    out: list[str] = []
    _write(ast.parse(source), out)
    return "\0".join(out).encode("utf-8", "surrogatepass")


def _write(node: ast.AST, out: list[str]) -> None:
    kind = type(node)
    if isinstance(node, ast.Constant):
        out.append(f"{type(node.value).__name__} {node.value!a}")
        return
    out.append(kind.__name__)
    for name in kind._fields:
        value = getattr(node, name, None)
        if name in _WRITING or value is None or value == []:
            continue
        out.append(name)
        if isinstance(value, list):
            _write_all(value, out)
        elif isinstance(value, ast.AST):
            _write(value, out)
        else:
            out.append(ascii(value))
    out.append(")")


def _write_all(nodes: list[object], out: list[str]) -> None:
    """A list of a tree: its statements without those that do nothing."""
    for node in nodes:
        if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        if isinstance(node, ast.AST):
            _write(node, out)
        else:
            out.append(ascii(node))
    out.append("]")


def _sources(root: Path) -> Iterator[Path]:
    """Every file of the rooms, in order; without compiled files and what editors leave behind."""
    for room in ROOMS:
        for path in sorted((root / room).rglob("*")):
            hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(root).parts)
            counts = room not in ONLY or path.relative_to(root / room).as_posix() in ONLY[room]
            if counts and not hidden and not path.name.endswith((".pyc", "~")) and path.is_file():
                yield path


def _all_digests(root: Path) -> dict[Path, str]:
    """Of every file that counts, in order; remembered in this process and for the next ones as long as its stamp stays."""
    # taken before the reading: a file that changes meanwhile is read again next time
    stamps = {path: stamp(path) for path in _sources(root)}
    rules = Path(__file__)
    if any(path not in _digests for path in stamps):
        _digests.update({**kept_digests(root, rules), **_digests})
    new = [path for path, one in stamps.items() if path not in _digests or _digests[path][0] != one]
    with _no_collection():
        _digests.update({path: (stamps[path], _read_digest(path)) for path in new})
    if new:
        keep_digests(root, rules, {path: _digests[path] for path in stamps})
    return {path: _digests[path][1] for path in stamps}


def _read_digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".py":
        with suppress(SyntaxError, ValueError):  # half written: its bytes are its version
            content = normal_form(content)
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Trees are many small objects without cycles: looking for cycles would take half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
