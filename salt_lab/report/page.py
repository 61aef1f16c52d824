"""A study as one page of HTML that needs nothing else: no network, no server, no other file.

Compute first: every section is made by a module of :mod:`salt_lab.report.page_parts`; the template only sets what they say. The page may be shown
to others: it holds no path and no host name of the machine that made it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

import salt_lab
from salt_lab.errors import SaltLabError, UserError
from salt_lab.record.folded import brief_records
from salt_lab.record.journal import write_whole
from salt_lab.report.differences import differing, runs_of
from salt_lab.report.grid import View, make_grid
from salt_lab.report.html_table import html_fragment
from salt_lab.report.intervals import find_intervals
from salt_lab.report.page_parts import tables
from salt_lab.report.page_parts.answer import answer, pairs_of
from salt_lab.report.results import StudyResults, load_results
from salt_lab.report.rows import Table, study_table

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.spec.study import Study

Tell = Callable[[str], None]


def _silent(_: str) -> None:
    return None


def write_page(
    study: Study, store: Store, output: Path, *, pictures: bool = True, resamples: int = 1000, seed: int = 0, tell: Tell = _silent
) -> Path:
    """Write a study's report to ``output``; an existing file is replaced, whole or not at all.

    Args:
        study: the study.
        store: the results folder with its records.
        output: the file.
        pictures: also the gallery of detections.
        resamples: bootstrap draws of the intervals; 0 = over seeds alone.
        seed: of the draws.
        tell: called with a line before each part that takes time.

    Raises:
        UserError: ``output`` cannot be written; said before anything is computed.
    """
    check_writable(output)
    tell("reading the records")
    text = page(load_results(study, store), store, pictures=pictures, resamples=resamples, seed=seed, tell=tell)
    try:
        write_whole(output, text)
    except OSError as error:
        raise _unwritable(output, error) from None
    return output


def check_writable(output: Path) -> None:
    """Raise UserError where a file of this name cannot be written."""
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder. Name a file in it, as in {output / 'report.html'}")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}. Make it, or name a file in a folder that exists")
    try:
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise _unwritable(output, error) from None


def _unwritable(output: Path, error: OSError) -> UserError:
    return UserError(f"--output {output}: cannot be written: {error.strerror}. Name a file in a folder that can be, with room on its disk")


def page(results: StudyResults, store: Store, *, pictures: bool = True, resamples: int = 1000, seed: int = 0, tell: Tell = _silent) -> str:
    """The report as HTML; see :func:`write_page`. A study without a finished trial has a page too: it says what is missing."""
    tell(f"intervals: {resamples} resamples of images and seeds" if resamples else "intervals: over seeds")
    table = study_table(results, find_intervals(results, store if resamples else None, resamples=resamples, seed=seed))
    grid = make_grid(table, View())
    content = {
        **_head(results, table),
        "main_table": html_fragment(tables.accuracy_grid(grid, table)),
        "notes": grid.notes,
        "warnings": [text.removeprefix("WARNING: ") for text in grid.warnings],
        "sureness": tables.sureness(pairs_of(table)),
        "cost": tables.cost_table(table),
        "spent": tables.spent(results),
        "troubles": tables.troubles(results),
        **_parts(results, store, table, pictures, tell),
        **_provenance(results, store, table),
        "command": _command(results.study, pictures),
    }
    content["sections"] = _sections(content)
    return _render(content)


def _head(results: StudyResults, table: Table) -> dict[str, Any]:
    return {
        "study": table.study,
        "question": table.question.strip(),
        "answer": answer(table),
        "total": len(results.frame),
        "counts": tables.counts(results),
        "seeds": table.seeds,
        "written": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "version": salt_lab.__version__,
    }


def _parts(results: StudyResults, store: Store, table: Table, pictures: bool, tell: Tell) -> dict[str, Any]:
    """What takes time: measures, figures, gallery. Without a finished trial there is none of it."""
    from salt_lab.report.page_parts.figures import Figures, figures

    if not any(row.done for row in table.rows):
        return {"why": None, "figures": Figures(), "gallery": None, "photos": {}}
    tell("measures of misalignment")
    measured = _why(results, store)
    tell("pictures")
    drawn = figures(results, store, table, tell)
    return {"why": measured, "figures": drawn, **(_gallery(results, store, table, tell) if pictures else {"gallery": None, "photos": {}})}


def _why(results: StudyResults, store: Store) -> dict[str, Any]:
    from salt_lab.report.why import why

    try:
        found = why(results, store)
    except SaltLabError as error:
        return {"changes": [], "tables": [], "missing": [str(error)]}
    return {"changes": tables.why_changes(found), "tables": tables.why_tables(found), "missing": found.missing}


def _gallery(results: StudyResults, store: Store, table: Table, tell: Tell) -> dict[str, Any]:
    from salt_lab.report.page_parts.gallery import gallery

    found = gallery(results, store, pairs_of(table), tell)
    if not (found.sections or found.missing):
        return {"gallery": None, "photos": {}}
    sizes = {item.photo: (item.width, item.height) for section in found.sections for item in section.items if item.photo}
    return {"gallery": found, "photos": {name: (found.photos[name], *size) for name, size in sizes.items()}}


def _provenance(results: StudyResults, store: Store, table: Table) -> dict[str, Any]:
    runs = runs_of(results, store)
    default = runs.first_two([(str(row.baseline), row.key) for row in table.rows if row.baseline is not None])
    done = [str(identity) for identity in results.frame.loc[results.frame["state"] == "done", "trial_id"]]
    return {
        "runs": runs,
        "default": default,
        "differing": differing(runs.facts[default[0]], runs.facts[default[1]]) if runs.names else (),
        "runs_json": _json_for_html(runs.as_data()),
        "provenance": tables.provenance_table(results),
        "packages": tables.packages_table(list(brief_records(store, done, results.study.name))),
        "trials": tables.runs_of_page(results),
        "other_code": table.evidence.other_code,
    }


def _pathless(text: str) -> str:
    """Absolute paths cut to their last part.

    >>> _pathless("cannot read /home/me/data/val.json: no such file")
    'cannot read val.json: no such file'
    """
    return re.sub(r"(?<![\w./])/(?:[^\s/:,;()'\"]+/)+", "", text)


def _json_for_html(data: Any) -> str:
    """JSON that no text in it can end the script element around it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _command(study: Study, pictures: bool) -> str:
    words = ["salt-lab", "report", study.source.name, *study.overrides, "-o", "report.html", *([] if pictures else ["--no-gallery"])]
    return shlex.join(words)


def _sections(content: dict[str, Any]) -> list[tuple[str, str]]:
    every = [("table", "Results", True), ("why", "Why", content["why"]), ("gallery", "Gallery", content["gallery"])]
    every += [("cost", "Cost", True), ("unfinished", "Unfinished", content["troubles"].body)]
    every += [("differ", "Two runs", True), ("provenance", "Provenance", True)]
    return [(name, title) for name, title, there in every if there]


@cache
def _file(name: str) -> str:
    return (resources.files("salt_lab.report.page_parts") / name).read_text(encoding="utf-8").strip() + "\n"


def _render(content: dict[str, Any]) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"together": _together, "pathless": _pathless}
    style, script = _file("page.css"), _file("page.js")
    hashes = {"style_hash": _sha256(style), "script_hash": _sha256(script)}
    return environment.from_string(_file("page.html")).render(style=style, script=script, **hashes, **content)


def _together(text: str) -> str:
    """No line ends inside an interval, or in front of a percent sign or the word seeds."""
    return re.sub(r" (?=%|seeds?\b)|(?<=,) (?=[+−]?\d)", "\N{NO-BREAK SPACE}", text)


def _sha256(text: str) -> str:
    """As a Content-Security-Policy names a script or a style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
