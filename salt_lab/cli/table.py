"""``salt-lab table``: the study's table, from the records alone."""

from __future__ import annotations

from pathlib import Path

import click

from salt_lab.cli.shared import open_store, overrides_argument, read_study, store_option, study_argument


@click.command("table", short_help="Print a study's table from its records.")
@study_argument
@overrides_argument
@store_option
@click.option(
    "--format",
    "style",
    type=click.Choice(["md", "latex", "csv"]),
    default="md",
    show_default=True,
    help="Markdown, LaTeX (booktabs) or CSV.",
)
@click.option("--cost", is_flag=True, help="Also training speed, inference time and input size, and what the cost columns mean.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write here instead of to the terminal."
)
def command(study: str, overrides: tuple[str, ...], store_root: Path | None, style: str, cost: bool, output: Path | None) -> None:
    """Print one row per cell of STUDY: AP columns, delta against its baseline, spread over seeds, cost, run ids. Reads the records only."""
    from salt_lab.report.results import load_results
    from salt_lab.report.table import render, study_table

    table = study_table(load_results(read_study(study, overrides), open_store(store_root)))
    text = render(table, style, cost=cost).rstrip("\n")
    if output is None:
        click.echo(text)
        return
    output.write_text(text + "\n", encoding="utf-8")
    click.echo(f"table written to {output}", err=True)
