"""A config as Python text that reads back as the same config, laid out in a millisecond **(ours)**.

mmengine lays its text out with yapf, which takes seconds for a detector, and asks for it at the start of a training, in the log and in each
checkpoint.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config

#: Longest line, where it can be helped.
WIDTH = 120
INDENT = "    "


class ReadableConfig(Config):
    """A config whose ``pretty_text``, and so whose ``dump`` to a ``.py`` file, is :func:`text_of` it; shares the content of the one it is
    made from."""

    @classmethod
    def of(cls, config: Config) -> ReadableConfig:
        """The same config, by reference."""
        return cls(config._cfg_dict, filename=config.filename, env_variables=config.env_variables)

    @property
    def pretty_text(self) -> str:
        """See :func:`text_of`."""
        return text_of(self.to_dict())


def text_of(settings: Mapping[str, Any]) -> str:
    """``key = value`` lines, keys in order of the alphabet at every level as in mmengine's text; what does not fit into a line is indented.

    >>> print(text_of({"model": {"type": "ATSS", "strides": (8,)}, "epochs": 2}), end="")
    epochs = 2
    model = dict(strides=(8,), type='ATSS')
    """
    return "".join(f"{name} = {_laid_out(value, '', len(name) + 3)}\n" for name, value in sorted(settings.items()))


def _laid_out(value: Any, indent: str, before: int) -> str:
    """``value`` on one line where it fits behind the ``before`` characters that stand there, on several else."""
    line = _one_line(value)
    if len(indent) + before + len(line) < WIDTH or not isinstance(value, (Mapping, list, tuple)) or not value:
        return line
    opening, closing, items = _parts(value)
    inner = indent + INDENT
    lines = [f"{inner}{name}{_laid_out(item, inner, len(name) + 1)},\n" for name, item in items]
    return f"{opening}\n{''.join(lines)}{indent}{closing}"


def _one_line(value: Any) -> str:
    if isinstance(value, (Mapping, list, tuple)):
        opening, closing, items = _parts(value)
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"{opening}{', '.join(name + _one_line(item) for name, item in items)}{comma}{closing}"
    if isinstance(value, type):
        return value.__name__ if value.__module__ == "builtins" else f"{value.__module__}.{value.__name__}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return repr(value) if isinstance(value, str) else str(value)


def _parts(value: Any) -> tuple[str, str, Iterable[tuple[str, Any]]]:
    """Brackets, and the items with what stands before each."""
    if isinstance(value, Mapping):
        ordered = sorted(value.items(), key=lambda item: str(item[0]))
        if all(isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name) for name in value):
            return "dict(", ")", [(f"{name}=", item) for name, item in ordered]
        return "{", "}", [(f"{name!r}: ", item) for name, item in ordered]
    opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
    return opening, closing, [("", item) for item in value]
