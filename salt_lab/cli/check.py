"""``salt-lab check``: ours against published, within the spread that is reported between two runs of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import finite, open_records, overrides_argument, read_study, show_table, store_option, study_argument

if TYPE_CHECKING:
    from salt_lab.report.check import Check, Verdict


@click.command("check", short_help="Compare a study's AP with published numbers.")
@study_argument
@overrides_argument
@store_option
@click.option(
    "--noise",
    type=click.FloatRange(min=0),
    metavar="AP",
    callback=finite,
    help="AP points that two runs of one recipe may lie apart. Default 0.3: what mmdetection's maintainers call normal between runs; with one "
    "seed it is 0.2, but no published run names its seed.",
)
@click.pass_context
def command(context: click.Context, study: str, overrides: tuple[str, ...], store_root: Path | None, noise: float | None) -> None:
    """Hold every cell of STUDY against the published AP of the same model, recipe and data. Reads the records only.

    A cell's verdict is: agrees, lower by x, higher by x, nothing published, not run on COCO, or no result yet. Exit code 0 where nothing
    disagrees, 1 where something does.
    """
    from salt_lab.report.check import check_study
    from salt_lab.report.results import load_results

    found = check_study(load_results(read_study(study, overrides), open_records(store_root)), noise)
    show_table(["cell", "ours", "published", "source", "difference", "verdict"], [_row(one) for one in found.verdicts])
    for line in (*_reasons(found), *found.statements, _summary(found)):
        click.echo(line)
    context.exit(1 if found.disagrees else 0)


def _row(one: Verdict) -> list[str | None]:
    ours = f"{one.ours.mean:.1f} ({one.ours.n})" if one.ours.n else None
    theirs = f"{one.published.metrics['AP']:g}" if one.published else None
    difference = None if one.difference is None else f"{one.difference:+.1f}"
    return [one.name, ours, theirs, one.published.tags if one.published else None, difference, one.said]


def _reasons(found: Check) -> list[str]:
    """Each reason once, with the cells that it is about."""
    cells: dict[str, list[str]] = {}
    for one in found.verdicts:
        if one.why:
            cells.setdefault(f"{one.said}: {one.why}", []).append(one.name)
    every = len(found.verdicts)
    return [f"{reason} ({'all cells' if len(names) == every else ', '.join(names)})" for reason, names in cells.items()]


def _summary(found: Check) -> str:
    compared = [one for one in found.verdicts if one.difference is not None]
    if not compared:
        return "Nothing to compare: no cell is a published model on all of COCO 2017 with a result."
    wrong = sum(one.disagrees for one in compared)
    outcome = "all agree" if not wrong else f"{wrong} disagree{'s' if wrong == 1 else ''}"
    return f"{len(compared)} of {len(found.verdicts)} cells compared, {outcome} within {found.noise:g} AP between runs."
