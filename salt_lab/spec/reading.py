"""From a file to plain data, strictly: every way in which a study file can be unreadable, each with its line.

YAML's own reader takes the last of two equal keys, reads ``off:`` as the key ``False`` and ``1e-3`` as a string; this one does not.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from salt_lab.errors import SpecError, did_you_mean

_FLOAT = re.compile(r"^(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+|[-+]\.[0-9]+)$")
_STUDY_KEY = re.compile(rb"^['\"]?(?:question|base|axes|cases)['\"]?\s*:", re.MULTILINE)
NOTHING: Any = object()


class Source:
    """Where a study came from: its file, and the command line's overrides of its fields. It words every error of the study.

    ``overridden`` maps a field that the command line replaced (``axes.host``) to the override as it was typed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.overridden: dict[str, str] = {}

    def error(self, field: str, value: Any, message: str) -> SpecError:
        """``FILE: field = value: message.`` in one line; pass ``NOTHING`` where there is no value to show."""
        where = f"{field} = {show(value)}" if value is not NOTHING and field else field
        for replaced, text in self.overridden.items():
            if field == replaced:
                where = f"override {text}"
            elif field.startswith((f"{replaced}.", f"{replaced}[")):
                where = f"override {text}: {where}"
        parts = [str(self.path), where, message if message.endswith((".", "?")) else f"{message}."]
        return SpecError(" ".join(": ".join(part for part in parts if part).split()))


def show(value: Any) -> str:
    """A value in one short line, as one would write it in the file."""
    if isinstance(value, str):
        text = value if value.strip() == value != "" else repr(value)
    else:
        text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def read_study_file(source: Source) -> dict[str, Any]:
    """The file as a mapping. SpecError where it is missing, no file, no text, no YAML, or no mapping."""
    text = _read_text(source)
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        raise source.error(*_yaml_problem(error)) from None
    except RecursionError:
        raise source.error(
            "", NOTHING, "an alias (*name) refers to itself, or the file is nested too deeply: write the values out"
        ) from None
    if content is None:
        raise source.error("", NOTHING, "the file is empty: a study needs at least a base, e.g. 'base: {host: atss}'")
    if not isinstance(content, dict):
        raise source.error("", NOTHING, f"a study is a mapping (name, question, base, axes, ...), not a {_kind(content)}")
    return content


def parse_yaml(text: str) -> Any:
    """YAML to plain data, strictly. Raises yaml.YAMLError, also for a key given twice, and RecursionError for an alias inside itself."""
    value = yaml.load(text, Loader=_StrictLoader)
    _visit(value)
    return value


def _visit(value: Any) -> None:
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _visit(inner)


def studies_in(folder: Path) -> list[Path]:
    """The studies among the YAML files of a folder, sorted: those with a study's question, base, axes or cases at the left margin."""
    return [file for file in sorted(folder.glob("*.yaml")) if _reads_like_a_study(file)]


def _reads_like_a_study(file: Path) -> bool:
    try:
        return _STUDY_KEY.search(file.read_bytes()) is not None
    except OSError:
        return False


def _read_text(source: Source) -> str:
    path = source.path
    try:
        text = path.read_bytes().decode("utf-8")
    except IsADirectoryError:
        inside = studies_in(path)
        hint = f"name a file in it, e.g. {inside[0]}" if inside else "name a study file (*.yaml)"
        raise source.error("", NOTHING, f"is a folder, not a study: {hint}") from None
    except UnicodeDecodeError:
        raise source.error("", NOTHING, "is not a text file: a study is YAML in UTF-8") from None
    except FileNotFoundError:
        raise source.error("", NOTHING, _missing(path)) from None
    except (OSError, ValueError) as error:
        raise source.error("", NOTHING, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if "\0" in text:
        raise source.error("", NOTHING, "is not a text file: a study is YAML in UTF-8")
    return text


def _missing(path: Path) -> str:
    for folder in (path.parent, Path("experiments")):
        studies = [str(file) for file in studies_in(folder)]
        if studies:
            return did_you_mean("study file", path, studies)
    return f"no such file, and no study (*.yaml) in {path.parent}/: check the path"


def _yaml_problem(error: yaml.YAMLError) -> tuple[str, Any, str]:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return where, NOTHING, f"is not valid YAML: {problem}: correct the file there"


def _kind(value: Any) -> str:
    names = {list: "list", str: "piece of text", bool: "truth value", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with keys that are text as written, no key twice, and numbers like 1e-3."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.composer.ComposerError(None, None, "a key must be a plain word", key.start_mark)
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key '{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return node


_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
