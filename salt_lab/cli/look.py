"""``salt-lab look``: a study's finished detectors on images that chose nothing, recorded like trials."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import as_text, open_records, overrides_argument, read_study, store_option, study_argument
from salt_lab.errors import SaltLabError, UserError

if TYPE_CHECKING:
    from salt_lab.cli.trials import Planned
    from salt_lab.data import DatasetPaths
    from salt_lab.record.store import Store
    from salt_lab.spec.study import Study


@click.command("look", short_help="Evaluate a study's detectors on test images.")
@study_argument
@click.argument("annotations", metavar="ANNOTATIONS")
@overrides_argument
@store_option
@click.option("--images", metavar="FOLDER", help="Where the images of ANNOTATIONS are; default: where the study's val images are.")
def command(study: str, annotations: str, overrides: tuple[str, ...], store_root: Path | None, images: str | None) -> int:
    """Evaluate the last checkpoint of every finished trial of STUDY on the images of ANNOTATIONS (COCO's format), the study's val split apart.

    Each becomes a record of its own in the results folder: the same training, other val images. So the commands that read records read it, with
    the val split as an override; salt-lab look prints the words. What was looked at is not looked at again.

    \b
    salt-lab look  experiments/real/bccd.yaml $SALT_LAB_BCCD/annotations/test.json
    salt-lab table experiments/real/bccd.yaml data.val=$SALT_LAB_BCCD/annotations/test.json

    Exit code 1 where a finished trial's checkpoint is gone.
    """
    from salt_lab.cli.trials import planned_trials
    from salt_lab.data import prepare

    store = open_records(store_root)
    elsewhere = [f"data.val={annotations}", *([f"data.val_images={images}"] if images else [])]
    trained = planned_trials(_of_photos(study, overrides), store)
    looked = planned_trials(read_study(study, (*overrides, *elsewhere)), store)
    if all(one.trial_id == other.trial_id for one, other in zip(trained, looked, strict=True)):
        raise UserError(f"{annotations}: the study was evaluated on these images already; its table: salt-lab table {study}")
    for data in dict.fromkeys(item.trial.data for item in looked):
        _refuse_trained_on(annotations, prepare(data, store.data_dir))
    store.check_writable()
    missing = _look_at_all(store, trained, looked)
    click.echo(f"next: salt-lab table {' '.join([study, *overrides, *elsewhere])}")
    return 1 if missing else 0


def _of_photos(study: str, overrides: tuple[str, ...]) -> Study:
    """The study, whose trials must all have data in COCO's format."""
    from salt_lab.spec.trial import CocoData

    question = read_study(study, overrides)
    if not all(isinstance(cell.trial.data, CocoData) for cell in question.cells):
        raise UserError(f"{study}: its images are drawn, and nothing was chosen on them: there is no test split to look at")
    return question


def _refuse_trained_on(annotations: str, paths: DatasetPaths) -> None:
    from salt_lab.data.fingerprint import image_names

    shown = image_names(paths.val_json)
    both = sorted(set(shown) & set(image_names(paths.train_json)))
    if both and paths.train_images.resolve() == paths.val_images.resolve():
        raise UserError(
            f"{annotations}: {len(both)} of its {len(shown)} images were trained on, such as '{both[0]}': their AP is no test. "
            "Name images that nothing learnt from"
        )


def _look_at_all(store: Store, trained: list[Planned], looked: list[Planned]) -> int:
    """Each pair once. Returns how many of the finished trials could not be evaluated."""
    pairs = list({after.trial_id: (before, after) for before, after in zip(trained, looked, strict=True)}.values())
    due = [(before, after) for before, after in pairs if before.record.state == "done" and after.record.state != "done"]
    there = sum(after.record.state == "done" for _, after in pairs)
    started, made = time.perf_counter(), 0
    for number, (before, after) in enumerate(due, 1):
        words = " ".join(f"{key}={as_text(value)}" for key, value in before.cell.label.items())
        click.echo(f"{before.trial_id} ({words} seed={before.trial.seed}): ", nl=False)
        made += _look_at(store, before, after)
        left = (time.perf_counter() - started) / number * (len(due) - number)
        click.echo(f" ({number} of {len(due)}, about {left:.0f} s left)" if number < len(due) else "")
    waiting = len(pairs) - there - len(due)
    click.echo(f"{len(pairs)} trials: {made} evaluated now, {there} before, {len(due) - made} cannot be, {waiting} not finished")
    return len(due) - made


def _look_at(store: Store, before: Planned, after: Planned) -> bool:
    from salt_lab.train.look import look

    try:
        record = look(store.record(before.trial_id), after.trial, store)
    except SaltLabError as error:
        click.echo(f"not evaluated: {error}", nl=False)
        return False
    ap = (record.metrics or {}).get("AP")
    click.echo(f"AP {'-' if ap is None else f'{ap:.1f}'}, recorded as {record.trial_id}", nl=False)
    return True
