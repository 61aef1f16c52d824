"""A click group whose commands are imported when they are asked for, and whose errors are one line each with the right exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from salt_lab.errors import SaltLabError, did_you_mean

EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h: a script can tell a crash of the lab from failed trials (1) and bad input (2)
EXIT_INTERRUPTED = 130
#: Module that is missing -> what to do about it.
REMEDIES = {
    "ray": "pip install 'ray[default]', or run with --executor serial",
    "mlflow": "pip install mlflow, or run with --no-mlflow and deliver later with salt-lab sync",
    "torch": "pip install torch first, then pip install -e .",
}


class LazyGroup(click.Group):
    """A group that knows its commands by module name.

    Args:
        modules: command name -> dotted module that holds the click command under the name ``command``.
        attrs: further arguments of :class:`click.Group`.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str] | None = None, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.modules = dict(modules or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names, in the order of the table."""
        return [*self.modules, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, now that somebody asks for it."""
        if cmd_name not in self.modules:
            return super().get_command(ctx, cmd_name)
        command: click.Command = importlib.import_module(self.modules[cmd_name]).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a name that nobody has is answered with the nearest one (also by versions of click that do not)."""
        name = args[0]
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        raise click.UsageError(did_you_mean("command", name, self.list_commands(ctx)), ctx)

    def main(  # type: ignore[override]  # click's own has two overloads; this one does what both say
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run the command line; with ``standalone_mode`` (default) every error becomes one line on stderr and an exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except Exception as error:  # the last stop: known errors are worded, unknown ones are reported as bugs
            _leave(error)
        sys.exit(code if isinstance(code, int) else 0)


def _leave(error: Exception) -> NoReturn:
    """Say the error in one line and exit with its code; ``SALT_LAB_TRACEBACK=1`` shows the traceback instead."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        sys.exit(error.exit_code)
    if os.environ.get("SALT_LAB_TRACEBACK") == "1" and not isinstance(error, click.ClickException):
        import traceback

        traceback.print_exception(error)
    line, code = explain(error)
    click.echo(f"error: {line}", err=True)
    sys.exit(code)


def explain(error: Exception) -> tuple[str, int]:
    """The one line and the exit code for an error that reached the command line.

    An :class:`OSError` with a file name and a missing optional package are the machine's state, not bugs; anything unknown is a bug of
    the lab, and its traceback goes to a file in the temporary folder.
    """
    if isinstance(error, SaltLabError):
        return str(error).strip(), error.exit_code  # a data set's error may list several problems, a line each
    if isinstance(error, click.Abort):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, click.ClickException):
        return _usage(error), error.exit_code
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in REMEDIES:
        package = (error.name or "").split(".")[0]
        return f"{package} is not installed: {REMEDIES[package]} (salt-lab doctor lists what is missing)", 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", 1
    return _bug(error), EXIT_BUG


def one_line(error: object) -> str:
    """The text of an error with its line breaks folded, so that logs and scripts see one line."""
    return " ".join(part for part in (line.strip() for line in str(error).splitlines()) if part)


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" See '{context.command_path} --help'" if context is not None else ""
    return one_line(error.format_message()).rstrip(".") + "." + hint


def _bug(error: Exception) -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="salt-lab-traceback-", suffix=".txt", delete=False) as file:
        traceback.print_exception(type(error), error, error.__traceback__, file=file)
    what = f"{type(error).__name__}: {one_line(error)[:200]}"
    return f"this is a bug in salt-lab ({what}). Please report it with the traceback in {file.name}"
