"""What a submitted study takes with it: its file, the package's sources and what the user adds; never data, weights, history or results.

It is laid out in a folder, read there as the cluster will read it, and weighed, before anything is sent.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import salt_lab
from salt_lab.errors import UserError
from salt_lab.record.provenance import write_origin
from salt_lab.spec.reading import Source, read_study_file
from salt_lab.spec.study import Study, load_study
from salt_lab.spec.trial import CocoData, Trial

LIMIT_MIB = 100
MIB = 2**20
#: Folders that stay at home wherever they lie in an included folder, besides every hidden one (.git, .venv, ...).
HOME_FOLDERS = ("__pycache__", "runs", "mlruns", "mlflow_artifacts", "work_dirs", "node_modules")
#: Weights: they lie on the cluster, once, and not in every submission.
WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".onnx", ".pkl", ".npz")
#: Variables that mean a machine, not a place of data: each machine's own value is right there.
OF_THE_MACHINE = ("HOME", "PATH", "PWD", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")


class Bundle(NamedTuple):
    """A folder to send.

    Attributes:
        folder: where it is laid out.
        study: the study's file, relative to ``folder``; "" where there is none.
        left_out: weights in included folders that were not taken, relative to the working directory.
    """

    folder: Path
    study: str
    left_out: tuple[str, ...] = ()

    def files(self) -> dict[str, int]:
        """File -> bytes, the largest first."""
        sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in self.folder.rglob("*") if path.is_file()}
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def lay_out(folder: Path, study: Path | None, *, package: bool = True, include: Sequence[Path] = ()) -> Bundle:
    """Copy what is to be sent into ``folder``.

    Args:
        folder: an empty folder.
        study: the study's file; keeps its path where it lies below the working directory. None = none is sent.
        package: send this package's own sources, so that the cluster trains with the code that is here.
        include: further files and folders below the working directory; they keep their paths.

    Raises:
        UserError: something is not there, is not below the working directory, or is a weights file.
    """
    if package:
        source = Path(salt_lab.__file__).resolve().parent
        shutil.copytree(source, folder / source.name, ignore=_stay_at_home)
        if study:
            write_origin(folder / source.name)
    left_out: list[str] = []
    for path in include:
        left_out += _include(folder, path)
    return Bundle(folder, _place(folder, study) if study else "", tuple(left_out))


def check_size(bundle: Bundle, limit_mib: float = LIMIT_MIB) -> float:
    """The bundle's size in MiB.

    Raises:
        UserError: it is larger than ``limit_mib``; names the largest files.
    """
    files = bundle.files()
    size = sum(files.values()) / MIB
    if size > limit_mib:
        largest = ", ".join(f"{name} ({number / MIB:.1f} MiB)" for name, number in list(files.items())[:5])
        raise UserError(
            f"{size:.0f} MiB would be uploaded, at most {limit_mib:g} MiB are. The largest files: {largest}. "
            "Put data and weights on the cluster and name their paths there; leave the rest out of --include"
        )
    return size


def variables_named(study: Path, overrides: Sequence[str] = ()) -> list[str]:
    """The environment variables that a study's values name as ``${NAME}``, but for those that mean a machine, in order.

    Raises:
        SpecError: the file cannot be read.
    """
    texts = [*_texts(read_study_file(Source(study))), *overrides]
    named = dict.fromkeys(name for text in texts for name in re.findall(r"\$\{(\w+)\}", text))
    return [name for name in named if name not in OF_THE_MACHINE]


def read_there(bundle: Bundle, overrides: Sequence[str], variables: Mapping[str, str], named: Sequence[str]) -> Study:
    """Read the study as the cluster will: from the bundle's folder, with the variables that it is given.

    Args:
        bundle: as laid out.
        overrides: ``key=value`` strings.
        variables: what the job will have in its environment.
        named: the variables that the study names; those that are not in ``variables`` are the cluster's own.

    Raises:
        SpecError: the study is not valid.
        UserError: it names a file by a relative path, and the file is not in the bundle.
    """
    unknown = {name: f"/{name}-of-the-cluster" for name in named}
    with _inside(bundle.folder), _environment({**unknown, **variables}):
        study = load_study(bundle.study, overrides)
        here = f"{os.getcwd()}{os.sep}"
        for field, path in dict.fromkeys(pair for trial in study.trials() for pair in files_of(trial)):
            if path.startswith(here) and not os.path.exists(path):
                raise UserError(
                    f"{bundle.study}: {field} = '{path[len(here) :]}' is a relative path, and data and weights are not uploaded. "
                    f"Name the path on the cluster: {field}=/PATH/ON/THE/CLUSTER"
                )
    return study


def files_of(trial: Trial) -> list[tuple[str, str]]:
    """The files and folders that a trial reads: field -> path."""
    names = ("train", "val", "images", "val_images") if isinstance(trial.data, CocoData) else ()
    found = [(f"data.{name}", getattr(trial.data, name)) for name in names]
    found += [("backbone.init", trial.backbone.init), ("weights", trial.weights)]
    return [(field, path) for field, path in found if path and path != "host" and "://" not in path]


def _place(folder: Path, study: Path) -> str:
    here = Path.cwd().resolve()
    source = study.resolve()
    name = source.relative_to(here) if source.is_relative_to(here) else Path(source.name)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / name)
    return name.as_posix()


def _include(folder: Path, path: Path) -> list[str]:
    """Copy one file or folder; returns the weights that were left out."""
    here, source = Path.cwd().resolve(), path.resolve()
    if not source.exists():
        raise UserError(f"--include {path}: no such file or folder")
    if not source.is_relative_to(here) or source == here:
        raise UserError(f"--include {path}: name something below the working directory {here}; it keeps its path on the cluster")
    if source.suffix in WEIGHTS:
        raise UserError(f"--include {path}: weights are not uploaded. Copy the file to the cluster once, and name its path there")
    target = folder / source.relative_to(here)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, target)
        return []
    shutil.copytree(source, target, ignore=_stay_at_home, dirs_exist_ok=True)
    weights = (found for found in source.rglob("*") if found.suffix in WEIGHTS and found.is_file())
    return sorted(found.relative_to(here).as_posix() for found in weights)


def _stay_at_home(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in HOME_FOLDERS or name.startswith(".") or name.endswith((*WEIGHTS, ".pyc"))]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
