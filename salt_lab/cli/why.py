"""``salt-lab why``: measures of misalignment, from detections and probes alone."""

from __future__ import annotations

from pathlib import Path

import click

from salt_lab.cli.shared import open_records, overrides_argument, read_study, store_option, study_argument


@click.command("why", short_help="Say why cells are better or worse.")
@study_argument
@overrides_argument
@store_option
@click.option(
    "--format", "style", type=click.Choice(["md", "csv"]), default="md", show_default=True, help="Markdown, or CSV in full precision."
)
@click.option(
    "--by",
    type=click.Choice(["all", "size", "class"]),
    multiple=True,
    help="Only the whole, the sizes or the classes; may be repeated. Default: all of them, in Markdown classes up to ten.",
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write here instead of to the terminal."
)
def command(study: str, overrides: tuple[str, ...], store_root: Path | None, style: str, by: tuple[str, ...], output: Path | None) -> None:
    """Print measures of misalignment for each cell of STUDY, over seeds and against its baseline.

    Errors by type, oLRP and its parts, score against IoU, coarse against refined boxes, and where the points fall; as a whole, by size and by
    class. Reads the trials' detections and probes; trains nothing. What each measure means: docs/why.md.
    """
    from salt_lab.record.journal import write_whole
    from salt_lab.report.page import check_writable
    from salt_lab.report.results import load_results
    from salt_lab.report.why import why
    from salt_lab.report.why_table import render

    store = open_records(store_root)
    if output is not None:
        check_writable(output)
    text = render(why(load_results(read_study(study, overrides), store), store), style, by).rstrip("\n")
    if output is None:
        click.echo(text)
        return
    write_whole(output, text + "\n")
    click.echo(f"measures written to {output}", err=True)
