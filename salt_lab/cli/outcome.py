"""The end of ``salt-lab run``: the table, what failed and why, where everything is, what to try next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from salt_lab.cli.trials import Planned
    from salt_lab.record.store import Store
    from salt_lab.spec.study import Study
    from salt_lab.spec.trial import CocoData, EmbeddedData


def show_outcome(study: Study, store: Store, mlflow_uri: str | None) -> None:
    """Write the study's report files and print everything that its runner wants to know, failures last but one.

    Args:
        study: what was run.
        store: where its records are.
        mlflow_uri: where MLflow has them; None = nowhere yet.
    """
    from salt_lab.cli.trials import planned_trials

    _show_tables(study, store)
    trials = planned_trials(study, store)
    _show_places(study, store, mlflow_uri)
    show_failures(trials, store)
    _show_next(study, store, trials)


def _show_tables(study: Study, store: Store) -> None:
    from salt_lab.report.results import load_results
    from salt_lab.report.table import pivot_table, render, study_table

    results = load_results(study, store)
    click.echo()
    pivot = pivot_table(results)
    if pivot is not None:
        click.echo(render(pivot, "md"))
    click.echo(render(study_table(results), "md"))


def _show_places(study: Study, store: Store, mlflow_uri: str | None) -> None:
    from salt_lab.report.study import write_report

    files = write_report(study, store)
    if mlflow_uri:
        from salt_lab.record.mlflow_store import deliver_report

        deliver_report(store, mlflow_uri, study.name)
    folder = store.study_dir(study.name)
    pictures = [path for path in files if path.suffix == ".png"]
    click.echo(f"tables:   {folder}/table.md, .csv, .tex")
    click.echo(f"pictures: {', '.join(map(str, pictures)) if pictures else 'none yet: no trial is done'}")
    click.echo(f"records:  {store.root}/trials")
    click.echo(f"MLflow:   {mlflow_hint(store.root, mlflow_uri)}")


def mlflow_hint(root: Path, uri: str | None) -> str:
    """How to see the records in MLflow: the exact command, or the server's address.

    >>> mlflow_hint(Path("/results"), None)
    'not used; deliver later with: salt-lab sync /results'
    """
    from salt_lab.record.tracking import public

    if uri is None:
        return f"not used; deliver later with: salt-lab sync {shlex.quote(str(root))}"
    if uri.startswith(("http://", "https://")):
        return public(uri)
    if uri == f"sqlite:///{(root / 'mlflow.db').as_posix()}":
        return f"salt-lab ui --store {shlex.quote(str(root))}   (then open http://127.0.0.1:5000)"
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"


def show_failures(trials: list[Planned], store: Store) -> None:
    """Say on stderr which trials are not done, why, and where the log is."""
    from salt_lab.cli.status import log_file

    for item in trials:
        if item.record.state == "failed":
            click.echo(
                f"failed: {item.cell.name} seed={item.trial.seed}: {item.record.reason}\n        log: {log_file(store, item.trial_id)}",
                err=True,
            )
        elif item.record.state == "stopped":
            click.echo(
                f"stopped: {item.cell.name} seed={item.trial.seed}: {item.record.reason}; --finish-stopped trains it to its end", err=True
            )
        elif item.record.state != "done":
            click.echo(f"{item.record.state}: {item.cell.name} seed={item.trial.seed}: run the same command to go on", err=True)


def _show_next(study: Study, store: Store, trials: list[Planned]) -> None:
    from salt_lab.record.commands import command_for
    from salt_lab.spec.reading import studies_in

    click.echo("next:")
    if picture := points_command(store, trials):
        click.echo(f"  {picture}   # boxes, R-points and C-points")
    if len(study.seeds) == 1:
        seeds = ",".join(str(study.seeds[0] + i) for i in range(3))
        click.echo(
            f"  {command_for('run', study, store, f'seeds=[{seeds}]')}   # what is done is kept; the spread over seeds tells a gain from luck"
        )
    click.echo(f"  {command_for('table', study, store)} --format latex   # also html, csv")
    others = [str(path) for path in studies_in(study.source.parent) if path != study.source]
    if others:
        click.echo(f"  salt-lab plan {shlex.quote(others[0])}   # other questions: {', '.join(others)}")


def points_command(store: Store, trials: list[Planned]) -> str | None:
    """The command that draws boxes and points of the best finished trial with SALT on three evaluation images; None where there is none."""
    finished = [item for item in trials if item.record.state == "done" and item.trial.salt.enabled]
    for item in sorted(finished, key=lambda item: -((item.record.metrics or {}).get("AP") or 0)):
        folder = store.trial_dir(item.trial_id)
        checkpoints = sorted((folder / "checkpoints").glob("epoch_*.pth"))
        if checkpoints:
            images = val_images(item.trial.data, store, 3)
            return shlex.join(
                ["salt-lab", "infer", str(folder / "config.py"), str(checkpoints[-1]), *images, "-o", "points.png", "--points"]
            )
    return None


def val_images(data: EmbeddedData | CocoData, store: Store, number: int) -> list[str]:
    """The first ``number`` evaluation images of a data set that was trained on (so it is drawn, or was checked)."""
    from salt_lab.data import prepare
    from salt_lab.data.paths import coco_files
    from salt_lab.spec.trial import CocoData

    paths = coco_files(data) if isinstance(data, CocoData) else prepare(data, store.data_dir)
    content = json.loads(paths.val_json.read_bytes())
    return [str(paths.val_images / image["file_name"]) for image in content["images"][:number]]
