"""``salt-lab report``: a study as one page of HTML."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import mlflow_option, open_store, overrides_argument, read_study, store_option, study_argument

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.spec.study import Study


@click.command("report", short_help="Write a study's report: one page of HTML.")
@study_argument
@overrides_argument
@store_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="The page; an existing one is replaced.",
)
@click.option("--no-gallery", is_flag=True, help="No pictures of detections: smaller, and nothing of the data set's images in the page.")
@click.option(
    "--resamples",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    metavar="N",
    help="Bootstrap draws for the intervals; 0: over seeds alone, reads no detections for them.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Seed of the bootstrap draws.")
@click.option("--to-mlflow", is_flag=True, help="Also beside the study's tables in MLflow: a file of its latest launch's run.")
@mlflow_option
def command(
    study: str,
    overrides: tuple[str, ...],
    store_root: Path | None,
    output: Path,
    no_gallery: bool,
    resamples: int,
    seed: int,
    to_mlflow: bool,
    mlflow_uri: str | None,
) -> None:
    """Write STUDY's report to one file that opens anywhere: no network, no server, no other file.

    Question, answer with its interval, table, pictures, why, the images on which the arms disagree, cost, what is not finished, what differs
    between any two runs, provenance. Reads the records; trains nothing. A study without a finished trial gets a page that says so.

    \b
    salt-lab report experiments/quickstart.yaml -o report.html
    salt-lab report experiments/bccd.yaml --no-gallery     without the data set's photos
    """
    plan, store = read_study(study, overrides), open_store(store_root)
    if not store.root.is_dir():
        from salt_lab.errors import StoreError
        from salt_lab.record.commands import command_for

        raise StoreError(
            f"--store {store.root}: there is no results folder. Name the one with the records, or train first: "
            f"{command_for('run', plan, store)}"
        )
    from salt_lab.report.page import write_page

    uri = _mlflow(plan, store, mlflow_uri) if to_mlflow or mlflow_uri else None
    write_page(
        plan,
        store,
        output,
        pictures=not no_gallery,
        resamples=resamples,
        seed=seed,
        tell=lambda line: click.echo(f"{line} ...", err=True),
    )
    click.echo(f"report written to {output} ({output.stat().st_size / 1e6:.1f} MB)", err=True)
    if uri:
        _deliver(plan, store, output, uri)


def _mlflow(study: Study, store: Store, given: str | None) -> str:
    """Which MLflow; that it answers and has a run for the page is checked before the work begins."""
    from salt_lab.errors import StoreError
    from salt_lab.record.commands import command_for
    from salt_lab.record.tracking import check_server, tracking_uri

    uri = given or tracking_uri(store)
    check_server(uri)
    if not store.launches(study.name):
        raise StoreError(
            f"study {study.name} has no launch in {store.root}, so MLflow has no run for its page. {command_for('run', study, store)}"
        )
    return uri


def _deliver(study: Study, store: Store, page: Path, uri: str) -> None:
    from salt_lab.errors import StoreError
    from salt_lab.record.mlflow_store import deliver_report
    from salt_lab.record.tracking import public

    folder = store.study_dir(study.name)
    with contextlib.suppress(shutil.SameFileError):
        shutil.copyfile(page, folder / "report.html")
    if not deliver_report(store, uri, study.name):
        raise StoreError(
            f"the page could not be delivered to MLflow at {public(uri)}; it is kept in {folder}. Try again: salt-lab sync {store.root}"
        )
    click.echo(f"MLflow: {public(uri)}, experiment {study.name}, latest launch, Artifacts > study > report.html", err=True)
