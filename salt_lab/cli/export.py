"""``salt-lab export``: a study's records, to commit or to send."""

from __future__ import annotations

from pathlib import Path

import click

from salt_lab.cli.shared import open_store, overrides_argument, read_study, store_option, study_argument
from salt_lab.errors import StoreError


@click.command("export", short_help="Copy a study's records, without this machine's paths.")
@study_argument
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@overrides_argument
@store_option
def command(study: str, folder: Path, overrides: tuple[str, ...], store_root: Path | None) -> None:
    """Copy the records of STUDY into FOLDER: journals and launches, no weights, no absolute paths.

    FOLDER is then a results folder: salt-lab table STUDY --store FOLDER makes the same table from it on any machine.
    """
    from salt_lab.cli.trials import planned_trials
    from salt_lab.record.export import export_records

    question, store = read_study(study, overrides), open_store(store_root)
    count = export_records(store, question.name, [item.trial_id for item in planned_trials(question, store)], folder)
    if not count:
        raise StoreError(f"{store.root}: has no record of study '{question.name}'; run it first, or name its folder with --store")
    click.echo(f"{count} trials of {question.name} in {folder}; their table: salt-lab table {study} --store {folder}")
