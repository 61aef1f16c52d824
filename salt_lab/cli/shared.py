"""What several commands share: the STUDY argument, the store option, tables on a terminal and in a pipe."""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salt_lab.errors import SpecError

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.spec.study import Study

STUDY_SUFFIXES = (".yaml", ".yml")

study_argument = click.argument("study", metavar="STUDY")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
store_option = click.option(
    "--store", "store_root", type=click.Path(path_type=Path), metavar="FOLDER", help="Results folder; default $SALT_LAB_STORE, else ./runs."
)
mlflow_option = click.option(
    "--mlflow-uri", metavar="URI", help="MLflow server or store; default $MLFLOW_TRACKING_URI, else an SQLite file in the results folder."
)
existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)


def _give_the_word(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    """For this command and the workers that it starts: they inherit the environment."""
    from salt_lab.spec.weights_file import TRUST_VARIABLE

    if given:
        before = os.environ.get(TRUST_VARIABLE)
        os.environ[TRUST_VARIABLE] = "1"
        context.call_on_close(lambda: os.environ.pop(TRUST_VARIABLE) if before is None else os.environ.update({TRUST_VARIABLE: before}))


trust_option = click.option(
    "--trust-checkpoint",
    is_flag=True,
    expose_value=False,
    callback=_give_the_word,
    help="Unpickle the checkpoint whole, whatever classes it holds: its author's code may run. Needed for no file of plain tensors.",
)


def read_study(path: str, overrides: Sequence[str] = ()) -> Study:
    """Read and validate a study file.

    Args:
        path: the YAML file, relative to the working directory.
        overrides: ``key=value`` strings from the command line.

    Raises:
        SpecError: the file is missing (the nearest study is named), an override is no ``key=value``, or the study is not valid.
    """
    source = find_study(path)
    from salt_lab.spec.study import load_study

    return load_study(source, overrides)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """``key=value`` strings as a dictionary, the values read as YAML.

    >>> parse_overrides(["schedule.epochs=3", "salt=on"])
    {'schedule.epochs': 3, 'salt': True}
    """
    import yaml

    from salt_lab.spec.reading import parse_yaml

    values = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise SpecError(f"'{text}' is no override: write key=value, as in schedule.epochs=3 or salt.points=16")
        try:
            values[key] = parse_yaml(value)
        except yaml.YAMLError:
            raise SpecError(f"{text}: '{value}' cannot be read as a YAML value; quote text that holds any of : [ ] {{ }} ,") from None
    return values


def find_study(path: str) -> Path:
    """The study's file; where there is none, a :class:`SpecError` names the nearest study of its folder and of ``experiments/``."""
    source = Path(path)
    if source.is_file():
        return source
    what = "is a folder, not a study file" if source.is_dir() else "no such study file"
    folders = dict.fromkeys([source.parent, Path("experiments")])
    known = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()) if file.suffix in STUDY_SUFFIXES]
    near = difflib.get_close_matches(source.stem, [file.stem for file in known], n=1, cutoff=0.5)
    hint = "".join(f" Did you mean '{file}'?" for file in known if file.stem in near)
    choices = f" Studies here: {', '.join(map(str, known))}" if known else " No *.yaml file in that folder or in experiments/"
    raise SpecError(f"{path}: {what}.{hint}{choices}")


def open_store(root: Path | None) -> Store:
    """The results folder that ``--store``, ``$SALT_LAB_STORE`` or the working directory names. Creates nothing."""
    from salt_lab.record.store import Store, default_store_root

    return Store(root if root is not None else default_store_root())


def open_records(root: Path | None) -> Store:
    """:func:`open_store` for commands that only read: a folder that was named and is not there is a mistake.

    Raises:
        StoreError: there is no folder ``root``.
    """
    if root is not None and not root.is_dir():
        from salt_lab.errors import StoreError

        raise StoreError(f"--store {root}: there is no results folder. Name the one with the records, or train first: salt-lab run STUDY")
    return open_store(root)


def finite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Refuse NaN and infinity, which click's ranges let through."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number to calculate with", context, parameter)
    return value


def on_terminal() -> bool:
    """Is standard output a terminal (colours and boxes) rather than a pipe or a file (plain text)?"""
    return sys.stdout.isatty()


def show_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows as a boxed table on a terminal, and as aligned plain text elsewhere (never cut, easy to grep)."""
    cells = [[as_text(value) for value in row] for row in rows]
    if on_terminal():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*header)
        for row in cells:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    for line in [list(header), *cells]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def as_text(value: Any) -> str:
    """A value as a person writes it in a study: on/off for switches, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
