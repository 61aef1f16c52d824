"""``salt-lab table``: the study's table, from the records alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import open_records, overrides_argument, read_study, store_option, study_argument

if TYPE_CHECKING:
    from salt_lab.report.results import StudyResults

RESAMPLES = 1000


@click.command("table", short_help="Print a study's table from its records.")
@study_argument
@overrides_argument
@store_option
@click.option(
    "--format",
    "style",
    type=click.Choice(["md", "latex", "html", "csv"]),
    default="md",
    show_default=True,
    help="Markdown, LaTeX (booktabs), HTML (a page) or CSV.",
)
@click.option(
    "--metrics", metavar="NAMES", help="Metric columns, e.g. AP50,AP75,AR100; AP is always the first. Default: AP and its five parts."
)
@click.option("--cost", is_flag=True, help="Also training speed, inference time and input size, and what the cost columns mean.")
@click.option("--from-mlflow", metavar="URI", help="Read the runs of this MLflow server or store (sqlite:///FILE), not a results folder.")
@click.option("--no-intervals", is_flag=True, help="No intervals and marks behind the deltas: reads no detections, takes no time.")
@click.option("--resamples", type=click.IntRange(min=100), metavar="N", help=f"Bootstrap draws for the intervals; default {RESAMPLES}.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Seed of the bootstrap draws; default 0. The same seed, the same intervals."
)
@click.option(
    "--published",
    is_flag=False,
    flag_value="matching",
    type=click.Choice(["matching", "all"]),
    help="Published AP beside ours where it is of the same model, recipe and data; 'all': every published row below the table, too.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write here instead of to the terminal, and the run ids of every trial beside it (FILE's name with .runs.csv).",
)
def command(
    study: str,
    overrides: tuple[str, ...],
    store_root: Path | None,
    style: str,
    metrics: str | None,
    cost: bool,
    from_mlflow: str | None,
    no_intervals: bool,
    resamples: int | None,
    seed: int | None,
    published: str | None,
    output: Path | None,
) -> None:
    """Print one row per cell of STUDY: AP columns, delta against its baseline with its 95 % interval, cost, run ids. Reads the records only.

    \b
    salt-lab table experiments/quickstart.yaml
    salt-lab table experiments/quickstart.yaml --format latex -o table.tex     and table.runs.csv beside it
    salt-lab table experiments/paper/hosts.yaml --published                    published AP beside ours
    """
    if no_intervals and (resamples is not None or seed is not None):
        raise click.UsageError("--resamples and --seed are for intervals: leave them out, or --no-intervals")
    from salt_lab.report.grid import chosen_metrics
    from salt_lab.report.intervals import find_intervals
    from salt_lab.report.page import check_writable
    from salt_lab.report.published import beside
    from salt_lab.report.results import load_results, load_results_from_mlflow
    from salt_lab.report.table import render, study_table

    columns, store = chosen_metrics(metrics), open_records(store_root)
    if output is not None:
        check_writable(output)
    plan = read_study(study, overrides)
    results = load_results_from_mlflow(plan, from_mlflow) if from_mlflow else load_results(plan, store)
    found = None if no_intervals else find_intervals(results, store, resamples=resamples or RESAMPLES, seed=seed or 0)
    theirs = beside(results, everything=published == "all") if published else None
    text = render(study_table(results, found), style, cost=cost, metrics=columns, published=theirs).rstrip("\n")
    if output is None:
        click.echo(text)
    else:
        _write(output, text, results)


def _write(output: Path, text: str, results: StudyResults) -> None:
    from salt_lab.record.journal import write_whole
    from salt_lab.report.companion import companion_path, runs_table

    runs = companion_path(output)
    write_whole(runs, runs_table(results))
    write_whole(output, text + "\n")
    click.echo(f"table written to {output}, the runs behind it to {runs}", err=True)
