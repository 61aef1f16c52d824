"""The one family of errors that a user of SALT lab can meet.

Every error says where (file, field), what (the value) and what next (the choices or the remedy). The command line prints it as one line
and leaves with :attr:`SaltLabError.exit_code`; nobody sees a traceback for a mistake of their own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SaltLabError(Exception):
    """Base of all errors that are the lab's own words. ``exit_code`` is what the command line leaves with."""

    exit_code = 1


class UserError(SaltLabError):
    """Bad input: nothing was started. Exit code 2."""

    exit_code = 2


class SpecError(UserError):
    """A study or a trial that cannot be run as written."""


class DataError(UserError):
    """A data set that is missing, malformed or inconsistent."""


class WeightsError(UserError):
    """A weights file that cannot be read or does not fit."""


class StoreError(UserError):
    """A results folder or an MLflow server that cannot be used."""


class MissingOpError(SaltLabError):
    """A compiled mmcv op that the portable build does not have."""


class TrialFailed(SaltLabError):
    """A trial ended with an error of its own; the message names the trial and its log."""


def did_you_mean(kind: str, name: object, choices: Iterable[str]) -> str:
    """Say that ``name`` is no known ``kind`` and name the nearest choice.

    >>> did_you_mean("host", "atts", ["atss", "fcos"])
    "no host named 'atts'. Did you mean 'atss'? Choices: atss, fcos"
    """
    options = sorted(choices)
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"no {kind} named '{name}'.{hint} Choices: {', '.join(options)}"
